"""What may be said for certain of a share of images, and of a mean over images and seeds.

- `share_above`: of a share from a count, by Clopper and Pearson (1934), whatever the distribution: with none of n = 72
  images above a threshold the share above it is below 5 %, with none of 20 only below 17 %.
- `crossed_interval`: of the mean of a table ``y [S, n]``, S seeds on the same n images, y = mean + seed + image + rest.
  Seeds and images both count: an interval over seeds alone held the mean 7 to 90 % of the time where images rule.
"""

import numpy as np
from scipy import stats

from hvae.numerics import FloatArray, student_hall


def share_above(count: int, n: int, level: float = 0.95) -> tuple[float, float, float]:
    """(low, middle, high) of a share of which ``count`` of n were seen: the interval of Clopper and Pearson.

    Each end errs with chance ``(1 - level) / 2`` at most, for every share and every n.

    >>> [round(end, 4) for end in share_above(0, 72)], [round(end, 3) for end in share_above(20, 20)]
    ([0.0, 0.0, 0.0499], [0.832, 1.0, 1.0])
    """
    if not 0 <= count <= n or n < 1:
        raise ValueError(f"{count} of {n} is no share; give a count between 0 and n, and n of 1 or more.")
    tail = (1 - level) / 2
    low = float(stats.beta.ppf(tail, count, n - count + 1)) if count > 0 else 0.0
    high = float(stats.beta.isf(tail, count + 1, n - count)) if count < n else 1.0
    return low, count / n, high


def crossed_interval(values: FloatArray, level: float = 0.95) -> tuple[float, float, float]:
    """(low, middle, high) of the mean of ``values [S, n]``: S seeds on the same n images.

    With the mean squares of the two-way table without replication, ``MS_s`` of seeds, ``MS_i`` of images and ``MS_e``
    of the rest,

        mean ± sqrt(t_{S-1}² max(MS_s - MS_e, 0) / (S n) + t_{n-1}² MS_i / (S n)),

    a modified large sample interval (Graybill and Wang 1980; Burdick and Graybill 1992, section 6). For the skewness g
    of the images' means each end has twice Hall's term, ``t -> t + |g| (1 + 2 t²) / (3 √n)`` on the side of the tail
    (`hvae.numerics.mean_interval`). It holds the mean in at least 93 % of all cases from 100 images on (`tests`).
    Raises ValueError for fewer than two seeds or images.

    >>> low, middle, high = crossed_interval(np.array([[1.0, 2.0, 3.0], [2.0, 3.0, 4.0]]))
    >>> middle, low < 1.0, high > 4.0
    (2.5, True, True)
    """
    n_seeds, n = values.shape
    if n_seeds < 2 or n < 2:
        raise ValueError(f"there are {n_seeds} seeds and {n} images; give at least 2 of each.")
    mean, seeds, images = values.mean(), values.mean(1), values.mean(0)
    rest = values - seeds[:, None] - images[None, :] + mean
    of_seeds = n * np.square(seeds - mean).sum() / (n_seeds - 1)
    of_images = n_seeds * np.square(images - mean).sum() / (n - 1)
    of_rest = np.square(rest).sum() / ((n_seeds - 1) * (n - 1))
    tail = (1 - level) / 2
    from_seeds = float(stats.t.isf(tail, n_seeds - 1)) ** 2 * max(of_seeds - of_rest, 0.0) / values.size
    quantiles = np.array(student_hall(images - mean, n, tail))
    below, above = np.sqrt(from_seeds + quantiles**2 * of_images / values.size)
    return float(mean - below), float(mean), float(mean + above)
