"""log p(x) between two bounds, on data that the model itself made.

For (x, z) drawn from the decoder, z is an exact draw of p(z|x). Annealing forward bounds log p(x) from below, and
backward from z from above, in expectation each (bidirectional Monte Carlo, Grosse, Ghahramani and Adams 2015). The
distance of their means is how far either can be off, whatever the model. On real data only the lower bound exists;
its error is not measured there, but that of the same settings on simulated data is.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from hvae import rng
from hvae.evidence import HVAE
from hvae.likelihood.annealing import Annealed, Annealing, Tick, run_backward, run_forward, silent, tune
from hvae.likelihood.estimate import Estimate
from hvae.likelihood.target import Target, from_encoder
from hvae.numerics import FloatArray
from hvae.shapes import Noise, Value


@dataclass(frozen=True)
class Sandwich:
    """Both bounds on simulated data.

    >>> from hvae.exact.known_stacks import linear_stack
    >>> stack = linear_stack(1.0, "tilted", seed=0, widths=(6, 4))
    >>> found = sandwich(stack.model, 50, Annealing(5, n_chains=30, n_leapfrog=1), seed=0, like=stack.x)
    >>> found.gap_datum_nats.shape, found.lower.direction, found.upper.direction
    ((50,), 'lower', 'upper')
    """

    x: Tensor
    """``[B, D]``"""
    z: dict[str, Value]
    """the latents that made x, ``[1, B, D]`` each"""
    lower: Estimate
    upper: Estimate
    acceptance: float

    @property
    def gap_datum_nats(self) -> FloatArray:
        """``upper - lower`` of each datum; single data may cross, means over many do not."""
        return self.upper.log_px - self.lower.log_px


@torch.no_grad()
def simulate(model: HVAE, n_data: int, seed: int, like: Tensor) -> tuple[Tensor, dict[str, Value]]:
    """``n_data`` draws of (x, z) from the decoder, on the device and in the dtype of ``like``."""
    if n_data < 1:
        raise ValueError(f"{n_data} data were to be simulated; give at least 1.")
    specs = model.decoder.noise_specs()
    drawn = rng.noise(specs, 1, n_data, seed=seed, purpose="simulated data", device=str(like.device), dtype=like.dtype)
    trace = model.decoder.walk({}, drawn)
    values = {name: trace[name].value.expand(1, n_data, -1) for name in specs}
    return values["x"][0], {name: values[name] for name in model.latents}


@torch.no_grad()
def noise_at(model: HVAE, target: Target, x: Tensor, z: dict[str, Value]) -> Noise:
    """The noise ``[1, B, D]`` that the encoder turns into ``z``: an exact draw in the encoder's coordinates."""
    q = model.infer(x.unsqueeze(0), {}, z)
    return torch.cat([q[name].family.noise_of(q[name].distribution, q[name].value) for name in target.specs], dim=-1)


def sandwich(
    model: HVAE, n_data: int, annealing: Annealing, *, seed: int, like: Tensor, tick: Tick = silent,
    chunk_data: int = 128,
) -> Sandwich:  # fmt: skip
    """Bounds of log p(x) from both sides on ``n_data`` simulated data, both along one frozen path from the encoder.

    ``like`` names device and dtype; ``chunk_data`` data are annealed together. Raises `NotWhitenedError`.
    """
    x, z = simulate(model, n_data, seed, like)
    forward, upper = [], []
    for start in range(0, n_data, chunk_data):
        part = slice(start, start + chunk_data)
        target, key = from_encoder(model, x[part]), f"sandwich/{start}"
        path = tune(target, annealing, seed, key, tick)
        exact = noise_at(model, target, x[part], {name: value[:, part] for name, value in z.items()})
        forward.append(run_forward(target, path, annealing, seed, key, tick))
        upper.append(run_backward(target, path, exact, annealing, seed, key, tick))
    lower = Annealed.joined(forward)
    return Sandwich(x, z, lower.estimate, Estimate.joined(upper), lower.acceptance)
