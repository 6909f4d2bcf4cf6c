"""Collapse of the encoder, or of the model?

A unit that q ignores may be one that the exact posterior p(z|x) ignores as well (collapse of the model). Or p(z|x) uses
it and q does not find out (collapse of the encoder). Both are read from one number without scale, the share of a unit's
distribution that the image decides, in the first moment or in the second, whichever is larger:

    share = max_k Var_x E[y_k|x] / Var[y_k],    y_1 = z - E z,    y_2 = y_1²,    Var[y] = Var_x E[y|x] + E_x Var[y|x]

In a ladder z stands for what a unit adds to the layers above, ``(z_l - E_p[z_l|z_{>l}]) / sd_p[z_l|z_{>l}]``: a layer
that follows its prior moves with the image as they do, and has share 0.

The share of y_1 alone overlooks changes of the variance: x = 2z² + noise leaves E[z|x] = 0. With twins a, b,
independent estimates of E[y|x], and s of E[y²|x], ``cov_x(a, b)`` and ``mean_x(s - a·b)`` have no bias for the two
variances; one estimate would add its own noise. Twins are two halves of draws: of paths for q, of annealed chains
(`hvae.likelihood.annealing`) for p, self-normalised by their weights. The latter are unbiased only as far as a half's
effective sample size carries: few or unequal weights pull p towards q, and `UnitActivity.withheld` is for these.
The words for the shares of a layer are read from the arrays (`hvae.diagnosis.activity`).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.stats import t
from torch import Tensor

from hvae.certain import student_hall
from hvae.diagnostics.draws import Sampler
from hvae.evidence import HVAE
from hvae.network import Trace
from hvae.numerics import FloatArray
from hvae.shapes import LogProb, Noise, Value


@dataclass(frozen=True)
class UnitActivity:
    """The share of every unit of a layer, (low, middle, high) ``[D, 3]``; 1 if the image decides all, 0 if nothing.

    >>> used = UnitActivity(posterior=np.array([[0.4, 0.5, 0.6]]), encoder=np.array([[0.0, 0.0, 0.01]]))
    >>> used.withheld().posterior.tolist()
    [[0.0, 0.5, 1.0]]
    """

    posterior: FloatArray
    """under p(z|x)"""
    encoder: FloatArray
    """under q(z|x)"""

    def withheld(self) -> "UnitActivity":
        """The same with nothing sure of p(z|x), low 0 and high 1: for chains that are doubted."""
        return replace(self, posterior=self.posterior * [0, 1, 0] + [0, 0, 1])


@torch.no_grad()
def activity(
    model: HVAE, x: Tensor, noise: Mapping[str, Noise], log_weight: LogProb, *, n_paths: int, seed: int, risk: float
) -> dict[str, UnitActivity]:
    """Posterior and encoder side by side, by layer, on `x [n, D]`.

    ``noise [C, n, ·]`` by latent and ``log_weight [C, n]`` are the ends of annealed chains in the noise of the encoder
    (``target.split(annealed.noise)`` for `hvae.likelihood.target.from_encoder`); q gets two sets of ``n_paths`` paths.
    ``risk`` is shared out over all ends of intervals that can err: the chance that any unit of any layer, in p or in q,
    is surely on the wrong side of a threshold. Measured, for 64 units, 100 data, 64 equal chains, a risk of 0.05 and a
    threshold of 0.01 that is the truth, where most go wrong: some unit of p surely above in 1 % of 300 trials, and
    surely below in 2 %, but in 11 % where 5 % of the data bear it all; data that are not there cannot tell.
    Raises ValueError for fewer than two chains or data, no path, a risk outside (0, 1) and weights that are broken.
    """
    n_chains = len(log_weight)
    if n_chains < 2 or n_paths < 1 or len(x) < 2:
        raise ValueError(
            f"There are {n_chains} chains, {n_paths} paths and {len(x)} data; give at least 2 chains, for twins, "
            "1 path and 2 data."
        )
    if not 0 < risk < 1:
        raise ValueError(f"The risk of a wrong statement is {risk}; give one between 0 and 1, such as 0.05.")
    if not log_weight.logsumexp(0).isfinite().all():
        raise ValueError("The weights of annealed chains are nan, infinite or all zero; look for broken parameters.")
    chains = _added(model, model.infer(x.unsqueeze(0), noise), x)
    paths = _added(model, Sampler(model, x, seed).paths(2 * n_paths, "activity"), x)
    equal = log_weight.new_zeros(2 * n_paths, len(x))
    units = {name: model.decoder.family(name).units for name in model.latents}
    n_units = sum(units.values())
    tail = risk / (4 * n_units)  # p and q, and two moments that may each call an idle unit active
    return {
        name: UnitActivity(_shares(chains[name], log_weight, tail, n_units), _shares(paths[name], equal, tail, n_units))
        for name, n_units in units.items()
    }


def _added(model: HVAE, trace: Trace, x: Tensor) -> dict[str, Value]:
    """Draws of every layer; in a ladder by their distance from the prior at the layers above, in its deviations."""
    if model.bottom_up:
        return {name: site.value for name, site in trace.items()}
    found = {}
    for name, prior in model.weigh(trace, x.unsqueeze(0)).p.items():
        if name in trace:
            value = trace[name].value
            if prior.family.exponential:  # the others know no variance
                n_axes = len(prior.distribution.event_shape)
                variance = prior.distribution.variance.flatten(-n_axes)
                value = (value - prior.mean) / variance.clamp(min=torch.finfo(variance.dtype).tiny).sqrt()
            found[name] = value
    return found


def _shares(value: Value, log_weight: LogProb, tail: float, n_units: int) -> FloatArray:
    """``[D, 3]`` from draws ``[C, n, width]`` and their weights ``[C, n]``: the larger share of the two moments.

    The larger low and the larger high bound the larger share, if each bounds its own.
    """
    value, n_chains = value.double(), len(value)
    halves = [slice(0, n_chains // 2), slice(n_chains // 2, n_chains)]
    weights = [log_weight[half].double().softmax(0).unsqueeze(-1) for half in halves]

    def twins(y: Value) -> Value:
        return torch.stack([(weight * y[half]).sum(0) for weight, half in zip(weights, halves, strict=True)])

    centred = value - twins(value).mean((0, 1))
    found = []
    for y in (centred, centred.square()):
        a, b = twins(y).cpu().numpy()
        found.append(share_interval(a, b, twins(y.square()).mean(0).cpu().numpy(), tail, n_units))
    larger: FloatArray = np.maximum(*found)
    return larger


def share_interval(a: FloatArray, b: FloatArray, s: FloatArray, tail: float, n_units: int | None = None) -> FloatArray:
    """(low, middle, high) ``[D, 3]`` of ``C / (C + W)`` with ``C = cov(a, b)``, ``W = mean(s - a·b)``; each ``[n, D]``.

    Where there are ``n_units`` of several numbers, as channels of pixels, C and W are their sums within each unit.

    Ends ``R - t·e`` and ``R + (t + g (1 + 2t²) / (3 √n))·e`` for the share R: t leaves out ``tail`` at n - 1 degrees of
    freedom, e is the standard error by the delta method, ``dR = [(1 - R) dC - R dW] / (C + W)``, and g the skewness of
    dR where positive (`hvae.certain.student_hall`): units that few data move have a long right tail, so the high end
    of a t interval misses. A unit that never moves has share 0.
    """
    n = len(a)
    shape = (n, a.shape[1] if n_units is None else n_units, -1)
    products = ((a - a.mean(0)) * (b - b.mean(0))).reshape(shape).sum(-1)
    within = (s - a * b).reshape(shape).sum(-1)
    between = products.sum(0) / (n - 1)
    total = between + within.mean(0)
    total = np.where(total == 0, np.inf, total)
    share = between / total
    influence = ((1 - share) * products - share * within) / total
    influence = influence - influence.mean(0)
    error, wide = influence.std(0) / math.sqrt(n - 1), float(t.isf(tail, n - 1))
    _, wider = student_hall(influence.T, n, tail)
    return np.stack([share - wide * error, share, share + wider * error], axis=-1)
