"""What was measured of log p(x) beyond the encoder's own bound, as records of arrays.

`hvae evaluate --likelihood annealed,exact,gap` writes one file of arrays for each word. Their keys are here and
nowhere else. What a replica lacks is NaN, and `refused` says why in a sentence. A number that should not be believed
has its `warning`. Shapes lead with R, the replicas; an interval is a last axis of three.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hvae.analysis.activity import cause
from hvae.vocabulary import FAILED, good_k

Array = NDArray[Any]
Arrays = Mapping[str, Array]
Texts = tuple[str, ...]
"""[R] a sentence, or empty"""


@dataclass(frozen=True)
class Images:
    """Which data were measured: the first `n` in the order that `seed` draws. Only equal ones compare."""

    n: int
    seed: int


@dataclass(frozen=True)
class Annealed:
    """Annealed importance sampling on test images, and on simulated data between bounds from below and above."""

    images: Images
    method: str
    """ "400 temperatures, 16 chains, 4 leapfrog steps" """
    n_chains: int
    log_px_nats: Array
    """[R, 3] annealed lower bound on the test images"""
    elbo_nats: Array
    """[R, 3] on the same images"""
    n_samples: Array
    """[C]"""
    curve_nats: Array
    """[R, C, 3] L_K on the same images"""
    pareto_k: Array
    """[R, B] of the annealed weights"""
    curve_pareto_k: Array
    """[R, B] of the encoder's importance weights"""
    acceptance: Array
    """[R]"""
    simulated_elbo_nats: Array
    simulated_curve_nats: Array
    """[R, C, 3]"""
    simulated_lower_nats: Array
    simulated_upper_nats: Array
    sandwich_nats: Array
    """[R, 3] upper minus lower, on data that the decoder simulated"""
    warning: Texts
    curve_warning: Texts
    simulated_warning: Texts
    note: Texts
    refused: Texts

    @property
    def best(self) -> Array:
        """[R, 3] L_K at the largest K."""
        best: Array = self.curve_nats[:, -1]
        return best


@dataclass(frozen=True)
class Exact:
    """Exact answers by other arithmetic. `error` is the change when a quadrature's nodes are doubled."""

    images: Images
    reference: str
    log_px_nats: Array
    elbo_nats: Array
    total_gap_nats: Array
    layer_gap_nats: Arrays
    """layer -> [R, 3]"""
    error: Array
    """[R]"""
    refused: Texts
    gaps_refused: Texts
    """why log p(x) is known but not the gaps of this encoder"""


@dataclass(frozen=True)
class LayerGap:
    """The gap of one layer, and the cause of its collapse: the model or the encoder."""

    gap_nats: Array
    """[R, 3] G_l"""
    se_nats: Array
    """[R]"""
    bias_nats: Array
    """[R]"""
    trusted: Array
    """[R] bool"""
    reason: Texts
    """why it is not trusted"""
    proposal: Texts
    remaining_nats: Array
    """[R, 3] what remains of the gap after this layer was visited: a lower bound"""
    freed_nats: Array
    """[R, 3] the gain from refining this layer alone"""
    posterior_active: Array
    """[R] units that surely vary over images in the exact posterior"""
    encoder_active: Array
    """[R] the same for q"""
    posterior_share: Array
    """[R, D, 3]"""
    encoder_share: Array

    def cause(self) -> Texts:
        """[R] words of `hvae.analysis.activity.CAUSES`; empty where it was not measured."""
        return tuple(map(cause, self.posterior_share, self.encoder_share))


@dataclass(frozen=True)
class Gap:
    """log p(x) - ELBO, split by layer and by cause."""

    images: Images
    order: str
    """the inference order: layer gaps of two orders are different splits"""
    log_px_nats: Array
    log_px_direction: Texts
    """[R] exact or lower"""
    log_px_trusted: Array
    """[R] bool"""
    log_px_reason: Texts
    """why it is not trusted"""
    elbo_nats: Array
    total_nats: Array
    layers: Mapping[str, LayerGap]
    high_pareto_k_share: Array
    """[R] share of the data with weights that are too heavy-tailed for log p(x)"""
    approximation_nats: Array
    amortisation_nats: Array
    remainder_nats: Array
    """[R, 3] amortisation minus what the layers free one at a time"""
    warning: Texts
    suboptimality_refused: Texts
    posterior_warning: Texts
    """on the annealed chains that draw from the exact posterior"""
    posterior_refused: Texts
    refused: Texts


