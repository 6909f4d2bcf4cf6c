"""A planted fault: one place of the library's source, altered in memory, and the tests that must fail of it."""

import importlib.util
from dataclasses import dataclass
from pathlib import Path

SIZE = "SIZE"
"""stands in an `Edit` for how wrong it is"""
LADDER = (1.0, 0.1, 0.02, 0.005, 0.001, 1e-4, 1e-6, 1e-8)
"""sizes at which graded faults are planted, from gross to slight"""
ASSERTION = ("AssertionError", "Failed")
"""what a failed test raises: ``assert``, and ``pytest.raises`` around something that raised nothing"""
REFUSAL = (*ASSERTION, "NoReferenceError")
"""the last raised where the library notices by itself that two of its ways to one number differ"""


@dataclass(frozen=True)
class Edit:
    """``old`` becomes ``new`` in the source of ``module``, where ``old`` stands exactly once."""

    module: str
    old: str
    new: str

    def apply(self, source: str) -> str:
        """The altered source. Raises ValueError where the text has gone or is no longer the only one."""
        if self.old == self.new:
            raise ValueError(f"The edit of {self.module} changes nothing: {self.old!r} becomes itself.")
        if source.count(self.old) != 1:
            raise ValueError(
                f"{self.old!r} stands {source.count(self.old)} times in the source of {self.module}, where a fault is "
                "planted; name a text that stands there once."
            )
        return source.replace(self.old, self.new)


@dataclass(frozen=True)
class Fault:
    """A realistic bug. ``tests`` are node ids or files, from the repository's root, that must not all pass with it."""

    name: str
    what: str
    plant: Edit
    tests: tuple[str, ...]
    size: float | None = None
    """how wrong it is planted, relative to what is right; None for faults without a size"""
    raises: tuple[str, ...] = ASSERTION
    """kinds of exception that count as a catch; any other may have nothing to do with the fault"""

    def __post_init__(self) -> None:
        if (self.size is not None) != (SIZE in self.plant.new):
            raise ValueError(f"The fault {self.name} has the size {self.size}; exactly a text with {SIZE} has one.")

    def source(self, size: float | None = None) -> str:
        """The source of the module with the fault in it, at its own size if no other is given."""
        new = self.plant.new
        if self.size is not None:
            new = new.replace(SIZE, repr(self.size if size is None else size))
        elif size is not None:
            raise ValueError(f"The fault {self.name} has no size; leave out {size}.")
        return Edit(self.plant.module, self.plant.old, new).apply(path_of(self.plant.module).read_text("utf-8"))

    def key(self, size: float | None = None) -> str:
        """What names the fault in the environment: ``name`` or ``name=size``."""
        return self.name if size is None else f"{self.name}={size!r}"


def path_of(module: str) -> Path:
    """The file of a module of hvae, without importing any."""
    root = importlib.util.find_spec(module.partition(".")[0])
    assert root is not None and root.submodule_search_locations
    stem = Path(root.submodule_search_locations[0]).joinpath(*module.split(".")[1:])
    return stem / "__init__.py" if stem.is_dir() else stem.with_suffix(".py")
