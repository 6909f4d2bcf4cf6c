"""What was measured of log p(x) beyond the encoder's own bound, as records of arrays.

The keys in a file are the fields' names, or stand in the field. What a replica lacks is NaN, and `refused` says why in
a sentence. A number that should not be believed has its `warning`. Shapes lead with R, the replicas; an interval is a
last axis of three, (low, middle, high). Nats.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from hvae.diagnosis.activity import cause
from hvae.diagnosis.record import (
    Array,
    Arrays,
    Setting,
    Texts,
    flags,
    numbers,
    parts,
    settings,
    shared,
    texts,
)
from hvae.vocabulary import good_k


@dataclass(frozen=True)
class Images:
    """Which data were measured: the first `n` in the order that `seed` draws. Only equal ones compare.

    >>> Images(100, seed=0) == Images(50, seed=0)
    False
    """

    n: int
    seed: int

    @staticmethod
    def of(settings: Mapping[str, Setting]) -> "Images":
        """Those that a record's settings name."""
        n, seed = settings["n_images"], settings["seed"]
        assert isinstance(n, int) and isinstance(seed, int)
        return Images(n, seed)


@dataclass(frozen=True, eq=False)
class Annealed:
    """Annealed importance sampling on test images, and on simulated data between bounds from below and above.

    >>> from hvae.diagnosis.record import read
    >>> counts = {"n_temperatures": 400, "n_chains": 16, "n_leapfrog": 4, "n_images": 12, "seed": 0}
    >>> read(Annealed, {name: np.array(count) for name, count in counts.items()}, n_replicas=2).method
    '400 temperatures, 16 chains, 4 leapfrog steps'
    """

    settings: Mapping[str, Setting] = settings()
    path: Texts = texts()
    """where the chains start: at draws of "encoder" """
    device: Texts = texts()
    seconds: Array = numbers()
    n_samples: Array = shared(missing=np.array([1]))
    """[C]"""
    log_px_nats: Array = numbers(3, key="annealed_nats")
    """[R, 3] annealed lower bound on the test images"""
    log_px_datum_nats: Array = numbers(0, key="annealed_datum_nats")
    """[R, B]"""
    se_nats: Array = numbers(0, key="annealed_se_nats")
    ess: Array = numbers(0, key="annealed_ess")
    pareto_k: Array = numbers(0, key="annealed_pareto_k")
    """[R, B] of the annealed weights"""
    acceptance: Array = numbers()
    """[R]"""
    warning: Texts = texts()
    note: Texts = texts()
    elbo_nats: Array = numbers(3)
    """[R, 3] on the same images"""
    curve_nats: Array = numbers(1, 3)
    """[R, C, 3] L_K on the same images"""
    curve_ess: Array = numbers(0)
    curve_pareto_k: Array = numbers(0)
    """[R, B] of the encoder's importance weights"""
    curve_warning: Texts = texts()
    simulated_elbo_nats: Array = numbers(3)
    simulated_curve_nats: Array = numbers(1, 3)
    """[R, C, 3]"""
    simulated_lower_nats: Array = numbers(3)
    simulated_upper_nats: Array = numbers(3)
    sandwich_nats: Array = numbers(3)
    """[R, 3] upper minus lower, on data that the decoder simulated"""
    simulated_lower_datum_nats: Array = numbers(0)
    simulated_upper_datum_nats: Array = numbers(0)
    simulated_warning: Texts = texts()
    refused: Texts = texts()

    @property
    def images(self) -> Images:
        """Which data."""
        return Images.of(self.settings)

    @property
    def method(self) -> str:
        """ "400 temperatures, 16 chains, 4 leapfrog steps" """
        counts = (self.settings[key] for key in ("n_temperatures", "n_chains", "n_leapfrog"))
        return "{} temperatures, {} chains, {} leapfrog steps".format(*counts)

    @property
    def n_chains(self) -> int:
        """Chains per image."""
        found = self.settings["n_chains"]
        assert isinstance(found, int)
        return found

    @property
    def best(self) -> Array:
        """[R, 3] L_K at the largest K."""
        best: Array = self.curve_nats[:, -1]
        return best


