"""Which axes of an item are rows, columns and colours."""

from collections.abc import Iterable
from dataclasses import dataclass

from hvae.diagnosis.record import Array


@dataclass(frozen=True)
class Pixels:
    """The axes of an image whose numbers stand in a row ``[..., D]``, ``D = rows * columns * channels``.

    >>> Pixels.of((3, 32, 32)), Pixels.of((20,))
    (Pixels(rows=32, columns=32, channels=3, channels_last=False), None)
    """

    rows: int
    columns: int
    channels: int = 1
    channels_last: bool = False
    """whether the colours of a pixel stand together, ``[rows, columns, 3]``; else ``[3, rows, columns]``"""

    @classmethod
    def of(cls, shape: Iterable[int]) -> "Pixels | None":
        """From a shape: (rows, columns), (3, rows, columns) or (rows, columns, 3); None for anything else."""
        match [int(size) for size in shape]:
            case [rows, columns]:
                return cls(rows, columns)
            case [rows, columns, 3]:
                return cls(rows, columns, 3, channels_last=True)
            case [3, rows, columns]:
                return cls(rows, columns, 3)
        return None

    @property
    def shape(self) -> tuple[int, ...]:
        """What `of` makes it from."""
        sides = (self.rows, self.columns)
        if self.channels == 1:
            return sides
        return (*sides, self.channels) if self.channels_last else (self.channels, *sides)

    def picture(self, values: Array) -> Array:
        """As images are drawn: ``[..., D]`` to ``[..., rows, columns]``, in colour ``[..., rows, columns, 3]``."""
        if self.channels == 1:
            return values.reshape(*values.shape[:-1], self.rows, self.columns)
        if self.channels_last:
            return values.reshape(*values.shape[:-1], self.rows, self.columns, self.channels)
        planes = values.reshape(*values.shape[:-1], self.channels, self.rows, self.columns)
        moved: Array = planes.swapaxes(-3, -2).swapaxes(-2, -1)
        return moved
