"""The data card: what is known of data, as numbers and in words. It is kept with a run and with a diagnosis.

`hvae.data.card` makes one; this room reads it back, without torch.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from hvae.diagnosis.pixels import Pixels
from hvae.outside import read_json, sound

N_DISTINCT = 256
"""values are counted up to here"""
FILE = "data.json"
"""of a run: a list of cards"""

Range = tuple[float, float]


@dataclass(frozen=True)
class Card:
    """What is known of data: those of a run, or what a user's own model was measured on.

    >>> card = Card("toy", (4,), "real", n_test=9, test_range=(-1.0, 2.0), n_distinct=20, constant=(3,))
    >>> print(card)
    toy: 9 rows of 4 numbers, real values, 20 different ones from -1 to 2. 1 of 4 columns is constant: 3.
    >>> Card.of_records([card.record()]) == (card,)
    True
    """

    name: str
    shape: tuple[int, ...]
    """of an item, as `hvae.diagnosis.pixels.Pixels.of` reads it, or (D,)"""
    kind: str
    """of the values, in a word"""
    n_test: int
    """items that are measured"""
    test_range: Range
    n_distinct: int
    """different numbers in training, else in what is measured; `N_DISTINCT` + 1 where there are more"""
    n_train: int = 0
    """0 where only what is measured is known"""
    train_range: Range | None = None
    dynamic: bool = False
    """whether training items are drawn at every presentation"""
    share_of_ones: float | None = None
    """of 0/1 values"""
    constant: tuple[int, ...] = ()
    """columns that are the same in all training items, else in all that are measured"""
    two_valued: tuple[int, ...] = ()
    """columns of real numbers that take two values in training"""
    dependent: tuple[int, ...] = ()
    """columns of a table that are a linear function of each other in training, up to rounding"""
    columns: tuple[str, ...] = ()
    """names of the columns of a table"""
    n_in_both: int = 0
    """test items that are training items too"""
    notes: tuple[str, ...] = ()
    """what was done to the numbers, and what was left out, in sentences"""

    @property
    def n_columns(self) -> int:
        """D."""
        return math.prod(self.shape)

    def column(self, number: int) -> str:
        """A column by its number and, in a table with a header, its name: "3 (alcohol)"."""
        return f"{number} ({self.columns[number]})" if self.columns else str(number)

    def some(self, numbers: Sequence[int]) -> str:
        """The first of these columns."""
        return ", ".join(map(self.column, numbers[:5])) + (", …" if len(numbers) > 5 else "")

    def __str__(self) -> str:
        many = f"{self.n_train} training and {self.n_test} test" if self.n_train else str(self.n_test)
        sentences = [f"{self.name}: {many} {self._items()}, {self._values()}.", *self.notes]
        if self.constant:
            verb = "is" if len(self.constant) == 1 else "are"
            where = " in training" if self.n_train else ""
            some = self.some(self.constant)
            sentences.append(f"{len(self.constant)} of {self.n_columns} columns {verb} constant{where}: {some}.")
        if self.n_in_both:
            verb = "stands" if self.n_in_both == 1 else "stand"
            sentences.append(f"{self.n_in_both} of {self.n_test} test items {verb} in training too.")
        return " ".join(sentences)

    def _items(self) -> str:
        pixels = Pixels.of(self.shape)
        if pixels is None:
            return f"rows of {self.n_columns} numbers"
        return f"{'colour ' if pixels.channels == 3 else ''}images of {pixels.rows} x {pixels.columns}"

    def _values(self) -> str:
        if self.share_of_ones is not None:
            drawn = ", drawn at every presentation" if self.dynamic else ""
            return f"0/1{drawn}, {100 * self.share_of_ones:.0f} % of them 1"
        many = f"more than {N_DISTINCT}" if self.n_distinct > N_DISTINCT else str(self.n_distinct)
        theirs = _range(self.test_range)
        ours = theirs if self.train_range is None else _range(self.train_range)
        pixels = Pixels.of(self.shape)
        kind = "colour" if self.kind == "grey" and pixels is not None and pixels.channels == 3 else self.kind
        values = "counts" if kind == "counts" else f"{kind} values"
        return f"{values}, {many} different ones from {ours}" + ("" if ours == theirs else f" (test {theirs})")

    def record(self) -> dict[str, Any]:
        """As it stands in a file: what differs from the defaults."""
        return {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) != f.default}

    @staticmethod
    def of_records(records: Iterable[Mapping[str, Any]]) -> "tuple[Card, ...]":
        """What `record` gave. Raises TypeError or ValueError for anything else."""
        return tuple(Card(**{key: _plain(value) for key, value in record.items()}) for record in records)


def _range(ends: Range) -> str:
    return f"{ends[0]:.4g} to {ends[1]:.4g}"


def _plain(value: Any) -> Any:
    """Lists of JSON as tuples."""
    return tuple(value) if isinstance(value, list) else value


def cards_text(cards: Sequence[Card]) -> str:
    """What a file of cards holds."""
    return json.dumps([card.record() for card in cards], indent=1, ensure_ascii=False) + "\n"


def read_cards(directory: Path) -> tuple[Card, ...]:
    """The cards of a run; none where it has no file. Raises `ConfigError` where the file is damaged."""
    file, remedy = directory / FILE, "restore or delete it"
    try:
        with sound(file, remedy):
            found = Card.of_records(read_json(file, remedy))
            list(map(str, found))
    except (FileNotFoundError, NotADirectoryError):
        return ()
    return found
