"""What one asks of a stack's layers, each answer per datum so that it carries its doubt.

Reading order: `draws` (q-traces of n images), `rates` (what a layer costs), `units` (which units are
active), `spectrum` (what Bernoulli units are told), `usage` (whether the decoder reads it), `information` (what it
carries: `nested` bottom-up, `conditional` top-down, `bounds` for their intervals), `verdict`.

The gap of the ELBO: `terms` (a mean with its doubt), `rest` (the evidence of the latents not yet visited),
`refinement` and `proposals` (what it is estimated with), `marginals` (the best of them, and whether to trust it),
`gap` (by layer), `suboptimality` (by cause), `unamortised` (q fitted to each datum, without a net), `collapse` (the
encoder's or the model's).
"""
