"""Whose collapse is it: the encoder's or the model's?

A unit that q ignores may be one that the exact posterior p(z|x) ignores as well: the decoder has no use for it
(collapse of the model). Or p(z|x) uses it and q does not find out (collapse of the encoder). Both are read from
one statistic, the variance over data of the posterior mean,

    Var_x E[z|x] = cov_x(a, b),    a, b independent estimates of E[z|x],

which twins estimate without bias where one estimate would add its own noise (`units`). For q, a and b are means over
two sets of paths; for p over two halves of annealed chains (`hvae.likelihood.annealing`), self-normalised by their
weights. That of p is unbiased only as far as a half's effective sample size carries: few or unequal weights pull it
towards q. p and q are in the same units.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from hvae.diagnostics.draws import Sampler
from hvae.diagnostics.units import covariance_interval
from hvae.evidence import HVAE
from hvae.network import Trace
from hvae.numerics import FloatArray
from hvae.shapes import LogProb, Noise, Value
from hvae.vocabulary import ACTIVE_VARIANCE

USED = "active in both"
UNUSED = "collapse of the model"
MISSED = "collapse of the encoder"
INVENTED = "active in the encoder alone"
OPEN = "undecided"


@dataclass(frozen=True)
class UnitActivity:
    """``Var_x E[z|x]`` of every unit of a layer, (low, middle, high) ``[D, 3]``, in the squared scale of z."""

    posterior: FloatArray
    """under p(z|x)"""
    encoder: FloatArray
    """under q(z|x)"""

    @property
    def readings(self) -> tuple[str, ...]:
        """What is sure of each unit: an interval on one side of `ACTIVE_VARIANCE`, for p and for q."""
        return tuple(_reading(*pair) for pair in zip(self.posterior, self.encoder, strict=True))

    @property
    def n_active(self) -> tuple[int, int]:
        """Units whose middle exceeds `ACTIVE_VARIANCE`, in p and in q."""
        posterior, encoder = ((found[:, 1] > ACTIVE_VARIANCE).sum() for found in (self.posterior, self.encoder))
        return int(posterior), int(encoder)


def _reading(posterior: FloatArray, encoder: FloatArray) -> str:
    states = [
        "active" if low > ACTIVE_VARIANCE else "inactive" if high < ACTIVE_VARIANCE else OPEN
        for low, _, high in (posterior, encoder)
    ]
    match states:
        case ["active", "active"]:
            return USED
        case ["active", "inactive"]:
            return MISSED
        case ["inactive", "inactive"]:
            return UNUSED
        case ["inactive", "active"]:
            return INVENTED
        case _:
            return OPEN


@torch.no_grad()
def activity(
    model: HVAE,
    x: Tensor,
    noise: Mapping[str, Noise],
    log_weight: LogProb,
    *,
    n_paths: int,
    seed: int,
    n_bootstrap: int = 1000,
    level: float = 0.95,
) -> dict[str, UnitActivity]:
    """Posterior and encoder side by side, by layer, on `x [n, D]`.

    ``noise [C, n, ·]`` by latent and ``log_weight [C, n]`` are the ends of annealed chains in the noise of the encoder
    (``target.split(annealed.noise)`` for `hvae.likelihood.target.from_encoder`); q gets two sets of ``n_paths`` paths.
    """
    n_chains = len(log_weight)
    if n_chains < 2 or n_paths < 1 or len(x) < 2:
        raise ValueError(
            f"There are {n_chains} chains, {n_paths} paths and {len(x)} data; give at least 2 chains, for twins, "
            "1 path and 2 data."
        )
    if not log_weight.logsumexp(0).isfinite().all():
        raise ValueError("The weights of annealed chains are nan, infinite or all zero; look for broken parameters.")
    chains = model.infer(x.unsqueeze(0), noise)
    halves = [slice(0, n_chains // 2), slice(n_chains // 2, n_chains)]
    weights = [log_weight[half].softmax(0).unsqueeze(-1) for half in halves]
    sampler = Sampler(model, x, seed)
    paths = [sampler.paths(n_paths, f"activity/{twin}") for twin in "ab"]

    def covariance(twins: list[Value], n_units: int) -> FloatArray:
        a, b = (mean.double().cpu().numpy().T for mean in twins)
        return covariance_interval(a, b, n_units, n_bootstrap, seed, level)

    found = {}
    for name in model.latents:
        n_units = chains[name].family.units
        of_p = [(weight * chains[name].value[half]).sum(0) for weight, half in zip(weights, halves, strict=True)]
        of_q = [_mean(trace, name, len(x)) for trace in paths]
        found[name] = UnitActivity(covariance(of_p, n_units), covariance(of_q, n_units))
    return found


def _mean(trace: Trace, name: str, n: int) -> Value:
    """``[n, width]``: mean over paths of the law's mean, which is less noisy than that of the draws."""
    mean = trace[name].mean
    return mean.expand(len(mean), n, mean.shape[-1]).mean(0)