def read_annealed(arrays: Arrays, n_replicas: int) -> Annealed | None:
    """The record of annealed.npz; None where there is no such file."""
    if not arrays:
        return None
    read = _Reader(arrays, n_replicas)
    n_samples = arrays.get("n_samples", np.array([1]))
    counts = [int(arrays[key]) for key in ("n_temperatures", "n_chains", "n_leapfrog")]
    return Annealed(
        images=read.images,
        method="{} temperatures, {} chains, {} leapfrog steps".format(*counts),
        n_chains=counts[1],
        log_px_nats=read.interval("annealed_nats"),
        elbo_nats=read.interval("elbo_nats"),
        n_samples=n_samples,
        curve_nats=read.numbers("curve_nats", len(n_samples), 3),
        pareto_k=read.numbers("annealed_pareto_k", 0),
        curve_pareto_k=read.numbers("curve_pareto_k", 0),
        acceptance=read.numbers("acceptance"),
        simulated_elbo_nats=read.interval("simulated_elbo_nats"),
        simulated_curve_nats=read.numbers("simulated_curve_nats", len(n_samples), 3),
        simulated_lower_nats=read.interval("simulated_lower_nats"),
        simulated_upper_nats=read.interval("simulated_upper_nats"),
        sandwich_nats=read.interval("sandwich_nats"),
        warning=read.texts("warning"),
        curve_warning=read.texts("curve_warning"),
        simulated_warning=read.texts("simulated_warning"),
        note=read.texts("note"),
        refused=read.texts("refused"),
    )


def read_exact(arrays: Arrays, n_replicas: int, names: Sequence[str]) -> Exact | None:
    """The record of exact.npz; None where there is no such file."""
    if not arrays:
        return None
    read = _Reader(arrays, n_replicas)
    return Exact(
        images=read.images,
        reference=str(arrays.get("reference", "")),
        log_px_nats=read.interval("log_px_nats"),
        elbo_nats=read.interval("elbo_nats"),
        total_gap_nats=read.interval("total_gap_nats"),
        layer_gap_nats={name: read.interval(f"layer_gap_nats/{name}") for name in names},
        error=read.numbers("error"),
        refused=read.texts("refused"),
        gaps_refused=read.texts("gaps_refused"),
    )


def read_gap(arrays: Arrays, n_replicas: int, names: Sequence[str], order: str) -> Gap | None:
    """The record of gap.npz; None where there is no such file."""
    if not arrays:
        return None
    read = _Reader(arrays, n_replicas)
    return Gap(
        images=read.images,
        order=order,
        log_px_nats=read.interval("log_px_nats"),
        log_px_direction=read.texts("log_px_direction"),
        log_px_trusted=read.numbers("trusted/log_px") == 1,
        log_px_reason=read.texts("reason/log_px"),
        elbo_nats=read.interval("elbo_nats"),
        total_nats=read.interval("total_gap_nats"),
        layers={name: _layer(read, name) for name in names},
        high_pareto_k_share=read.numbers("high_pareto_k_share"),
        approximation_nats=read.interval("approximation_nats"),
        amortisation_nats=read.interval("amortisation_nats"),
        remainder_nats=read.interval("remainder_nats"),
        warning=read.texts("warning"),
        suboptimality_refused=read.texts("suboptimality_refused"),
        posterior_warning=read.texts("posterior_warning"),
        posterior_refused=read.texts("posterior_refused"),
        refused=read.texts("refused"),
    )


def _layer(read: "_Reader", name: str) -> LayerGap:
    return LayerGap(
        gap_nats=read.interval(f"layer_gap_nats/{name}"),
        se_nats=read.numbers(f"layer_gap_se_nats/{name}"),
        bias_nats=read.numbers(f"layer_gap_bias_nats/{name}"),
        trusted=read.numbers(f"trusted/{name}") == 1,
        reason=read.texts(f"reason/{name}"),
        proposal=read.texts(f"proposal/{name}"),
        remaining_nats=read.interval(f"remaining_nats/{name}"),
        freed_nats=read.interval(f"freed_nats/{name}"),
        posterior_active=read.numbers(f"posterior_active/{name}"),
        encoder_active=read.numbers(f"encoder_active/{name}"),
        posterior_share=read.numbers(f"posterior_share/{name}", 0, 3),
        encoder_share=read.numbers(f"encoder_share/{name}", 0, 3),
    )


@dataclass(frozen=True)
class _Reader:
    """Arrays of one file. What is missing has the right shape; a failed replica has neither number nor sentence."""

    arrays: Arrays
    n_replicas: int

    @property
    def images(self) -> Images:
        return Images(int(self.arrays["n_images"]), int(self.arrays["seed"]))

    def numbers(self, key: str, *shape: int) -> Array:
        return self.arrays.get(key, np.full((self.n_replicas, *shape), np.nan))

    def interval(self, key: str) -> Array:
        return self.numbers(key, 3)

    def texts(self, key: str) -> Texts:
        found = self.arrays.get(key, np.full(self.n_replicas, ""))
        return tuple("" if text == FAILED else str(text) for text in found)


def high_share(pareto_k: Array, n_samples: int) -> Array:
    """[R] share of the data with a k-hat above `good_k`; NaN where none is defined."""
    shares = []
    for row in pareto_k:
        known = row[~np.isnan(row)]
        shares.append(float((known > good_k(n_samples)).mean()) if known.size else np.nan)
    return np.array(shares)
