"""Bounds on log p(x) with the encoder as proposal, and the signal of the gradients that training followed."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from hvae.diagnosis.record import Array, Arrays, Setting, Texts, numbers, settings, shared, texts


@dataclass(frozen=True, eq=False)
class Likelihood:
    """L_K over C values of K, on B images. Nats.

    >>> from hvae.diagnosis.record import of_one
    >>> curve = of_one(Likelihood, n_samples=np.array([1, 10]), bound_nats=np.array([[-9, -8, -7], [-8, -7, -6]]),
    ...     bound_datum_nats=np.full(5, -7.0), elbo_datum_nats=np.full(5, -8.0), se_nats=np.ones(5), ess=np.ones(5),
    ...     pareto_k=np.ones(5), warning="", note="", refused="", image_index=None)
    >>> curve.elbo_nats, curve.best, curve.n_images
    (array([[-9, -8, -7]]), array([[-8, -7, -6]]), 5)
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
    """[R, B]"""
    ess: Array = numbers(0)
    """[R, B]"""
    pareto_k: Array = numbers(0)
    """[R, B]; NaN where the weights are constant"""
    warning: Texts = texts()
    """[R] a sentence, or empty when the number is to be trusted"""
    note: Texts = texts()
    refused: Texts = texts()
    """[R] why there is no number"""
    image_index: Array | None = shared()
    """[B] places of the images in the data set, where that is known"""

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
        return self.shape is not None and len(np.atleast_1d(self.shape)) == 2
