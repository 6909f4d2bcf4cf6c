"""The floor of independent columns beside a likelihood (`hvae.likelihood.floor`)."""

import copy
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from hvae import rng
from hvae.diagnosis.likelihood import Likelihood
from hvae.errors import NotMeasuredError
from hvae.evidence import HVAE
from hvae.families import (
    DiagonalGaussian,
    DiagonalNormal,
    DiscretisedLogistic,
    DiscretisedLogisticMixture,
    Family,
    FullGaussian,
)
from hvae.families.logistic import LevelsDistribution
from hvae.foreign.stack import Stack
from hvae.likelihood.floor import Columns, floor_datum_nats
from hvae.numerics import mean_interval

LEVELS = (DiscretisedLogistic, DiscretisedLogisticMixture)
TRAINING, MEASURED = "the training data", "the measured data"
N_LOOKED_AT = 64
"""data whose p(x|z) shows whether a variance moves"""


class Floor:
    """What independent columns say of data ``x [N, D]``, fitted to ``train``.

    Without training data it is fitted to x, and for each datum to the others.

    >>> from hvae.exact.known_stacks import linear_stack
    >>> from hvae.measuring import measure_likelihood
    >>> stack = linear_stack(1.0, "best", seed=0)
    >>> found = measure_likelihood(stack.model, stack.x, 100, until_se=0.1, seed=0)
    >>> found = Floor(stack.x).beside(found, stack.model)
    >>> found.floor_fitted_to, found.floor_nats.shape, found.below_floor.tolist()
    ('the measured data', (1, 3), [False])
    """

    def __init__(self, x: Tensor, train: Tensor | None = None) -> None:
        self._x = x
        self._of_training = None if train is None else Columns.of(train)

    def beside(self, curve: Likelihood, model: HVAE) -> Likelihood:
        """The likelihood of one model on the first data, with their floor, or with the sentence why there is none."""
        family = model.decoder.family("x")
        about = replace(
            curve,
            floor_fitted_to=MEASURED if self._of_training is None else TRAINING,
            n_columns=family.units,
            n_levels=family.n_levels if isinstance(family, LEVELS) else None,
        )
        try:
            values = self._of(model, family, curve.n_images)
        except NotMeasuredError as refusal:
            return replace(about, floor_refused=(" ".join(str(refusal).split()),))
        return replace(about, floor_datum_nats=values[None], floor_nats=mean_interval(values)[None])

    def _of(self, model: HVAE, family: Family, n: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        shown = model.shown(self._x)
        of_all, x = self._of_training, shown[:n]
        columns = Columns.of(shown).without(x) if of_all is None else of_all
        if isinstance(model, Stack):
            family = _as_fixed(model, family, self._x[:N_LOOKED_AT])
        found: np.ndarray[tuple[int], np.dtype[np.float64]] = floor_datum_nats(family, columns, x).numpy()
        return found


@torch.no_grad()
def _as_fixed(model: HVAE, family: Family, x: Tensor) -> Family:
    """The family of a user's model: with a fixed variance or scale where that of p(x|z) is the same for all data.

    A user's function does not say whether its variance is fixed. One that does not move is taken as it is.
    """
    if not isinstance(family, DiagonalGaussian | FullGaussian | DiscretisedLogistic):
        return family
    drawn = rng.noise(model.noise_specs(), 2, len(x), seed=0, purpose="floor", device=str(x.device), dtype=x.dtype)
    law = model(x.unsqueeze(0), drawn).p["x"].distribution
    match law:
        case DiagonalNormal():
            log_variance = law.log_variance.expand(law.mean.shape)
            if _same(log_variance):
                fixed = DiagonalGaussian(family.width, variance="fixed")
                fixed.log_variance = log_variance.flatten(end_dim=-2)[0].clone()
                return fixed
        case LevelsDistribution():
            log_scale = law.log_scale.expand(law.location.shape)
            if _same(log_scale):
                levels = DiscretisedLogistic(family.units, n_levels=law.n_levels, variance="fixed")
                levels.log_scale = log_scale.flatten(end_dim=-2)[0].clone()
                return levels
        case MultivariateNormal():
            tril = law.scale_tril
            if _same(tril.flatten(-2)):
                return FullGaussian(family.units, variance="fixed", scale_tril=tril.flatten(end_dim=-3)[0])
    return copy.deepcopy(family)


def _same(spread: Tensor) -> bool:
    """Whether ``[K, B, ·]`` are the same for all data, but for rounding."""
    rows = spread.flatten(end_dim=-2)
    return torch.allclose(rows, rows[:1].expand_as(rows), rtol=1e-5, atol=1e-6)
