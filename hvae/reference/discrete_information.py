"""Exact informations of a posterior over discrete layers on n images of equal weight ("which of the n images?").

    I_q(x; z_l)            = 1/n sum_i KL(q(z_l | x_i) ‖ 1/n sum_j q(z_l | x_j))
    I_q(z_{l-1}; z_l)      from the pair 1/n sum_i q(z_{l-1} | x_i) q(z_l | z_{l-1}, x_i)
    I_q(x; z_l | z_{>l})   = I_q(x; z_{>=l}) - I_q(x; z_{>l}), over the joint states of all layers from z_l up

The last cannot do with pairs: which image it was is told by the whole path from above. Nats.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from hvae.reference.answers import NoReferenceError
from hvae.reference.discrete_visits import CELLS, Visits


@dataclass(frozen=True)
class DiscreteInformation:
    """Informations by latent, nats, float64 scalars; the same as `hvae.diagnostics` bounds."""

    about_datum: Mapping[str, Tensor]
    """I_l of the verdict: I_q(x; z_l) bottom-up, I_q(x; z_l | z_{>l}) top-down"""
    from_parent: Mapping[str, Tensor]
    """J_l: I_q(z_{l-1}; z_l) bottom-up, I_q(x; z_l | z_{>l}) top-down"""
    marginal: Mapping[str, Tensor]
    """I_q(x; z_l), whatever the order"""


def discrete_information(visits: Visits, *, bottom_up: bool) -> DiscreteInformation:
    """All of them. Raises `NoReferenceError` top-down where n images x the joint states of all layers exceed 2^24."""
    marginals = {name: q for name, q, _ in visits.walk(lambda *_: (), matrices=frozenset())}
    marginal = {name: _mutual(q / len(q)) for name, q in marginals.items()}
    if bottom_up:
        return DiscreteInformation(marginal, _from_latents(visits, marginals), marginal)
    conditional = _conditional(visits)
    return DiscreteInformation(conditional, conditional, marginal)


def _from_latents(visits: Visits, marginals: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Bottom-up J_l of every layer; the parent of the first is x."""
    found = {}
    for name in visits.posterior.order:
        previous = visits.previous(name)
        if previous is None:
            found[name] = _mutual(marginals[name] / len(visits.x))
            continue
        pair = torch.zeros(len(visits.states[previous]), len(visits.states[name])).to(marginals[name])
        for _, weight, log_q in visits.chunks(name, marginals[previous], cells=pair.shape[0] + pair.shape[1]):
            q = log_q.exp()
            if q.shape[1] == 1:
                pair += weight.mT @ q[:, 0].expand(len(weight), -1)
            else:
                pair += weight.sum(0).unsqueeze(-1) * q[0] if len(q) == 1 else (weight.unsqueeze(-1) * q).sum(0)
        found[name] = _mutual(pair / len(visits.x))
    return found


def _conditional(visits: Visits) -> dict[str, Tensor]:
    """Top-down I_q(x; z_l | z_{>l}) of every layer."""
    n, n_paths = len(visits.x), math.prod(len(states) for states in visits.states.values())
    if n * n_paths > CELLS:
        raise NoReferenceError(
            f"conditional informations need all {n_paths} joint states for each of {n} images, {n * n_paths} numbers "
            f"where {CELLS} is the limit; give fewer images."
        )
    rows = torch.arange(n, device=visits.x.device)
    path = visits.x.new_ones(n, 1, dtype=torch.float64)
    found, above = {}, path.new_zeros(())
    for name in visits.posterior.order:
        q = visits.log_q(name, rows).exp()
        path = (path.reshape(n, -1, visits.n_previous(name), 1) * q.unsqueeze(1)).flatten(1)
        so_far = _mutual(path / n)
        found[name], above = so_far - above, so_far
    return found


def _mutual(pair: Tensor) -> Tensor:
    """Mutual information of two variables from their joint probabilities; 0 log 0 is 0."""
    sides = sum(torch.xlogy(side, side).sum() for side in (pair.sum(0), pair.sum(1)))
    return torch.xlogy(pair, pair).sum() - sides
