"""Arithmetic that holds at the extremes: means of weights given by their logarithms, divergences, intervals.

Weights `w = exp(log_weight)` never leave the logarithm, since `exp` underflows at -104 in float32 and
-745 in float64; -inf is a legal zero weight, nan and +inf are passed on and never made a number.
Divergences take log-variances and logits, because a variance or a probability that has rounded to 0 or
1 has lost the answer. All divergences and logarithms are natural: nats.
"""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import special
from torch import Tensor
from torch.nn import functional

from hvae.certain import student_hall

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]


def log_mean_exp(x: Tensor, dim: int) -> Tensor:
    """The logarithm of a mean of exponentials, `log 1/n sum_i exp x_i`, over one axis.

    >>> round(log_mean_exp(torch.tensor([-1000.0, -1000.0]), 0).item(), 3)
    -1000.0
    """
    return torch.logsumexp(x, dim) - math.log(x.shape[dim])


def ess(log_weight: Tensor, dim: int) -> Tensor:
    """Effective sample size `(sum_k w_k)^2 / sum_k w_k^2`: K for equal weights, 1 for a single one, 0 for none.

    Kong 1992; Owen 2013, "Monte Carlo theory, methods and examples", equation 9.13.

    >>> [round(ess(torch.tensor(log_weight), 0).item(), 3) for log_weight in ([-999.0, -999.0], [0.0, -999.0])]
    [2.0, 1.0]
    """
    return _ess(torch.logsumexp(log_weight, dim), torch.logsumexp(2 * log_weight, dim))


def _ess(log_sum: Tensor, log_sum_of_squares: Tensor) -> Tensor:
    size = (2 * log_sum - log_sum_of_squares).exp()
    return torch.where(log_sum == -math.inf, torch.zeros_like(size), size)


class StreamingLogMeanExp:
    """`log_mean_exp` and `ess` over the leading axis of chunks `[k, B]` that come one after another.

    Holds two numbers a datum, in float64, however many chunks it has seen.

    >>> stream = StreamingLogMeanExp()
    >>> for chunk in torch.tensor([[[0.0], [1.0]], [[2.0], [3.0]]]):
    ...     stream.update(chunk)
    >>> stream.n_samples, round(stream.value.item(), 4)  # log 1/4 (1 + e + e² + e³)
    (4, 2.0539)
    """

    def __init__(self) -> None:
        self.n_samples = 0
        self._log_sum = torch.tensor(-math.inf, dtype=torch.float64)
        self._log_sum_of_squares = torch.tensor(-math.inf, dtype=torch.float64)

    def update(self, log_weight: Tensor) -> None:
        """Take in `k` more log-weights a datum."""
        log_weight = log_weight.detach().double()
        self.n_samples += log_weight.shape[0]
        self._log_sum = torch.logaddexp(self._log_sum.to(log_weight.device), log_weight.logsumexp(0))
        self._log_sum_of_squares = torch.logaddexp(
            self._log_sum_of_squares.to(log_weight.device), (2 * log_weight).logsumexp(0)
        )

    @property
    def value(self) -> Tensor:
        """`log 1/K sum_k w_k` over the K log-weights seen so far."""
        if self.n_samples == 0:
            raise ValueError("A mean of no log-weights was asked for; update() with at least one first.")
        return self._log_sum - math.log(self.n_samples)

    @property
    def ess(self) -> Tensor:
        """Effective sample size of the log-weights seen so far."""
        return _ess(self._log_sum, self._log_sum_of_squares)


def logistic_bin(below: Tensor, above: Tensor, width: Tensor, lowest: Tensor, highest: Tensor) -> Tensor:
    """log P(below < L <= above) of a standard logistic number L, ``width = above - below``; end bins take all beyond.

    By logarithms of σ, never a difference: ``log(σ(b) - σ(a)) = log(1 - exp(a - b)) + log σ(b) + log σ(-a)``; where
    ``lowest`` ``log σ(b)``, where ``highest`` ``log σ(-a)``.

    >>> a, b, inner = torch.tensor(-1.0), torch.tensor(1.0), torch.tensor(False)
    >>> round(logistic_bin(a, b, b - a, inner, inner).item(), 4), round((b.sigmoid() - a.sigmoid()).log().item(), 4)
    (-0.7719, -0.7719)
    """
    to_the_left, to_the_right = functional.logsigmoid(above), functional.logsigmoid(-below)
    inside = torch.log(-torch.expm1(-width)) + to_the_left + to_the_right
    return torch.where(highest, to_the_right, torch.where(lowest, to_the_left, inside))


