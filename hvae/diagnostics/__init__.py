"""Questions about the layers of a stack, each answered per datum so that it carries its doubt.

Reading order: `draws` (q-traces of n images), `rates` (the cost of a layer), `units` (those that are active), `usage`
(whether the decoder reads a layer), `information` (`nested` bottom-up, `conditional` top-down, `bounds`), `verdict`.

The gap of the ELBO: `terms` (a mean with its doubt), `rest` (the evidence of the latents not yet visited),
`refinement` and `proposals` (the means of estimating it), `marginals` (the best of them, and whether to trust it),
`gap` (by layer), `suboptimality` (by cause), `unamortised` (q fitted to each datum), `collapse` (of encoder or model).

`signal` (of a gradient, against its noise) stands alone.
"""
