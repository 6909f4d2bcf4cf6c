"""Bounds on log p(x) with the encoder as proposal, and the signal of the gradients that training followed."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from hvae.diagnosis.pixels import Pixels
from hvae.diagnosis.record import Array, Arrays, Setting, Texts, numbers, settings, shared, texts
from hvae.vocabulary import BELOW_FLOOR, BELOW_FLOOR_NATS, FAILED


def bits_per_dim(nats: Array, n_columns: int) -> Array:
    """``-nats / (D log 2)``: a bound on log p(x) in nats as bits for each of the D numbers of x, lower being better.

    >>> bits_per_dim(np.array([-768 * np.log(256)]), n_columns=768).round(4).tolist()  # 8 bits, all levels alike
    [8.0]
    """
    bits: Array = -nats / (n_columns * np.log(2))
    return bits


@dataclass(frozen=True, eq=False)
class Likelihood:
    """log p(x) of B images from below, and the curve of L_K over C values of K. Nats.

    The number of an image is made by the cheapest method that gets to `until_se` (`hvae.likelihood.cheapest_bound`).
    Where only the curve was measured, as in runs of before, it is NaN.

    >>> from hvae.diagnosis.record import read
    >>> bounds = np.array([[[-9, -8, -7], [-8, -7, -6]]])
    >>> arrays = {"bound_nats": bounds, "n_samples": np.array([1, 10]), "pareto_k": np.ones((1, 5))}
    >>> curve = read(Likelihood, arrays, n_replicas=1)
    >>> curve.elbo_nats, curve.best, curve.n_images, curve.shown_as
    (array([[-9, -8, -7]]), array([[-8, -7, -6]]), 5, 'L_10')
    """

    n_samples: Array = shared()
    """[C]"""
    bound_nats: Array = numbers(1, 3)
    """[R, C, 3] mean over the images"""
    bound_datum_nats: Array = numbers(0)
    """[R, B] L_K of the largest K"""
    elbo_datum_nats: Array = numbers(0)
    """[R, B] L_1"""
    se_nats: Array = numbers(0)
    """[R, B] of that L_K, as are ESS and k-hat"""
    ess: Array = numbers(0)
    """[R, B]"""
    pareto_k: Array = numbers(0)
    """[R, B]; NaN where the weights are constant"""
    log_px_nats: Array = numbers(3)
    """[R, 3] mean over the images; a lower bound in expectation"""
    log_px_datum_nats: Array = numbers(0)
    """[R, B]"""
    log_px_se_nats: Array = numbers(0)
    """[R, B]"""
    log_px_ess: Array = numbers(0)
    """[R, B]"""
    log_px_pareto_k: Array = numbers(0)
    """[R, B]"""
    log_px_method: Array = numbers(0)
    """[R, B] importance, refined or annealed"""
    log_px_evaluations: Array = numbers(0)
    """[R, B] evaluations of the weight that an image took, a gradient being three"""
    log_px_reached: Array = numbers(0)
    """[R, B] whether the standard error is as wanted, and nothing speaks against it"""
    doubt_nats: Array = numbers()
    """[R] how far the mean may still lie below log p(x); it is warned of above 0.1"""
    until_se: float | None = shared()
    """the standard error that was wanted, nats an image"""
    warning: Texts = texts()
    """[R] a sentence, or empty when the number is to be trusted"""
    note: Texts = texts()
    refused: Texts = texts()
    """[R] why there is no number"""
    floor_nats: Array = numbers(3)
    """[R, 3] mean over the images of what independent columns say (`hvae.likelihood.floor`)"""
    floor_datum_nats: Array = numbers(0)
    """[R, B]"""
    floor_fitted_to: str | None = shared()
    """what the columns were fitted to; of the measured data each is left out of its own floor"""
    floor_refused: Texts = texts()
    """[R] why there is no floor"""
    n_columns: int | None = shared()
    """D of x"""
    n_levels: int | None = shared()
    """of grey values, where x has levels and no density"""
    image_index: Array | None = shared()
    """[B] places of the images in the data set, where that is known"""

    direction = "lower"
    """of every number here"""

    @property
    def elbo_nats(self) -> Array:
        """[R, 3] L_1."""
        first: Array = self.bound_nats[:, 0]
        return first

    @property
    def best(self) -> Array:
        """[R, 3] the bound of the largest K."""
        best: Array = self.bound_nats[:, -1]
        return best

    @property
    def n_images(self) -> int:
        """B."""
        return int(self.pareto_k.shape[1])

    @property
    def has_log_px(self) -> bool:
        """Whether more than the curve was measured."""
        return self.until_se is not None

    @property
    def shown(self) -> Array:
        """[R, 3] the number to show: log p(x) from below, or L_K where only the curve was measured."""
        return self.log_px_nats if self.has_log_px else self.best

    @property
    def shown_datum_nats(self) -> Array:
        """[R, B] of that number."""
        return self.log_px_datum_nats if self.has_log_px else self.bound_datum_nats

    @property
    def shown_as(self) -> str:
        """What that number is called."""
        return "log p(x)" if self.has_log_px else f"L_{int(self.n_samples[-1])}"

    @property
    def below_floor(self) -> Array:
        """[R] whether most images lie below the floor by more than `BELOW_FLOOR_NATS` a column.

        False where no floor is known; an image without a number does not count as below.
        """
        bound, floor = self.shown_datum_nats, self.floor_datum_nats
        if self.n_columns is None or bound.shape != floor.shape or not floor.size:
            return np.zeros(len(self.floor_nats), dtype=bool)
        with np.errstate(invalid="ignore"):
            below = bound < floor - BELOW_FLOOR_NATS * self.n_columns
        found: Array = below.mean(axis=1) > 0.5
        return found

    @property
    def marks(self) -> Texts:
        """[R] what stands beside all verdicts of a replica: `BELOW_FLOOR`, or nothing."""
        return tuple(BELOW_FLOOR if below else "" for below in self.below_floor)

    @property
    def bits_per_dim(self) -> Array | None:
        """[R, 3] (low, middle, high) of ``-log p(x) / (D log 2)`` for grey values in levels, from above; else None.

        A density of grey values is no probability of them: a Gaussian that narrows on the grid says as few bits as it
        likes, so of Gaussians there are none.
        """
        return self.in_bits(self.shown)

    @property
    def elbo_bits_per_dim(self) -> Array | None:
        """[R, 3] the same of the ELBO, which most papers on images print."""
        return self.in_bits(self.elbo_nats)

    @property
    def floor_bits_per_dim(self) -> Array | None:
        """[R, 3] the same of the floor; None where there is none."""
        return self.in_bits(self.floor_nats) if np.isfinite(self.floor_nats).any() else None

    def in_bits(self, bound: Array) -> Array | None:
        """A bound ``[R, 3]`` as bits per dimension, low end first; None where x has no levels."""
        if self.n_levels is None or self.n_columns is None:
            return None
        bits: Array = bits_per_dim(bound, self.n_columns)[:, ::-1]
        return bits

    @property
    def methods(self) -> Mapping[str, int]:
        """Method -> images and replicas that took it, the most frequent first."""
        words, counts = np.unique(self.log_px_method[self.log_px_method != FAILED], return_counts=True)
        return {str(words[place]): int(counts[place]) for place in np.argsort(-counts)} if self.has_log_px else {}


@dataclass(frozen=True, eq=False)
class Signal:
    """Signal-to-noise ratio of the gradients that training followed, over C numbers of samples.

    >>> snr = {"z1": np.ones((2, 1, 3))}
    >>> Signal({"n_images": 100, "n_samples": (5,)}, snr, snr, ("", "")).n_samples
    array([5])
    """

    settings: Mapping[str, Setting] = settings("n_samples")
    snr: Arrays = numbers(0, 3, key="gradient_snr", layers=True)
    """latent, "encoder" or "decoder" -> [R, C, 3]"""
    variance: Arrays = numbers(0, 3, key="gradient_variance", layers=True)
    refused: Texts = texts()

    @property
    def n_samples(self) -> Array:
        """[C]"""
        return np.array(self.settings["n_samples"])

    @property
    def n_images(self) -> int:
        """Images behind the gradients."""
        found = self.settings["n_images"]
        assert isinstance(found, int)
        return found


@dataclass(frozen=True, eq=False)
class Pictures:
    """Means of x, as they are drawn: n images, S draws each.

    >>> Pictures((28, 28), x=np.zeros((10, 784)), reconstruction=None, samples=None, resampled={}).is_image
    True
    """

    shape: Array = shared("image_shape")
    x: Array | None = shared()
    """[n, D]"""
    reconstruction: Array | None = shared()
    """[n, D]"""
    samples: Array | None = shared()
    """ancestral samples [·, D]"""
    resampled: Arrays = shared("resample", layers=True)
    """layer l -> [n, S, D]: z_l and all above kept from q(z|x), the layers below drawn by the decoder"""

    @property
    def is_image(self) -> bool:
        """Whether x has rows and columns."""
        return self.shape is not None and Pixels.of(np.atleast_1d(self.shape)) is not None