@dataclass(frozen=True, eq=False)
class Exact:
    """Exact answers by other arithmetic. `error` is the change when a quadrature's nodes are doubled.

    >>> from hvae.diagnosis.record import of_one
    >>> interval = np.array([1.0, 2.0, 3.0])
    >>> gaps = {"z1": interval}
    >>> of_one(Exact, settings={}, reference="LinearGaussian", log_px_nats=interval, log_px_datum_nats=np.ones(5),
    ...     elbo_nats=interval, total_gap_nats=interval, layer_gap_nats=gaps, rate_exact_nats=gaps, error=0.0,
    ...     gaps_refused="", refused="").layer_gap_nats["z1"].shape
    (1, 3)
    """

    settings: Mapping[str, Setting] = settings()
    reference: str = shared(missing="")
    log_px_nats: Array = numbers(3)
    log_px_datum_nats: Array = numbers(0)
    elbo_nats: Array = numbers(3)
    total_gap_nats: Array = numbers(3)
    layer_gap_nats: Arrays = numbers(3, layers=True)
    """layer -> [R, 3]"""
    rate_exact_nats: Arrays = numbers(3, layers=True)
    error: Array = numbers()
    """[R]"""
    gaps_refused: Texts = texts()
    """why log p(x) is known but not the gaps of this encoder"""
    refused: Texts = texts()

    @property
    def images(self) -> Images:
        """Which data."""
        return Images.of(self.settings)


@dataclass(frozen=True, eq=False)
class LayerGap:
    """The gap of one layer, and the cause of its collapse: the model or the encoder.

    >>> from hvae.diagnosis.record import read
    >>> shares = {"posterior_share/z1": np.full((1, 2, 3), 0.5), "encoder_share/z1": np.zeros((1, 2, 3))}
    >>> read(LayerGap, shares, n_replicas=1, suffix="/z1").cause()
    ('collapse of the encoder',)
    """

    gap_nats: Array = numbers(3, key="layer_gap_nats")
    """[R, 3] G_l"""
    se_nats: Array = numbers(key="layer_gap_se_nats")
    """[R]"""
    bias_nats: Array = numbers(key="layer_gap_bias_nats")
    """[R]"""
    trusted: Array = flags()
    """[R] bool"""
    reason: Texts = texts()
    """why it is not trusted"""
    proposal: Texts = texts()
    remaining_nats: Array = numbers(3)
    """[R, 3] what remains of the gap after this layer was visited: a lower bound"""
    ess: Array = numbers()
    pareto_k: Array = numbers()
    halving_nats: Array = numbers()
    """[R] how far half of the draws move the estimates"""
    freed_nats: Array = numbers(3)
    """[R, 3] the gain from refining this layer alone"""
    posterior_active: Array = numbers()
    """[R] units that surely vary over images in the exact posterior"""
    encoder_active: Array = numbers()
    """[R] the same for q"""
    posterior_share: Array = numbers(0, 3)
    """[R, D, 3]"""
    encoder_share: Array = numbers(0, 3)

    def cause(self) -> Texts:
        """[R] words of `hvae.diagnosis.activity.CAUSES`; empty where it was not measured."""
        return tuple(map(cause, self.posterior_share, self.encoder_share))


@dataclass(frozen=True, eq=False)
class Gap:
    """log p(x) - ELBO, split by layer and by cause.

    >>> from hvae.diagnosis.record import read
    >>> found = read(Gap, {"n_images": np.array(12), "seed": np.array(0)}, n_replicas=2, layers=["z1"])
    >>> found.images, found.layers["z1"].gap_nats.shape
    (Images(n=12, seed=0), (2, 3))
    """

    settings: Mapping[str, Setting] = settings()
    device: Texts = texts()
    seconds: Array = numbers()
    log_px_nats: Array = numbers(3)
    log_px_datum_nats: Array = numbers(0)
    log_px_direction: Texts = texts()
    """[R] exact or lower"""
    high_pareto_k_share: Array = numbers()
    """[R] share of the data with weights that are too heavy-tailed for log p(x)"""
    warning: Texts = texts()
    elbo_nats: Array = numbers(3)
    total_nats: Array = numbers(3, key="total_gap_nats")
    log_px_trusted: Array = flags("trusted/log_px")
    """[R] bool"""
    log_px_reason: Texts = texts("reason/log_px")
    """why it is not trusted"""
    log_px_proposal: Texts = texts("proposal/log_px")
    layers: Mapping[str, LayerGap] = parts(LayerGap)
    approximation_nats: Array = numbers(3)
    amortisation_nats: Array = numbers(3)
    remainder_nats: Array = numbers(3)
    """[R, 3] amortisation minus what the layers free one at a time"""
    suboptimality_refused: Texts = texts()
    posterior_warning: Texts = texts()
    """on the annealed chains that draw from the exact posterior"""
    posterior_refused: Texts = texts()
    refused: Texts = texts()
    order: str = ""
    """the inference order: layer gaps of two orders are different splits"""

    @property
    def images(self) -> Images:
        """Which data."""
        return Images.of(self.settings)


def high_share(pareto_k: Array, n_samples: int) -> Array:
    """[R] share of the data with a k-hat above `good_k`; NaN where none is defined."""
    shares = []
    for row in pareto_k:
        known = row[~np.isnan(row)]
        shares.append(float((known > good_k(n_samples)).mean()) if known.size else np.nan)
    return np.array(shares)
