"""What was measured of each latent layer, as a record of arrays.

Quantities stand under their names, whatever they are: a reader needs no list of them, and a new one needs no change
here. The end of a name is the unit (`unit_of`). What was not measured is NaN of the right shape, and `not_measured`
has the sentence that says why.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from hvae.diagnosis.record import Array, Arrays, Texts, flat, numbers, read_fields, shared, texts, words
from hvae.vocabulary import ACTIVE_VARIANCE, FAILED, FORMER

NOT_MEASURED = "not measured"
REASON = "not_measured"
"""in a file, the reasons stand under not_measured/<quantity>/<layer>"""

UNITS = {"_nats": "nats", "_seconds": "s", "_units": "units", "bits_per_dim": "bits"}
"""end of a quantity's name -> its unit"""


def unit_of(quantity: str) -> str:
    """The unit that a quantity's name ends in; empty for a pure number.

    >>> unit_of("information_nats"), unit_of("burda_variance")
    ('nats', '')
    """
    return next((unit for end, unit in UNITS.items() if quantity.endswith(end)), "")


@dataclass(frozen=True, eq=False)
class Layer:
    """What was measured of one latent layer. Shapes lead with R; an interval is (low, middle, high).

    >>> found = {"information_nats/z1": np.array([[0.5, 0.6, 0.7]]), "verdict/z1": np.array([["active"] * 3])}
    >>> layer = read_layer(found, "z1", 4, alive=np.array([True]), n_epsilons=3)
    >>> layer.interval("information_nats").tolist(), layer.interval("rate_nats").tolist()
    ([[0.5, 0.6, 0.7]], [[nan, nan, nan]])
    """

    name: str
    n_units: int
    verdict: Array = numbers()
    """[R, E] words, one per epsilon"""
    moved_share: Array = numbers()
    """[R, E, 3] share of images that move the layer by more than epsilon, from the law that leaves the fewest"""
    used_cap: Array = numbers(key="used_cap_nats")
    """[R] the most that V, "used_nats", could say"""
    n_paths: Array = numbers()
    """[R] paths per image, or images in the mixture, behind the information"""
    information_on_n: Array = numbers(key="information_on_n_nats")
    """[R] mean of the information's terms on exactly n images, nats; NaN where the layer sees another one below it"""
    collapsed_fraction: Array | None = numbers()
    """[R, E'] share of units that are (epsilon, delta)-collapsed"""
    collapse_reference: str | None = shared()
    """ "prior" or "aggregate": what that share is measured against"""
    event: Array | None = shared()
    """shape of a value of z_l; None where that was not recorded"""
    marks: Texts = texts()
    """[R] what stands beside the verdict, as in "too few images" """
    intervals: Arrays = numbers(layers=True)
    """quantity -> [R, 3]"""
    unit_intervals: Arrays = numbers(layers=True)
    """quantity -> [R, D, 3]"""
    not_measured: Mapping[str, Texts] = texts(layers=True)
    """quantity -> [R] the sentence why it was not measured; empty where it was"""
    mixed: bool = False
    """whether `n_paths` counts images in a mixture: for a visit from the top"""

    @property
    def place(self) -> str:
        """Rows and columns, as in "8x8", of a latent that has them, with channels first; otherwise empty."""
        return "" if self.event is None or np.size(self.event) != 3 else f"{self.event[1]}x{self.event[2]}"

    def interval(self, quantity: str) -> Array:
        """[R, 3], NaN where it was not measured."""
        found = self.intervals.get(quantity)
        return np.full((len(self.verdict), 3), np.nan) if found is None else found

    def shares(self, epsilon_index: int) -> Array:
        """[R, 3] share of images that move the layer by more than that threshold; NaN where it was not measured."""
        found = self.moved_share
        return found[:, epsilon_index] if found.ndim == 3 else np.full((len(self.verdict), 3), np.nan)

    @property
    def n_mixture(self) -> int:
        """Top-down: the most images in a replica's mixture; otherwise 0."""
        n_paths = self.n_paths[np.isfinite(self.n_paths)]
        return int(np.max(n_paths, initial=0)) if self.mixed else 0

    @property
    def active_statistic(self) -> str:
        """The variance over data by which units are active; without what a unit inherits, where that was measured."""
        for quantity in ("twin_covariance", "residual_variance", "burda_variance"):
            if quantity in self.unit_intervals:
                return quantity
        return ""

    def active_units(self, statistic: str = "", threshold: float = ACTIVE_VARIANCE) -> Array:
        """[R] number of units with a statistic above a threshold; NaN where a unit has no statistic.

        By default the statistic is a variance over data, `active_statistic`.
        """
        statistic = statistic or self.active_statistic
        if statistic not in self.unit_intervals:
            return np.full(len(self.verdict), np.nan)
        middle = self.unit_intervals[statistic][..., 1]
        counts = (middle > threshold).sum(axis=1).astype(float)
        return np.where(np.isfinite(middle).all(axis=1), counts, np.nan)


def read_layer(
    arrays: Arrays, name: str, n_units: int, alive: Array, n_epsilons: int, *, bottom_up: bool = True
) -> Layer:
    """The layer called ``name`` in a file of arrays; ``alive [R]``. Before it is measured its verdict says so."""
    stored = read_fields(Layer, arrays, len(alive), suffix=f"/{name}")
    if f"verdict/{name}" not in arrays:
        stored["verdict"] = np.where(alive[:, None], NOT_MEASURED, FAILED).repeat(n_epsilons, axis=1)
    if f"collapsed_fraction/{name}" not in arrays:
        stored["collapsed_fraction"] = None
    said = [FORMER.get(word, word) for word in stored["verdict"].ravel().tolist()]
    stored["verdict"] = np.array(said, dtype=str).reshape(stored["verdict"].shape)
    of_layer = {key.removesuffix(f"/{name}"): values for key, values in arrays.items() if key.endswith(f"/{name}")}
    plain = {key: values for key, values in of_layer.items() if "/" not in key and key not in _FIXED}
    stored["intervals"] = {key: values for key, values in plain.items() if values.ndim == 2 and values.shape[1] == 3}
    stored["unit_intervals"] = {
        key: values for key, values in plain.items() if values.ndim == 3 and values.shape[2] == 3
    }
    reasons = {
        key.removeprefix(f"{REASON}/"): values for key, values in of_layer.items() if key.startswith(f"{REASON}/")
    }
    stored["not_measured"] = {key: _texts(values) for key, values in reasons.items()}
    return Layer(name=name, n_units=n_units, mixed=not bottom_up, **stored)


_FIXED = (
    "verdict", "moved_share", "used_cap_nats", "n_paths", "information_on_n_nats", "collapsed_fraction",
    "collapse_reference", "event", "marks",
)  # fmt: skip


def _texts(values: Array) -> Texts:
    return tuple("" if text == FAILED else str(text) for text in values)


def flat_layer(layer: Layer, alive: Sequence[bool]) -> dict[str, Array]:
    """The arrays of a file, each under <quantity>/<layer>."""
    fixed = replace(layer, intervals={}, unit_intervals={}, not_measured={})
    found = {f"{key}/{layer.name}": values for key, values in {**layer.intervals, **layer.unit_intervals}.items()}
    reasons = {key: words(values, alive) for key, values in layer.not_measured.items()}
    found |= {f"{REASON}/{key}/{layer.name}": values for key, values in reasons.items()}
    return found | flat(fixed, alive, f"/{layer.name}")
