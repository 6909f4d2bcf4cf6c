"""What a diagnosis holds: all that was measured of one model, or of several replicas side by side.

`hvae.measuring.measure` makes one from models; a run's evaluation is one as well. It holds arrays and sentences and no
model, so it needs no torch. Shapes lead with R, the replicas; an interval is a last axis of three, (low, middle, high);
what was not measured is NaN. Nats.
"""

from abc import ABC
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from hvae.diagnosis.card import Card
from hvae.diagnosis.gap import Annealed, Exact, Gap
from hvae.diagnosis.layer import NOT_MEASURED, Layer
from hvae.diagnosis.likelihood import Likelihood, Pictures, Signal
from hvae.diagnosis.record import Array, Texts
from hvae.diagnosis.sizes import Sizes
from hvae.vocabulary import ACTIVE, FAILED, RULE, UNDECIDED

SCHEMA = 1
"""of the files that a diagnosis is kept in; 0 for those that record none"""
OUTSIDE = "measured from outside"
"""where a diagnosis comes from that no run of hvae made"""


@dataclass(frozen=True)
class Doubt:
    """A sentence that limits what may be believed, and what it is about.

    >>> print(Doubt("The effective sample size is 3.", "L_1000", seed=5))
    L_1000, seed 5: The effective sample size is 3.
    """

    sentence: str
    what: str
    """a quantity, or a layer"""
    seed: int | None = None
    """of the replica; None for all"""

    def __str__(self) -> str:
        of = "" if self.seed is None else f", seed {self.seed}"
        return f"{self.what}{of}: {self.sentence}"


