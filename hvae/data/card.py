"""What is known of data before a model sees them, and what is refused.

Facts         of one array of a user's file as it stands there, over all of its rows, whatever is drawn of it
check_values  refuses numbers whose meaning is not known: an ELBO would be of something else than the data
Card          of a data set as it is presented, in words
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
import torch
from torch import Tensor

from hvae.data.formats import Items
from hvae.data.images import Array, Dataset
from hvae.diagnosis.pixels import Pixels
from hvae.errors import ConfigError

N_AT_ONCE = 2**22
"""numbers"""
N_DISTINCT = 256
"""values are counted up to here"""
SCALES_DIFFER = math.log(10)
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


@dataclass(frozen=True)
class Card:
    """What is known of a data set.

    >>> rows = torch.tensor([[0.0, 1.0], [1.0, 1.0], [0.0, 1.0]])
    >>> found = Card.of(Dataset("toy", train=rows, test=rows[:1], image_shape=(2,), kind="binary", dynamic=False))
    >>> print(str(found).replace(". ", ".\\n"))
    toy: 3 training and 1 test rows of 2 numbers, 0/1, 67 % of them 1.
    1 of 2 columns is constant in training: 1.
    1 of 1 test items stands in training too.
    """

    name: str
    n_train: int
    n_test: int
    shape: tuple[int, ...]
    kind: str
    dynamic: bool
    train_range: tuple[float, float]
    test_range: tuple[float, float]
    n_distinct: int
    """different numbers in training; `N_DISTINCT` + 1 where there are more"""
    share_of_ones: float
    """in training, of 0/1 values"""
    constant: tuple[int, ...]
    """columns that are the same in all training items"""
    n_in_both: int
    """test items that are training items too"""
    notes: tuple[str, ...] = ()
    """what was done to the numbers, and what was left out, in sentences"""

    @classmethod
    def of(cls, data: Dataset) -> "Card":
        """Reads all numbers of a data set."""
        train, test = data.train, data.test
        constant = (train.amax(0) == train.amin(0)).nonzero().flatten().tolist()
        return cls(
            name=data.name,
            n_train=len(train),
            n_test=len(test),
            shape=data.image_shape,
            kind=data.kind,
            dynamic=data.dynamic,
            train_range=(float(train.min()), float(train.max())),
            test_range=(float(test.min()), float(test.max())),
            n_distinct=_n_distinct(train),
            share_of_ones=float(train.mean(dtype=torch.float64)) if data.kind == "binary" else math.nan,
            constant=tuple(constant),
            # test images of dynamic data are drawn, and those of training are not
            n_in_both=0 if data.dynamic else _n_in_both(train, test),
            notes=data.notes,
        )

    def __str__(self) -> str:
        pixels = Pixels.of(self.shape)
        if pixels is None:
            items = f"rows of {math.prod(self.shape)} numbers"
        else:
            items = f"{'colour ' if pixels.channels == 3 else ''}images of {pixels.rows} x {pixels.columns}"
        sentences = [
            f"{self.name}: {self.n_train} training and {self.n_test} test {items}, {self._values()}.",
            *self.notes,
        ]
        if self.constant:
            some = ", ".join(map(str, self.constant[:5])) + (", …" if len(self.constant) > 5 else "")
            verb = "is" if len(self.constant) == 1 else "are"
            sentences.append(
                f"{len(self.constant)} of {math.prod(self.shape)} columns {verb} constant in training: {some}."
            )
        if self.n_in_both:
            verb = "stands" if self.n_in_both == 1 else "stand"
            sentences.append(f"{self.n_in_both} of {self.n_test} test items {verb} in training too.")
        return " ".join(sentences)

    def _values(self) -> str:
        if self.kind == "binary":
            drawn = ", drawn at every presentation" if self.dynamic else ""
            return f"0/1{drawn}, {100 * self.share_of_ones:.0f} % of them 1"
        many = f"more than {N_DISTINCT}" if self.n_distinct > N_DISTINCT else str(self.n_distinct)
        ours, theirs = (f"{low:.4g} to {high:.4g}" for low, high in (self.train_range, self.test_range))
        test = "" if ours == theirs else f" (test {theirs})"
        values = "counts" if self.kind == "counts" else f"{self.kind} values"
        return f"{values}, {many} different ones from {ours}{test}"


def _n_distinct(values: Tensor) -> int:
    found = torch.empty(0)
    for part in values.flatten().split(N_AT_ONCE):
        found = torch.cat([found, part.unique()]).unique()
        if len(found) > N_DISTINCT:
            return N_DISTINCT + 1
    return len(found)


def _n_in_both(train: Tensor, test: Tensor) -> int:
    of_test, of_train = ([blake2b(row, digest_size=16).digest() for row in part.numpy()] for part in (test, train))
    there = set(of_train)
    return sum(key in there for key in of_test)
