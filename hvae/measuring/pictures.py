"""Pictures: reconstructions, samples, and what each layer holds."""

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
    """Means of x: reconstructions, samples, and resamplings that keep z_{>=l} from q(z|x) and draw the layers below."""
    sampler = Sampler(model, x, seed)
    specs = model.decoder.noise_specs()
    evidence = sampler.evidence(1, "images")
    drawn = rng.noise(specs, 1, 6 * n_samples, seed=seed, purpose="samples", device=str(x.device))
    resampled = {}
    for position, name in enumerate(evidence.latents):
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


def _array(values: Tensor) -> Array:
    found: Array = values.detach().cpu().numpy()
    return found
