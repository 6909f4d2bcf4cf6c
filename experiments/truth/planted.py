"""Stacks of one pixel and two layers of one unit, whose every quantity is known for any distribution of the pixel.

The pixel has mean 0 and variance 1. All conditionals are linear-Gaussian with mean 0, so every term that is quadratic
along a path has its mean from one covariance of (x, z1, z2), whatever the pixel's distribution. Information needs that
distribution: each layer sees x through a Gaussian channel, ``√snr x + N(0, 1)``, whose information is a quadrature.
Numpy alone; no estimator is called. Nats.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy import stats

from hvae.numerics import FloatArray

VARIABLES = ("x", "z1", "z2")


@dataclass(frozen=True, eq=False)
class Pixel:
    """A distribution with mean 0 and variance 1.

    >>> round(PIXELS["Gaussian"].information(1.0), 4), round(PIXELS["5 % of images"].information(1e4), 4)  # an entropy
    (0.3466, 0.1985)
    """

    name: str
    share: float
    """of images that bear the code: 1 for a density"""
    draw: Callable[[np.random.Generator, int], FloatArray]
    nodes: Callable[[], tuple[FloatArray, FloatArray]]
    """values and their probabilities, for quadrature"""
    beyond: Callable[[float], float]
    """P(|x| > ·)"""

    def information(self, snr: float) -> float:
        """``I(x; √snr x + N(0, 1))``."""
        return _information(self.name, float(snr))

    def share_beyond(self, square: float) -> float:
        """``P(x² > square)``."""
        return 1.0 if square < 0 else float(self.beyond(math.sqrt(square)))


def _grid(density: Callable[[FloatArray], FloatArray], reach: float) -> tuple[FloatArray, FloatArray]:
    values = np.linspace(-reach, reach, 1501)
    weights = density(values)
    return values, weights / weights.sum()


def _rare(share: float) -> Pixel:
    low, high = -math.sqrt(share / (1 - share)), math.sqrt((1 - share) / share)
    return Pixel(
        f"{100 * share:g} % of images",
        share,
        lambda source, n: np.where(source.random(n) < share, high, low),
        lambda: (np.array([low, high]), np.array([1 - share, share])),
        lambda limit: (1 - share) * (-low > limit) + share * (high > limit),
    )


_HEAVY = math.sqrt(3 / 5)
"""1 / deviation of Student's t with 5 degrees of freedom"""
PIXELS: Mapping[str, Pixel] = {
    pixel.name: pixel
    for pixel in (
        Pixel(
            "Gaussian", 1.0, lambda source, n: source.normal(size=n), lambda: _grid(stats.norm.pdf, 9.0),
            lambda limit: 2 * stats.norm.sf(limit),
        ),
        Pixel(
            "heavy tails", 1.0, lambda source, n: _HEAVY * source.standard_t(5, size=n),
            lambda: _grid(lambda x: np.asarray(stats.t.pdf(x / _HEAVY, 5)), 60.0),
            lambda limit: 2 * stats.t.sf(limit / _HEAVY, 5),
        ),
        _rare(0.05), _rare(0.01), _rare(0.005),
    )
}  # fmt: skip


