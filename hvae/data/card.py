"""What is known of data before a model sees them, and what is refused.

Facts         of one array of a user's file as it stands there, over all of its rows, whatever is drawn of it
check_values  refuses numbers whose meaning is not known: an ELBO would be of something else than the data
card_of       the card of a data set as it is presented (`hvae.diagnosis.card`)
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
import torch
from torch import Tensor

from hvae.data.formats import Items
from hvae.data.images import Array, Dataset
from hvae.diagnosis.card import N_DISTINCT, Card
from hvae.diagnosis.pixels import Pixels
from hvae.errors import ConfigError

N_AT_ONCE = 2**22
"""numbers"""
SCALES_DIFFER = math.log(10)
FEW_ROWS, MOST_COLUMNS = 20, 2000
"""rows from which columns are compared, and columns up to which they are"""
BYTES_OF_IMAGES = 128
"""bytes whose largest is below are no grey levels of 0 to 255"""


@dataclass(frozen=True)
class Facts:
    """The numbers of an array, read in blocks.

    >>> Facts.of(np.array([[0, 2], [7, 2]]))
    Facts(dtype='int64', low=0.0, high=7.0, distinct=(0.0, 2.0, 7.0), whole=True, n_bad=0, bad=())
    """

    dtype: str
    low: float
    """in float32, as the high end"""
    high: float
    distinct: tuple[float, ...]
    """the values that there are, up to the third"""
    whole: bool
    """whether all are whole numbers, of whatever dtype"""
    n_bad: int
    """numbers that are not finite in float32"""
    bad: tuple[int, ...]
    """the place of the first of them"""

    @property
    def bytes_(self) -> bool:
        """Whether they are uint8."""
        return self.dtype == "uint8"

    @property
    def largest(self) -> float:
        """max |x|"""
        return max(abs(self.low), abs(self.high))

    @classmethod
    def of(cls, items: Items) -> "Facts":
        low, high, whole, n_bad = math.inf, -math.inf, True, 0
        distinct: list[float] = []
        bad: tuple[int, ...] = ()
        for start, block in blocks(items):
            values = single(block) if block.dtype.kind == "f" else block
            finite = np.isfinite(values) if block.dtype.kind == "f" else np.True_
            if not finite.all():
                n_bad += int((~finite).sum())
                first = [int(place[0]) for place in np.nonzero(~finite)]
                bad = bad or (start + first[0], *first[1:])
                continue
            low, high = min(low, float(np.float32(values.min()))), max(high, float(np.float32(values.max())))
            whole = whole and (block.dtype.kind != "f" or bool((block == np.floor(block)).all()))
            while len(distinct) < 3:
                others = np.ones(values.shape, dtype=bool)
                for known in distinct:
                    others &= values.astype(np.float32) != known
                if not others.any():
                    break
                distinct.append(float(np.float32(values[others].flat[0])))
        return cls(str(items.dtype), low, high, tuple(sorted(distinct)), whole, n_bad, bad)


def blocks(items: Items) -> Iterator[tuple[int, Array]]:
    """The rows of an array, some at once, with the number of the first."""
    n = max(1, N_AT_ONCE * len(items) // max(1, items.size))
    for start in range(0, len(items), n):
        yield start, np.asarray(items[start : start + n])


def single(values: Array) -> Array:
    """In float32; what is too large for it is infinite."""
    with np.errstate(over="ignore"):
        return values.astype(np.float32)


def check_finite(path: str, part: str, facts: Facts, columns: tuple[str, ...]) -> None:
    """Refuse an array that holds a number which is not finite, and say where the first one is."""
    if not facts.n_bad:
        return
    item, *place = facts.bad
    if len(place) == 1:
        name = f" ({columns[place[0]]})" if columns else ""
        where = f"row {item}, column {place[0]}{name}"
    else:
        where = f"item {item}, at {tuple(place)}"
    raise ConfigError(
        f"{path} holds {facts.n_bad} values that are not finite in float32, the first in {where} of its {part} array, "
        "counted from 0; remove or replace them."
    )


def check_values(path: str, train: Facts, test: Facts, *, binarised: bool) -> None:
    """Refuse numbers of a file whose meaning, or whose density, is not known."""
    if train.bytes_ != test.bytes_:
        raise ConfigError(
            f"{path} trains on {train.dtype} and tests on {test.dtype}; bytes are divided by 255 and other numbers are "
            "not, so make both the same."
        )
    low, high = min(train.low, test.low), max(train.high, test.high)
    distinct = sorted({*train.distinct, *test.distinct})
    whole, images = train.whole and test.whole, train.bytes_ and high >= BYTES_OF_IMAGES
    if set(distinct) <= {0.0, 1.0} or (train.bytes_ and set(distinct) <= {0.0, 255.0}):
        return
    if len(distinct) == 2 and not (binarised and (images or not whole)):
        a, b = distinct
        raise ConfigError(
            f"{path} holds two values only, {a:g} and {b:g}, where a density has no upper bound; write them as 0 and "
            f"1, train=(x > {a:g}), for model.observation bernoulli."
        )
    if whole and not images and (low < 0 or binarised):
        raise ConfigError(whole_numbers(path, low, high))


def whole_numbers(name: str, low: float, high: float) -> str:
    """Why whole numbers are refused where nothing says what they are; only counts need not be written anew."""
    ways = [f"grey levels between 0 and 1, x / {high:g}"] if low >= 0 else []
    ways = [*ways, "columns of a table as (x - x.mean(0)) / x.std(0), in float32"]
    counts = "give counts model.observation poisson or negative-binomial, " if low >= 0 else ""
    return (
        f"{name} holds whole numbers from {low:g} to {high:g}, which may be grey levels, counts or measurements; "
        f"{counts}write {', or '.join(ways)} (only bytes, uint8, that reach {BYTES_OF_IMAGES} are taken as grey levels "
        "of 0 to 255)."
    )


def check_scales(path: str, train: tuple[Items, Facts], test: tuple[Items, Facts]) -> None:
    """Refuse a test array whose numbers are more than ten times as large as those of training, or as small.

    Scaled by a, numbers move their largest |x| and their mean ``log |x|`` over all that are not 0 by a factor and by
    log a. Both must say so, as outliers move the one and tiny numbers the other, and the mean by five standard errors
    over items.
    """
    (ours, error), (theirs, its_error) = (_log_size(items) for items, _ in (train, test))
    distance = theirs - ours
    largest = math.log(test[1].largest / train[1].largest) if test[1].largest * train[1].largest > 0 else 0.0
    told = abs(distance) > 5 * math.hypot(error, its_error) and distance * largest > 0
    if told and min(abs(distance), abs(largest)) > SCALES_DIFFER:
        times = f"{math.exp(abs(distance)):.0f} times as {'large' if distance > 0 else 'small'}"
        raise ConfigError(f"{path} tests on numbers about {times} as those that it trains on; scale both alike.")


def _log_size(items: Items) -> tuple[float, float]:
    """Mean and standard error of log |x| over the numbers that are not 0, of rows spread over the array."""
    n = min(len(items), max(2, N_AT_ONCE * len(items) // items.size))
    rows = np.unique(np.linspace(0, len(items) - 1, n).astype(np.int64))
    size = np.abs(np.asarray(items[rows], dtype=np.float64)).reshape(len(rows), -1)
    there = size > 0
    rows_there = there.any(1)
    if rows_there.sum() < 2:
        return math.nan, math.nan
    logs = np.log(size, where=there, out=np.zeros_like(size)).sum(1)[rows_there] / there.sum(1)[rows_there]
    return float(logs.mean()), float(logs.std(ddof=1) / math.sqrt(len(logs)))


def card_of(data: Dataset) -> Card:
    """Reads all numbers of a data set.

    >>> rows = torch.tensor([[0.0, 1.0], [1.0, 1.0], [0.0, 1.0]])
    >>> found = card_of(Dataset("toy", train=rows, test=rows[:1], image_shape=(2,), kind="binary", dynamic=False))
    >>> print(str(found).replace(". ", ".\\n"))
    toy: 3 training and 1 test rows of 2 numbers, 0/1, 67 % of them 1.
    1 of 2 columns is constant in training: 1.
    1 of 1 test items stands in training too.
    """
    train, test = data.train, data.test
    return Card(
        name=data.name,
        shape=tuple(data.image_shape),
        kind=data.kind,
        n_test=len(test),
        test_range=_ends(test),
        n_distinct=_n_distinct(train),
        n_train=len(train),
        train_range=_ends(train),
        dynamic=data.dynamic,
        share_of_ones=_mean(train) if data.kind == "binary" else None,
        constant=_constant(train),
        two_valued=_two_valued(train) if data.kind == "real" else (),
        dependent=_dependent(train) if data.kind == "real" and Pixels.of(data.image_shape) is None else (),
        columns=data.columns,
        # test images of dynamic data are drawn, and those of training are not
        n_in_both=0 if data.dynamic else _n_in_both(train, test),
        notes=data.notes,
    )


def card_of_items(name: str, items: Tensor, notes: Sequence[str] = ()) -> Card:
    """The card of what a model is measured on, ``items [n, ...]`` of any dtype.

    >>> print(card_of_items("x", torch.tensor([[0.5, 1.0], [0.0, 1.0]])))
    x: 2 rows of 2 numbers, grey values, 3 different ones from 0 to 1. 1 of 2 columns is constant: 1.
    """
    sides = tuple(side for side in items.shape[1:] if side != 1)
    rows = items.detach().cpu().reshape(len(items), -1)
    rows = rows.to(torch.uint8) if rows.dtype == torch.bool else rows
    n_distinct, (low, high) = _n_distinct(rows), _ends(rows)
    whole = not rows.is_floating_point() or bool((rows == rows.floor()).all())
    kind = "whole-number" if whole else "grey" if low >= 0 and high <= 1 else "real"
    binary = n_distinct <= 2 and whole and low >= 0 and high <= 1
    return Card(
        name=name,
        shape=sides if len(sides) > 1 and Pixels.of(sides) is not None else (rows.shape[1],),
        kind="binary" if binary else kind,
        n_test=len(rows),
        test_range=(low, high),
        n_distinct=n_distinct,
        share_of_ones=_mean(rows) if binary else None,
        constant=_constant(rows),
        notes=tuple(notes),
    )


def _ends(values: Tensor) -> tuple[float, float]:
    return float(values.min()), float(values.max())


def _mean(values: Tensor) -> float:
    return float(values.mean(dtype=torch.float64))


def _constant(rows: Tensor) -> tuple[int, ...]:
    """Columns that are the same in all rows ``[n, D]``."""
    return tuple((rows == rows[:1]).all(0).nonzero().flatten().tolist())


def _two_valued(rows: Tensor) -> tuple[int, ...]:
    """Columns of ``[N, D]`` that hold two values, as indicators do; of a few rows nothing can be said."""
    if len(rows) < FEW_ROWS:
        return ()
    low, high = rows.amin(0), rows.amax(0)
    return tuple((((rows == low) | (rows == high)).all(0) & (low < high)).nonzero().flatten().tolist())


def _dependent(rows: Tensor) -> tuple[int, ...]:
    """Columns of ``[N, D]`` in the null space of their correlations, where there are more rows than columns.

    Numbers are known to 6e-8 of themselves in float32, and so is what they add up to.
    """
    moves = (rows != rows[:1]).any(0).nonzero().flatten()
    if len(moves) < 2 or len(moves) > MOST_COLUMNS or len(rows) < FEW_ROWS + len(moves):
        return ()
    values = rows[:, moves].double()
    values = values - values.mean(0)
    size = values.norm(dim=0)
    known = 4 * torch.finfo(torch.float32).eps * rows[:, moves].abs().amax(0) * len(rows) ** 0.5 / size
    eigenvalues, vectors = torch.linalg.eigh((values / size).T @ (values / size))
    found = torch.zeros(len(moves), dtype=torch.bool)
    for value, vector in zip(eigenvalues, vectors.T, strict=True):
        if value > float(((vector * known) ** 2).sum()) + 1e-13:
            break
        found |= vector.abs() > 1e-3
    return tuple(moves[found].tolist())


def _n_distinct(values: Tensor) -> int:
    found = values.flatten()[:1]
    for part in values.flatten().split(N_AT_ONCE):
        near = torch.searchsorted(found, part).clamp_(max=len(found) - 1)
        found = torch.cat([found, part[found[near] != part].unique()]).unique()  # few are new, and few are sorted
        if len(found) > N_DISTINCT:
            return N_DISTINCT + 1
    return len(found)


def _n_in_both(train: Tensor, test: Tensor) -> int:
    of_test, of_train = ([blake2b(row, digest_size=16).digest() for row in part.numpy()] for part in (test, train))
    there = set(of_train)
    return sum(key in there for key in of_test)
