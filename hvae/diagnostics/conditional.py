"""Top-down information I_q(x; z_l | z_{>l}), from densities that are all known, nats.

With a_l = log q(z_{>=l} | x_i) - log 1/n Σ_j q(z_{>=l} | x_j) for a draw of image i, the mean of ``a_l - a_{l+1}`` is
exact for "which of the n images?". Conditional information is concave in the distribution of x, so for images at
large it is a lower bound: 0 for a layer that is busy while the layers above already tell the n images apart.
Upper bounds are ``E KL(q(z_l|z_{l+1}, x) ‖ r)``, for r = p(z_l|z_{l+1}), and for r the mixture of q(z_l | z_{l+1}, x_j)
over the *other* images; the smaller counts. A control of mean 0 reduces chance: a draw's rate less its KL. Where the
distributions have no closed form the control is 0, as the rate stands for its KL.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from hvae.diagnostics.bounds import ROWS, Information, Intervals, ordered
from hvae.diagnostics.draws import Sampler, controlled, per_datum
from hvae.numerics import FloatArray


def conditional_information(sampler: Sampler, intervals: Intervals, extra: Tensor | None) -> dict[str, Information]:
    """I_l = J_l of every layer; the mixture grows by ``extra`` images while an interval contains epsilon."""
    images = sampler.x
    pool = images if extra is None else torch.cat([images, extra])
    evidence = sampler.evidence(1, "information")
    rate = {name: per_datum(evidence.rate(name), len(images)) for name in evidence.latents}
    prior = {n: per_datum(evidence.kl(n), len(images)) if evidence.closed_form(n) else rate[n] for n in rate}
    chance = {name: rate[name] - prior[name] for name in rate}
    n_mixture = len(images)
    n_looks = 1 + math.ceil(math.log2(len(pool) / len(images)))
    intervals = intervals.shared(n_looks, 2)
    on_n_images: dict[str, float] = {}
    while True:
        terms = _conditional(sampler, {name: site.value[0] for name, site in evidence.q.items()}, pool[:n_mixture])
        found = {}
        for name in terms:
            on_images, to_others = (controlled(bound, chance[name]) for bound in terms[name])
            on_n_images.setdefault(name, float(on_images.mean()))
            low, high = intervals.low(on_images), intervals.high(prior[name], to_others)
            carried = ordered(low, high, on_n_images[name])
            found[name] = Information(carried, carried, n_mixture, on_n_images[name])
        undecided = any(intervals.open(layer.from_parent) for layer in found.values())
        if not undecided or n_mixture == len(pool):
            return found
        n_mixture = min(2 * n_mixture, len(pool))


def _conditional(
    sampler: Sampler, draws: dict[str, Tensor], mixture: Tensor
) -> dict[str, tuple[FloatArray, FloatArray]]:
    """Terms ``[n]`` of each layer, one draw an image: ``a_l - a_{l+1}``, and of the KL to the mixture of the others."""
    order: Sequence[str] = sampler.model.posterior.order
    parts: dict[str, tuple[list[Tensor], list[Tensor]]] = {name: ([], []) for name in order}
    n = len(mixture)
    for rows in torch.arange(sampler.n_images).split(ROWS):
        given = {name: values[rows].unsqueeze(1) for name, values in draws.items()}
        trace = sampler.model.infer(mixture.unsqueeze(0), {}, given)
        here = torch.arange(len(rows))
        joint = torch.zeros(len(rows), n, dtype=torch.float64, device=mixture.device)
        above = torch.zeros(len(rows), dtype=torch.float64, device=mixture.device)
        for name in order:
            scores = trace[name].log_prob.double().expand(len(rows), n).clone()  # [r, n]
            joint = joint + scores
            ratio = joint[here, rows] - joint.logsumexp(-1) + math.log(n)
            own = scores[here, rows].clone()
            scores[here, rows] = -math.inf
            parts[name][0].append(ratio - above)
            parts[name][1].append(own - scores.logsumexp(-1) + math.log(n - 1))
            above = ratio
    return {name: (torch.cat(a).cpu().numpy(), torch.cat(b).cpu().numpy()) for name, (a, b) in parts.items()}
