"""Exact informations of a posterior over discrete layers on n images of equal weight ("which of the n images?").

    I_q(x; z_l)            = 1/n sum_i KL(q(z_l | x_i) ‖ 1/n sum_j q(z_l | x_j))
    I_q(z_{l-1}, x; z_l)   = 1/n sum_i E_q(z_{l-1} | x_i) KL(q(z_l | z_{l-1}, x_i) ‖ 1/n sum_j q(z_l | x_j)),
                             which is I_q(z_{l-1}; z_l) where z_l sees z_{l-1} alone, I_q(x; z_l) where x alone
    I_q(x; z_l | z_{>l})   = I_q(x; z_{>=l}) - I_q(x; z_{>l}), over the joint states of all layers from z_l up

The last needs more than pairs: the whole path from above tells which image it was. Nats.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from hvae.exact.answers import NoReferenceError
from hvae.exact.discrete_visits import CELLS, Visits


@dataclass(frozen=True)
class DiscreteInformation:
    """Informations by latent, nats, float64 scalars; the same quantities that `hvae.diagnostics` bounds.

    >>> from hvae.exact import DiscreteChain
    >>> from hvae.exact.known_stacks import binary_decoder, binary_encoder
    >>> source = torch.Generator().manual_seed(0)
    >>> decoder, posterior = binary_decoder(1.0, (3, 2), source), binary_encoder((3, 2), source)
    >>> 0 < DiscreteChain.of(decoder).information(posterior, torch.eye(3)).about_datum["z1"] < math.log(3)
    tensor(True)
    """

    about_datum: Mapping[str, Tensor]
    """I_l of the verdict: I_q(x; z_l) with z1 first, I_q(x; z_l | z_{>l}) top-down"""
    from_parent: Mapping[str, Tensor]
    """J_l: I_q(parents of z_l; z_l) with z1 first, I_q(x; z_l | z_{>l}) top-down"""
    marginal: Mapping[str, Tensor]
    """I_q(x; z_l), whatever the order"""


def discrete_information(visits: Visits, *, bottom_up: bool) -> DiscreteInformation:
    """All of them. Raises `NoReferenceError` top-down where n images x joint states of all layers exceed 2^24."""
    walked = [(name, q, means) for name, q, means in visits.walk(lambda _, __, log_q: (log_q,), matrices=frozenset())]
    marginals = {name: q for name, q, _ in walked}
    marginal = {name: _mutual(q / len(q)) for name, q in marginals.items()}
    if bottom_up:
        parents = {name: log_q.mean() - torch.xlogy(q.mean(0), q.mean(0)).sum() for name, q, (log_q,) in walked}
        return DiscreteInformation(marginal, parents, marginal)
    conditional = _conditional(visits)
    return DiscreteInformation(conditional, conditional, marginal)


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
