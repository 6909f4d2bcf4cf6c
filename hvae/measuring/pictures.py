"""Pictures: reconstructions, samples, and what each layer holds, or each resolution."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from hvae import rng
from hvae.diagnosis.likelihood import Pictures
from hvae.diagnosis.record import Array
from hvae.diagnostics.draws import Sampler
from hvae.evidence import HVAE


@torch.no_grad()
def draw_pictures(model: HVAE, x: Tensor, shape: Sequence[int], seed: int, n_samples: int = 8) -> Pictures:
    """Means of x: reconstructions, samples, and resamplings that keep z_{>=l} from q(z|x) and draw the layers below.

    Of a stack of several resolutions l is the last layer of each: what is at that resolution or coarser is kept.
    """
    sampler = Sampler(model, x, seed)
    specs = model.decoder.noise_specs()
    evidence = sampler.evidence(1, "images")
    drawn = rng.noise(specs, 1, 6 * n_samples, seed=seed, purpose="samples", device=str(x.device))
    resampled = {}
    for position, name in enumerate(evidence.latents):
        if name not in cuts(model):
            continue
        kept = {above: evidence.q[above].value.expand(n_samples, len(x), -1) for above in evidence.latents[position:]}
        fresh = rng.noise(specs, n_samples, len(x), seed=seed, purpose=f"resample {name}", device=str(x.device))
        resampled[name] = _array(model.decoder.walk(kept, fresh)["x"].mean.transpose(0, 1))
    return Pictures(
        shape=np.array(shape),
        x=_array(model.shown(x)),
        reconstruction=_array(evidence.p["x"].mean[0]),
        samples=_array(model.decoder.walk({}, drawn)["x"].mean[0]),
        resampled=resampled,
    )


MOST_CUTS = 8
"""sets of kept layers that are drawn, where layers have no resolution"""


def cuts(model: HVAE) -> list[str]:
    """Layers l that are drawn with z_{>=l} kept: the last of each resolution, or some at equal steps.

    >>> from hvae.exact.known_stacks import linear_stack
    >>> cuts(linear_stack(1.0, "best", seed=0).model)
    ['z1', 'z2', 'z3']
    """
    names = list(model.latents)
    places = [event[-2:] if len(event := model.decoder.event(name)) == 3 else () for name in names]
    if len(set(places)) > 1:
        return [name for name, at, below in zip(names, places, [None, *places], strict=False) if at != below]
    steps = np.linspace(0, len(names) - 1, min(len(names), MOST_CUTS)).round().astype(int)
    return [names[step] for step in steps]


def _array(values: Tensor) -> Array:
    found: Array = values.detach().cpu().numpy()
    return found
