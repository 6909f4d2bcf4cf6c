"""Top-down information I_q(x; z_l | z_{>l}), from densities that are all known, nats.

With a_l = log q(z_{>=l} | x_i) - log 1/n Σ_j q(z_{>=l} | x_j) for a draw of image i, the mean of ``a_l - a_{l+1}`` is
exact for "which of the n images?". Conditional information is concave in the distribution of x, so for images at
large it is a lower bound: 0 for a layer that is busy while the layers above already tell the n images apart.
Upper bounds are ``E KL(q(z_l|z_{l+1}, x) ‖ r)``, for r = p(z_l|z_{l+1}), and for r the mixture of q(z_l | z_{l+1}, x_j)
over the *other* images; the smaller counts. With a context all is conditional on it: only data of the same context are
alternatives, and where fewer than `FEWEST_SHARING` share one there is no lower bound. A control of mean 0 reduces
chance: a draw's rate less its KL. Where the distributions have no closed form the control is 0, as the rate stands for
its KL. Where p's parents of z_l are visited after it, its rate is no KL and bounds nothing.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from hvae.diagnostics.bounds import ROWS, Information, Intervals, ordered
from hvae.diagnostics.draws import Alternatives, Sampler, controlled, per_datum
from hvae.numerics import FloatArray

NUMBERS = 2**23
"""numbers of latents that are scored at once: bounds the memory, a few times 32 MB in float32"""


def conditional_information(sampler: Sampler, intervals: Intervals, extra: Tensor | None) -> dict[str, Information]:
    """I_l = J_l of every layer; the mixture grows by ``extra`` images while an interval contains epsilon."""
    images = sampler.x
    pool = images if extra is None else torch.cat([images, extra])
    groups = sampler.model.groups(pool)
    evidence = sampler.evidence(1, "information")
    rate = {name: per_datum(evidence.rate(name), len(images)) for name in evidence.latents}
    prior = {n: per_datum(evidence.kl(n), len(images)) if evidence.closed_form(n) else rate[n] for n in rate}
    chance = {name: rate[name] - prior[name] for name in rate}
    is_kl = {name: evidence.parents_first(name) for name in rate}
    n_mixture = len(images)
    n_looks = 1 + math.ceil(math.log2(len(pool) / len(images)))
    intervals = intervals.shared(n_looks, 2)
    on_n_images: dict[str, float] = {}
    while True:
        mixture = pool[:n_mixture]
        others = None if groups is None else Alternatives.of(groups[: len(images)], groups[:n_mixture])
        draws = {name: site.value[0] for name, site in evidence.q.items()}
        terms = _conditional(sampler, draws, mixture, others)
        found = {}
        for name in terms:
            raw = terms[name] if others is None else _where_enough(terms[name], others, prior[name], is_kl[name])
            on_images, to_others = (controlled(bound, chance[name]) for bound in raw)
            on_n_images.setdefault(name, float(on_images.mean()))
            above = (prior[name], to_others) if is_kl[name] else (to_others,)
            low, high = intervals.low(on_images), intervals.high(*above)
            most = min(float(bound.mean()) for bound in above)
            carried = ordered(min(low, most), high, min(on_n_images[name], most))
            found[name] = Information(carried, carried, n_mixture, on_n_images[name])
        undecided = any(intervals.open(layer.from_parent) for layer in found.values())
        if not undecided or n_mixture == len(pool):
            return found
        n_mixture = min(2 * n_mixture, len(pool))


def _where_enough(
    terms: tuple[FloatArray, FloatArray], others: Alternatives, prior: FloatArray, is_kl: bool
) -> tuple[FloatArray, FloatArray]:
    """Where too few data share a context nothing is known from below, and from above the divergence from p counts."""
    enough = others.enough.cpu().numpy()
    return np.where(enough, terms[0], 0.0), np.where(enough, terms[1], prior if is_kl else np.inf)


def _conditional(
    sampler: Sampler, draws: dict[str, Tensor], mixture: Tensor, others: Alternatives | None = None
) -> dict[str, tuple[FloatArray, FloatArray]]:
    """Terms ``[n]`` of each layer, one draw an image: ``a_l - a_{l+1}``, and of the KL to the mixture of the others."""
    order: Sequence[str] = sampler.model.posterior.order
    parts: dict[str, tuple[list[Tensor], list[Tensor]]] = {name: ([], []) for name in order}
    n = len(mixture)
    width = max(sum(values.shape[-1] for values in draws.values()), sampler.model.decoder.row_size)
    for rows in torch.arange(sampler.n_images).split(max(1, min(ROWS, NUMBERS // (n * width)))):
        given = {name: values[rows].unsqueeze(1) for name, values in draws.items()}
        trace = sampler.model.infer(mixture.unsqueeze(0), {}, given)
        here = torch.arange(len(rows))
        apart = None if others is None else ~others.same[rows]
        log_n: Tensor | float = math.log(n)
        log_rest: Tensor | float = math.log(n - 1) if n > 1 else -math.inf
        if others is not None:
            log_n, log_rest = others.count[rows].log(), (others.count[rows] - 1).log()
        joint = torch.zeros(len(rows), n, dtype=torch.float64, device=mixture.device)
        above = torch.zeros(len(rows), dtype=torch.float64, device=mixture.device)
        for name in order:
            scores = trace[name].log_prob.double().expand(len(rows), n).clone()  # [r, n]
            if apart is not None:
                scores[apart] = -math.inf
            joint = joint + scores
            ratio = joint[here, rows] - joint.logsumexp(-1) + log_n
            own = scores[here, rows].clone()
            scores[here, rows] = -math.inf
            parts[name][0].append(ratio - above)
            parts[name][1].append(own - scores.logsumexp(-1) + log_rest)
            above = ratio
    return {name: (torch.cat(a).cpu().numpy(), torch.cat(b).cpu().numpy()) for name, (a, b) in parts.items()}