def clipped_logistic_mean(location: Tensor, scale: Tensor) -> Tensor:
    """Mean of a logistic number that is cut off at -1 and 1: -1 and the integral of P(v > t) over t in [-1, 1].

    With m the ``location`` and s the ``scale`` it is ``s (log σ((1 - m) / s) - log σ((-1 - m) / s)) - 1``.

    >>> clipped_logistic_mean(torch.tensor([0.0, 9.0]), torch.tensor([0.5, 0.1])).tolist()
    [0.0, 1.0]
    """
    # torch's softplus is linear from 20 on, which loses 2e-9
    upper, lower = functional.logsigmoid((1 - location) / scale), functional.logsigmoid((-1 - location) / scale)
    return scale * (upper - lower) - 1


def gaussian_kl(mean_a: Tensor, log_var_a: Tensor, mean_b: Tensor, log_var_b: Tensor) -> Tensor:
    """KL(N(mean_a, exp log_var_a) || N(mean_b, exp log_var_b)), unit by unit.

    `1/2 [exp d - 1 - d + (mean_a - mean_b)^2 / exp log_var_b]` with `d = log_var_a - log_var_b`
    (Kingma and Welling 2014, appendix B, where b is N(0, I)). No variance is formed, hence no logarithm of
    one that underflowed; the result is finite wherever it fits the dtype.

    >>> zero = torch.zeros(())
    >>> gaussian_kl(torch.tensor(2.0), zero, zero, zero).item()
    2.0
    """
    d = log_var_a - log_var_b
    distance = (mean_a - mean_b) * torch.exp(-0.5 * log_var_b)
    return 0.5 * (torch.expm1(d) - d + distance.square())


def log_variance_cap(nats: float) -> float:
    """The log-variance below which no Gaussian is nearer to N(0, 1) than ``nats``, whatever its mean.

    The root ``log v < 0`` of ``(v - 1 - log v) / 2 = nats`` (Razavi et al. 2019, section 2.2): with t = 2 nats,
    ``v = -W(-exp(-1 - t))``, W the main branch of Lambert's function, and ``log v = v - 1 - t``.
    """
    v = -float(special.lambertw(-math.exp(-1 - 2 * nats)).real)
    return v - 1 - 2 * nats


def bernoulli_kl(logits_a: Tensor, logits_b: Tensor) -> Tensor:
    """KL between Bernoulli distributions, unit by unit: `sum_{v in 0, 1} a(v) [log a(v) - log b(v)]`.

    Both outcomes by `log sigmoid`: logit 1000 against -1000 gives 1000 nats, where a form in probabilities
    saturates near 16 (float32) or turns infinite.

    >>> bernoulli_kl(torch.tensor(1000.0), torch.tensor(-1000.0)).item()
    1000.0
    """
    on = logits_a.sigmoid() * (functional.logsigmoid(logits_a) - functional.logsigmoid(logits_b))
    off = (-logits_a).sigmoid() * (functional.logsigmoid(-logits_a) - functional.logsigmoid(-logits_b))
    return on + off


def categorical_kl(logits_a: Tensor, logits_b: Tensor) -> Tensor:
    """KL between categorical distributions, summed over the states on the last axis."""
    log_a, log_b = logits_a.log_softmax(-1), logits_b.log_softmax(-1)
    return (log_a.exp() * (log_a - log_b)).sum(-1)


def bernoulli_entropy(probability: FloatArray) -> FloatArray:
    """Entropy of Bernoulli units, `-p log p - (1 - p) log(1 - p)`; 0 where p is 0 or 1."""
    entropy: FloatArray = special.entr(probability) + special.entr(1 - probability)
    return entropy