@cache
def _information(name: str, snr: float) -> float:
    values, weights = PIXELS[name].nodes()
    centres = math.sqrt(snr) * values
    y = np.linspace(centres.min() - 9, centres.max() + 9, 2001)
    density = np.zeros_like(y)
    for some in np.array_split(np.arange(len(centres)), max(1, len(centres) // 500)):
        density += stats.norm.pdf(y[:, None] - centres[some]) @ weights[some]
    entropy = -np.sum(density * np.log(np.maximum(density, 1e-300))) * (y[1] - y[0])
    return max(float(entropy - math.log(2 * math.pi * math.e) / 2), 0.0)


@dataclass(frozen=True)
class Link:
    """``N(Σ weight · parent, variance)``."""

    weights: Mapping[str, float]
    variance: float


@dataclass(frozen=True, eq=False)
class Planted:
    """A stack: links of q in the order of its visit, links of p from the top down.

    >>> stack = bottom_up("example", z1=0.5, z2=1.0, read=0.5)
    >>> round(stack.truth("z1", "rate", PIXELS["Gaussian"]), 4), round(stack.truth("z1", "I", PIXELS["Gaussian"]), 4)
    (-0.5, 0.5)
    """

    name: str
    inference: str
    q: Mapping[str, Link]
    p: Mapping[str, Link]

    @property
    def z1_first(self) -> bool:
        return next(iter(self.q)) == "z1"

    def truth(self, layer: str, quantity: str, pixel: Pixel) -> float:
        """The mean of ``quantity`` over images and draws; NaN where there is none."""
        moments, link, prior = _walk(self.q, pixel_variance=1.0), self.q[layer], self.p[layer]
        by_moments: Mapping[str, Callable[[], float]] = {
            "rate": lambda: _log(link, layer, moments) - _log(prior, layer, moments),
            "KL to N(0, I)": lambda: _log(link, layer, moments) - _log(Link({}, 1.0), layer, moments),
            "encoder knock-out": lambda: self._elbo(tuple(self.q)) - self._elbo(_before(self.q, layer)),
            "Burda's variance": lambda: _of(moments, link.weights),
            "twins": lambda: _of(self._expected(moments), link.weights),
            "residual": lambda: _of(moments, _difference(link.weights, prior.weights)) / prior.variance,
            "U": lambda: self._use(layer, moments),
            "L_8": self._log_px,
        }
        if quantity in by_moments:
            return by_moments[quantity]()
        return self._information(layer, quantity, pixel)

    def share_beyond(self, layer: str, epsilon: float, pixel: Pixel) -> float:
        """Share of images with ``E KL(q(z_l | ·) ‖ r) > epsilon`` given x, r near, and not moved by x.

        r = p(z_l | z_{>l}) where q visits the layers above first, else the Gaussian of the layer's own variance.
        """
        link, moments = self.q[layer], _walk(self.q, 1.0)
        r = Link({}, _of(moments, {layer: 1.0})) if self.z1_first else self.p[layer]
        shift = _difference(link.weights, r.weights)
        noise = _of(_walk(self.q, 0.0), shift)
        slope = _of(moments, shift) - noise
        constant = (link.variance / r.variance - 1 - math.log(link.variance / r.variance) + noise / r.variance) / 2
        if slope <= 1e-12:
            return float(constant > epsilon)
        return pixel.share_beyond(2 * (epsilon - constant) * r.variance / slope)

    def _information(self, layer: str, quantity: str, pixel: Pixel) -> float:
        snr, before = self._snr(layer), self._snr_before(layer)
        i = pixel.information(snr + before) - pixel.information(before)
        if quantity == "I":
            return i
        if quantity == "J":  # h(z_l) is that of I, the noise is that of q's own link
            noise = _of(_walk(self.q, 0.0), {layer: 1.0})
            return i + (0.5 * math.log(noise / self.q[layer].variance) if self.z1_first else 0.0)
        if quantity == "V":
            return i if self.z1_first else min(self.truth(layer, "rate", pixel), i if before == 0 else math.inf)
        if quantity == "child":  # what the decoder's child, drawn anew, says of x
            return pixel.information(self._snr_of_child(layer) + before) - pixel.information(before)
        return math.nan

    def _snr(self, layer: str) -> float:
        """Of the channel from x to z_l, given the layers above that q visits before."""
        if self.z1_first:
            noise = _of(_walk(self.q, 0.0), {layer: 1.0})
            return (_of(_walk(self.q, 1.0), {layer: 1.0}) - noise) / noise
        return self.q[layer].weights["x"] ** 2 / self.q[layer].variance

    def _snr_before(self, layer: str) -> float:
        return 0.0 if self.z1_first or layer == "z2" else self._snr("z2")

    def _snr_of_child(self, layer: str) -> float:
        child = self.p[{"z1": "x", "z2": "z1"}[layer]]
        weight = next(iter(child.weights.values()))
        if self.z1_first:
            noise = _of(_walk(self.q, 0.0), {layer: 1.0})
            signal = _of(_walk(self.q, 1.0), {layer: 1.0}) - noise
        else:
            signal, noise = self.q[layer].weights["x"] ** 2, self.q[layer].variance
        return weight**2 * signal / (weight**2 * noise + child.variance)

    def _use(self, layer: str, moments: FloatArray) -> float:
        children = [link for link in self.p.values() if layer in link.weights]
        apart = 2 * _of(moments, {layer: 1.0})
        return sum(link.weights[layer] ** 2 * apart / (2 * link.variance) for link in children)

    def _elbo(self, kept: Sequence[str]) -> float:
        """Of q for the latents ``kept``, and of p for the rest."""
        moments = _walk({**{name: self.q[name] for name in kept}, **_without(self.p, (*kept, "x"))}, 1.0)
        costs = [_log(self.q[name], name, moments) - _log(self.p[name], name, moments) for name in kept]
        return _log(self.p["x"], "x", moments) - sum(costs)

    def _log_px(self) -> float:
        """E log p(x)."""
        variance = _of(_walk(self.p, 0.0), {"x": 1.0})
        return -(math.log(2 * math.pi * variance) + 1 / variance) / 2

    def _expected(self, moments: FloatArray) -> FloatArray:
        """Covariance over x of two independent paths."""
        between: FloatArray = moments - _walk(self.q, 0.0)
        return between


def _before(q: Mapping[str, Link], layer: str) -> tuple[str, ...]:
    names = tuple(q)
    return names[: names.index(layer)]


def _without(links: Mapping[str, Link], names: Sequence[str]) -> dict[str, Link]:
    return {name: link for name, link in links.items() if name not in names}


def _walk(links: Mapping[str, Link], pixel_variance: float) -> FloatArray:
    """Covariance of (x, z1, z2) along a walk of the links, from a pixel of this variance or drawing it."""
    moments = np.zeros((3, 3))
    moments[0, 0] = pixel_variance
    for name, link in links.items():
        at, weights = VARIABLES.index(name), _vector(link.weights)
        row = weights @ moments
        moments[at], moments[:, at] = row, row
        moments[at, at] = weights @ row + link.variance
    return moments


def _vector(weights: Mapping[str, float]) -> FloatArray:
    return np.array([weights.get(name, 0.0) for name in VARIABLES])


def _of(moments: FloatArray, weights: Mapping[str, float]) -> float:
    """Variance of the weighted sum."""
    vector = _vector(weights)
    return float(vector @ moments @ vector)


def _difference(a: Mapping[str, float], b: Mapping[str, float]) -> dict[str, float]:
    return {name: a.get(name, 0.0) - b.get(name, 0.0) for name in VARIABLES}


def _log(link: Link, name: str, moments: FloatArray) -> float:
    """E log N(variable; link)."""
    error = _of(moments, _difference({name: 1.0}, link.weights))
    return -(math.log(2 * math.pi * link.variance) + error / link.variance) / 2


def _read(read: float) -> Link:
    """x from z1, of which it explains the share ``read`` where z1 has variance 1."""
    return Link({"z1": math.sqrt(read)}, 1 - read)


def _coded(parent: str, nats: float) -> Link:
    """A channel of variance 1 that says so much of a Gaussian parent of variance 1."""
    return Link({parent: math.sqrt(-math.expm1(-2 * nats))}, math.exp(-2 * nats))


def bottom_up(name: str, *, z1: float, z2: float, read: float) -> Planted:
    """z1 says ``z1`` nats of a Gaussian x, z2 ``z2`` nats of z1; p(z1 | z2) is q's reverse for a Gaussian x."""
    up = _coded("z1", z2)
    back = Link({"z2": up.weights["z1"]}, up.variance)
    return Planted(
        name, "bottom-up", {"z1": _coded("x", z1), "z2": up}, {"z2": Link({}, 1.0), "z1": back, "x": _read(read)}
    )


def mean_field(name: str, *, z1: float, z2: float, read: float) -> Planted:
    """Both say so much of x, each by itself."""
    q = {"z1": _coded("x", z1), "z2": _coded("x", z2)}
    return Planted(name, "mean-field", q, {"z2": Link({}, 1.0), "z1": Link({"z2": 0.3}, 0.91), "x": _read(read)})


def top_down(name: str, *, z1: float, z2: float, read: float) -> Planted:
    """z2 says so much of a Gaussian x; q(z1 | z2, x) leaves p(z1 | z2) at an expected divergence of ``z1`` nats."""
    down = Link({"z2": 0.3}, 0.91)
    own = Link({"z2": 0.3, "x": math.sqrt(-0.91 * math.expm1(-2 * z1))}, 0.91 * math.exp(-2 * z1))
    return Planted(
        name, "top-down", {"z2": _coded("x", z2), "z1": own}, {"z2": Link({}, 1.0), "z1": down, "x": _read(read)}
    )


STACKS: tuple[Planted, ...] = (
    bottom_up("above", z1=0.12, z2=1.0, read=0.107),
    bottom_up("below", z1=0.085, z2=1.0, read=0.8),
    bottom_up("clear", z1=1.0, z2=0.5, read=0.5),
    bottom_up("more than noise", z1=0.15, z2=1.0, read=0.8),
    mean_field("above", z1=0.12, z2=0.15, read=0.107),
    mean_field("below", z1=0.085, z2=0.07, read=0.8),
    mean_field("clear", z1=1.0, z2=0.5, read=0.5),
    top_down("above", z1=0.12, z2=0.15, read=0.107),
    top_down("below", z1=0.085, z2=0.07, read=0.8),
    top_down("clear", z1=1.0, z2=0.5, read=0.5),
    bottom_up("unread", z1=0.15, z2=1.0, read=0.08),
)
"""just above the threshold of 0.1 nats, just below, and far above; a z2 of much noise whose I is just above it;
and a z1 whose I is just above it and whose U is just below it"""
