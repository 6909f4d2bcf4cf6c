"""What is said of a run beside its numbers: settings that defeat themselves, columns without doubt, an unlucky start,
steps that were skipped.

Nothing here is refused. The sentences follow from the configuration, the data card, the rates of the first step and the
rows of metrics, so that they stand on the terminal before training and in the report after it.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from numpy.typing import NDArray

from hvae.diagnosis.card import Card
from hvae.diagnosis.measured import Doubt
from hvae.lab.config import RunConfig
from hvae.schedules import unfinished
from hvae.vocabulary import skips

START = "start"
"""name of the arrays: ``bound_nats [R]`` and ``rate_nats/<layer> [R]`` of the first step"""
HALFWAY = "halfway"
"""name of the arrays: ``verdict/<layer> [R, E]`` and ``elbo_datum_nats [R, n]`` at half of training"""
UNLUCKY_NATS = 100.0
"""a unit of a layer, of blocks a number, at the first step, where 1 is usual. A rate has the exponential of
log-variances, which grow with depth: of deep stacks under xavier some seeds begin at 1e7 nats and more, under
orthogonal none"""


def remarks(config: RunConfig, cards: Sequence[Card]) -> tuple[Doubt, ...]:
    """What may be said before training."""
    return (*_schedules(config), *(doubt for card in cards for doubt in _singular(config, card)))


def _schedules(config: RunConfig) -> list[Doubt]:
    said = []
    starts = [stage.from_step for stage in config.stages]
    for stage, (start, end) in zip(config.stages, pairwise((*starts, config.training.n_steps)), strict=True):
        where = f"From step {start} on, " if start else ""
        if getattr(stage.learning_rate, "stop", 0.0) == 1.0:
            remedy = 'give it the rate as stop, as in {"warmup_steps": 500, "stop": 2e-4}'
            said.append(Doubt(f"{where}learning_rate rises to 1, which is for beta; {remedy}.", "training"))
        for name, schedule in (("objective.beta", stage.objective.beta), ("learning_rate", stage.learning_rate)):
            found = unfinished(schedule, end - start)
            if found:
                said.append(Doubt(f"{where}{name} {found}; give it fewer steps, or train longer.", "training"))
    return said


def _singular(config: RunConfig, card: Card) -> list[Doubt]:
    """Columns whose density grows with every step, for one reason."""
    variance = config.model.observation_variance
    if config.model.observation != "gaussian" or variance not in ("learned", "network"):
        return []
    kinds = (
        (card.constant, "is constant", "are constant"),
        (card.two_valued, "takes two values", "take two values each"),
        (card.dependent, "", "are linear functions of each other"),
    )
    for columns, one, many in kinds:
        if columns:
            of = f"{len(columns)} of {card.n_columns} columns {many}" if len(columns) > 1 else f"A column {one}"
            return [
                Doubt(
                    f"{of} in training ({card.some(columns)}), and under model.observation_variance {variance} a "
                    "density there has no upper bound: likelihoods may grow as long as it trains; leave such columns "
                    "out, or take shared or fixed.",
                    "x",
                )
            ]
    return []


def unlucky(start: Mapping[str, NDArray[Any]], config: RunConfig) -> list[Doubt]:
    """Of each seed that began with a layer of more than `UNLUCKY_NATS` a unit: where, and how far off.

    >>> import numpy as np
    >>> config = RunConfig.from_dict({"model": {"latents": [4]}, "training": {"seeds": [0, 7]}})
    >>> start = {"rate_nats/z1": np.array([3.0, 4e6]), "bound_nats": np.array([-9.0, -4e6])}
    >>> print(unlucky(start, config)[0])
    training, seed 7: It began at -4e+06 nats, 1e+06 a unit in z1; take other seeds, or model.init orthogonal.
    """
    said, dense = [], config.model.blocks is None
    for replica, seed in enumerate(config.training.seeds):
        a_unit = {
            f"z{layer}": float(start[f"rate_nats/z{layer}"][replica]) / n
            for layer, n in enumerate(config.model.widths, start=1)
        }
        worst = max(a_unit, key=lambda name: a_unit[name])
        if a_unit[worst] > UNLUCKY_NATS:
            of = f"a {'unit' if dense else 'number'} in {worst}"
            began = f"It began at {float(start['bound_nats'][replica]):.2g} nats, {a_unit[worst]:.2g} {of}"
            remedy = f"take other seeds{', or model.init orthogonal' if dense else ''}"
            said.append(Doubt(f"{began}; {remedy}.", "training", seed))
    return said


def skipped(rows: Sequence[Mapping[str, Any]], config: RunConfig) -> list[Doubt]:
    """Of each seed that skipped steps: how many, and whether it stands still since.

    >>> config = RunConfig.from_dict({"training": {"seeds": [0, 7]}})
    >>> row = {"step": 100, "skipped_steps": [0, 3], "skipped_in_a_row": [0, 0]}
    >>> print(skipped([row], config)[0])
    training, seed 7: It skipped 3 of 100 steps, as its gradient was larger than skip_norm.
    """
    last = rows[-1] if rows else {}
    counts = zip(config.training.seeds, last.get("skipped_steps", ()), last.get("skipped_in_a_row", ()), strict=False)
    return [
        Doubt(f"It {skips(int(n), int(in_a_row), last['step'])}.", "training", seed)
        for seed, n, in_a_row in counts
        if n
    ]