def mean_interval(values: FloatArray, level: float = 0.95, clusters: IntArray | None = None) -> FloatArray:
    """(low, middle, high) `[..., 3]` of a mean over data, the last axis of `values [..., B]`: the one interval for it.

        mean - (t + h_low) SE,  mean + (t + h_high) SE,     h = |g| (1 + 2 t²) / (3 √B) on the side of the tail, else 0,

    t Student's quantile at B - 1 degrees of freedom and g the skewness: where few data bear the mean, its studentised
    error has a long tail, which a t interval misses. h is twice Hall's term, as a sample shows too little of its own
    skewness (Hall 1992, "The bootstrap and Edgeworth expansion", section 3.10). ``clusters [B]`` are labels, equal
    where data share a draw: then sums over clusters are the independent terms, and their number stands for B in t and
    h. Few data cannot show what is rare: 20 values that are all 0 give a point. Holds 95 % intervals to at least 93 %
    from B = 100 on for all distributions of `tests/test_numerics.py`, where the percentile bootstrap fell to 90 %. One
    cluster shows no spread, so its ends are infinite. A row with a nan or an infinity has no interval.

    >>> mean_interval(np.array([0.0, 1.0, 2.0, 3.0])).round(2).tolist()
    [-0.55, 1.5, 3.55]
    """
    values = np.asarray(values, dtype=np.float64)
    n_data = values.shape[-1]
    if n_data == 0:
        raise ValueError("The mean of no data was asked for; give at least one datum.")
    middle = values.mean(-1, keepdims=True)
    with np.errstate(invalid="ignore"):
        errors = values - middle
        if clusters is not None:
            labels, places = np.unique(clusters, return_inverse=True)
            errors = errors @ (places[:, None] == np.arange(len(labels))).astype(np.float64)
        n = errors.shape[-1]
        if n == 1:
            return np.asarray(middle + np.array([-np.inf, 0.0, np.inf]))
        below, above = student_hall(errors, n, (1 - level) / 2)
        error = np.sqrt(np.square(errors).sum(-1) * n / (n - 1)) / n_data
    middle = middle[..., 0]
    return np.stack([middle - below * error, middle, middle + above * error], axis=-1)


def all_equal(x: Tensor) -> bool:
    """Whether there are two rows of ``[N, ...]`` or more, and all are the same: data that tell nothing apart.

    >>> all_equal(torch.ones(3, 2)), all_equal(torch.eye(2)), all_equal(torch.ones(1, 2))
    (True, False, False)
    """
    return len(x) > 1 and bool((x == x[:1]).all())


def frechet_distance(mean_a: FloatArray, cov_a: FloatArray, mean_b: FloatArray, cov_b: FloatArray) -> float:
    """Fréchet distance of two Gaussians, squared: `|m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^{1/2})`.

    Dowson and Landau 1982; of features of images Heusel et al. 2017, equation 6. `(C_a C_b)^{1/2}` has the trace of the
    singular values of `R_a' R_b` for any roots `C = R R'`, so only symmetric matrices are decomposed.
    """
    root_a, root_b = _root(cov_a), _root(cov_b)
    shared = np.linalg.svd(root_a.T @ root_b, compute_uv=False).sum()
    return float(np.square(mean_a - mean_b).sum() + np.trace(cov_a) + np.trace(cov_b) - 2 * shared)


def _root(covariance: FloatArray) -> FloatArray:
    values, vectors = np.linalg.eigh(covariance)
    root: FloatArray = vectors * np.sqrt(np.maximum(values, 0.0))
    return root


def frechet_of_samples(a: FloatArray, b: FloatArray) -> float:
    """`frechet_distance` of the Gaussians with mean and covariance of the samples `[n, d]`; too high at finite n."""
    return frechet_distance(*_moments(a), *_moments(b))


def _moments(samples: FloatArray) -> tuple[FloatArray, FloatArray]:
    return samples.mean(0), np.atleast_2d(np.cov(samples, rowvar=False))


def frechet_interval(
    a: FloatArray, b: FloatArray, n_bootstrap: int, seed: int, level: float = 0.95, *, paired: bool = False
) -> FloatArray:
    """(low, middle, high) `[3]` of the Fréchet distance of the distributions behind two samples `[n, d]`.

    With F of the samples and F* of resamples, the distance is quadratic in the errors of the moments, so F exceeds the
    truth about as F* exceeds F: middle is `2 F - mean F*`, the ends `2 F - percentiles of F*` (the basic bootstrap,
    Davison and Hinkley 1997, section 5.2.1). Near 0 all three may fall below 0. ``paired`` resamples rows of a and b
    together, for states of one chain.
    """
    found = frechet_of_samples(a, b)
    source = np.random.default_rng(seed)
    resampled = np.empty(n_bootstrap)
    for i in range(n_bootstrap):
        rows = source.integers(len(a), size=len(a))
        resampled[i] = frechet_of_samples(a[rows], b[rows if paired else source.integers(len(b), size=len(b))])
    tail = 100 * (1 - level) / 2
    bottom, top = np.percentile(resampled, [tail, 100 - tail])
    return np.array([2 * found - top, 2 * found - resampled.mean(), 2 * found - bottom])