@dataclass(frozen=True, eq=False)
class Measured(ABC):
    """The arrays and sentences of a `hvae.diagnosis.Diagnosis`, and what follows from them.

    >>> from hvae.exact.known_stacks import linear_stack
    >>> from hvae.measuring import Sizes, measure
    >>> stack = linear_stack(1.0, "best", seed=0)
    >>> sizes = Sizes(n_images=6, max_paths=16, n_likelihood=6, n_samples=10)
    >>> found = measure([stack.model], stack.x, sizes)
    >>> [layer.name for layer in found.layers], found.likelihood.bound_nats.shape, found.rule
    (['z1', 'z2', 'z3'], (1, 2, 3), 3)
    """

    layers: tuple[Layer, ...]
    """z1 first"""
    seeds: tuple[int, ...]
    """[R] what the replicas are told apart by"""
    alive: Array
    """[R] bool; False for a replica that went non-finite and was stopped"""
    died_at: Array
    """[R] training step, -1 where alive or not recorded"""
    culprit: Texts
    """[R] what became non-finite first; empty where alive or not recorded"""
    step: int | None
    """the training step that was measured, where that was recorded"""
    epsilons: tuple[float, ...]
    """thresholds of the verdict in nats: a lower one, the one that counts, a higher one"""
    n_images: int
    """images of the information measures; 0 before anything is measured"""
    order: str
    """the inference order by name"""
    bottom_up: bool
    """whether z1 is visited first"""
    yardstick: str
    """data and distribution of x: bounds on log p(x) compare within one only"""
    collapse_epsilons: Array
    """[E'] nats, of `Layer.collapsed_fraction`"""
    likelihood: Likelihood | None = None
    likelihood_deep: Likelihood | None = None
    annealed: Annealed | None = None
    exact: Exact | None = None
    gap: Gap | None = None
    signal: Signal | None = None
    pictures: Pictures | None = None
    sizes: Sizes | None = None
    """what it was measured with, where that was recorded"""
    rule: int = RULE
    """the number of the rule from intervals to a verdict"""
    schema: int = SCHEMA
    notes: tuple[Doubt, ...] = ()
    """doubts from before the measurement: of the checks at the door, and what was left out of the data"""
    checks: Texts = ()
    """what the checks at the door found to be right"""
    cards: tuple[Card, ...] = ()
    """what is known of the data, a card for each observed variable; none where that was not recorded"""
    label: str = ""
    source: str = OUTSIDE
    """where it comes from"""

    @property
    def n_replicas(self) -> int:
        """R."""
        return len(self.seeds)

    @property
    def depth(self) -> int:
        """L."""
        return len(self.layers)

    @property
    def evaluated(self) -> bool:
        """Whether the layers were measured."""
        return self.n_images > 0

    @property
    def epsilon_index(self) -> int:
        """Where the threshold that counts stands among `epsilons`."""
        return len(self.epsilons) // 2

    @property
    def epsilon_nats(self) -> float:
        """The threshold that counts."""
        return self.epsilons[self.epsilon_index]

    @property
    def verdicts(self) -> Mapping[str, Texts]:
        """Layer -> [R] the verdict at the threshold that counts."""
        return {layer.name: tuple(map(str, layer.verdict[:, self.epsilon_index])) for layer in self.layers}

    @property
    def active_layers(self) -> Array:
        """[R] layers that the verdict calls active; NaN for a replica that failed or was not measured."""
        return self._layers_called(ACTIVE)

    @property
    def undecided_layers(self) -> Array:
        """[R] layers of which the verdict cannot tell; NaN as in `active_layers`."""
        return self._layers_called(UNDECIDED)

    def _layers_called(self, word: str) -> Array:
        words = np.array([self.verdicts[layer.name] for layer in self.layers])  # [L, R]
        known = ~np.isin(words, (FAILED, NOT_MEASURED)).any(axis=0)
        return np.where(known, (words == word).sum(axis=0), np.nan)

    @property
    def measured_further(self) -> bool:
        """Whether more than the encoder's own bound on log p(x) was asked for."""
        return any(found is not None for found in (self.annealed, self.exact, self.gap))

    @property
    def exact_beside_gap(self) -> Exact | None:
        """The exact answers, unless they are of other images than the estimated gap."""
        others = self.gap is not None and self.exact is not None and self.gap.images != self.exact.images
        return None if others else self.exact

    @property
    def not_measured(self) -> Mapping[tuple[str, str], str]:
        """(quantity, layer) -> why it was not measured; the layer is "" for what is of the whole model."""
        reasons = {
            (quantity, layer.name): texts for layer in self.layers for quantity, texts in layer.not_measured.items()
        }
        reasons |= {(what, ""): texts for what, texts in self._refusals()}
        return {where: next(filter(None, texts)) for where, texts in reasons.items() if any(texts)}

    @property
    def doubts(self) -> tuple[Doubt, ...]:
        """Replicas that failed, marks beside verdicts, warnings of estimates, refusals."""
        return tuple(self._doubts())

    def _doubts(self) -> Iterator[Doubt]:
        yield from (note for note in self.notes if note.what != "x")
        for seed, good, step, culprit in zip(self.seeds, self.alive, self.died_at, self.culprit, strict=True):
            if not good:
                at = f" at step {step}" if step >= 0 else ""
                yield Doubt(f"Stopped{at}{' in ' if culprit else ''}{culprit}, and not measured.", "failed", seed)
        for what, texts in self._texts():
            for seed, text in zip(self.seeds, texts, strict=True):
                if text:
                    yield Doubt(text, what, seed)
        yield from (note for note in self.notes if note.what == "x")

    def _texts(self) -> Iterator[tuple[str, Texts]]:
        for layer in self.layers:
            yield layer.name, layer.marks
        if self.likelihood is not None:
            yield "likelihood", self.likelihood.marks
        for curve in (self.likelihood, self.likelihood_deep):
            if curve is not None:
                yield curve.shown_as, curve.warning
        if self.annealed is not None:
            yield "AIS", self.annealed.warning
            yield "sandwich", self.annealed.simulated_warning
        if self.gap is not None:
            yield "log p(x) of the gap", self.gap.log_px_reason
            yield "p(z|x)", self.gap.posterior_warning
            for name, of_layer in self.gap.layers.items():
                yield f"gap of {name}", of_layer.reason
        yield from self._refusals()

    def _refusals(self) -> Iterator[tuple[str, Texts]]:
        """Of the records that are there: a name, and why replicas have no numbers."""
        records: Mapping[str, Any] = {
            "likelihood": self.likelihood, "annealed": self.annealed, "exact": self.exact, "gap": self.gap,
            "gradients": self.signal,
        }  # fmt: skip
        for what, record in records.items():
            if record is not None:
                yield what, record.refused
