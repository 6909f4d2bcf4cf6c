"""A planted fault: what changes in one function of the library, in memory, and the tests that must fail of it."""

import ast
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.machinery import ModuleSpec
from itertools import accumulate
from pathlib import Path
from textwrap import dedent

SIZE = "SIZE"
"""stands in a `Change` for how wrong it is"""
LADDER = (1.0, 0.1, 0.02, 0.005, 0.001, 1e-4, 1e-6, 1e-8)
"""sizes at which graded faults are planted, from gross to slight"""
ASSERTION = ("AssertionError", "Failed")
"""what a failed test raises: ``assert``, and ``pytest.raises`` around something that raised nothing"""
REFUSAL = (*ASSERTION, "NoReferenceError")
"""the last raised where the library notices by itself that two of its ways to one number differ"""


@dataclass(frozen=True)
class Change:
    """``old`` becomes ``new`` in ``target``, a function, method, class or constant named as ``module:qualified.name``.

    Both are Python: an expression, or statements that follow each other. They are compared as syntax trees, so layout,
    comments, quotes and redundant parentheses say nothing. ``old`` stands in the target exactly once.
    """

    target: str
    old: str
    new: str

    @property
    def module(self) -> str:
        """The module of the target."""
        return self.target.partition(":")[0]

    def apply(self, source: str) -> ast.Module:
        """The altered syntax tree of the module. Raises ValueError where the change does not fit it any more."""
        tree = ast.parse(source)
        old, new = self._fragment(self.old), self._fragment(self.new)
        if len(old) == len(new) == 1 and isinstance(old[0], ast.Expr) and isinstance(new[0], ast.Expr):
            old, new = [old[0].value], [new[0].value]
        if _dump(old) == _dump(new):
            raise ValueError(f"The change of {self.target} changes nothing: {self.old!r} becomes itself.")
        places = list(_places(self._find(tree), old))
        if len(places) != 1:
            raise ValueError(
                f"{self.old!r} stands {len(places)} times in {self.target}, where a fault is planted; name a piece of "
                "Python that stands there once."
            )
        places[0].put(new)
        return ast.fix_missing_locations(tree)

    def _find(self, tree: ast.Module) -> ast.stmt:
        bodies: list[list[ast.stmt]] = [tree.body]
        found: list[ast.stmt] = []
        for name in self.target.partition(":")[2].split("."):
            found = [node for body in bodies for node in body if name in _names(node)]
            bodies = [node.body for node in found if isinstance(node, ast.FunctionDef | ast.ClassDef)]
        if len(found) != 1:
            raise ValueError(
                f"{self.target} is defined {len(found)} times; plant a fault, as module:qualified.name, in what is "
                "defined once."
            )
        return found[0]

    def _fragment(self, text: str) -> Sequence[ast.AST]:
        try:
            return ast.parse(dedent(text)).body
        except SyntaxError as error:
            raise ValueError(f"The change of {self.target} is no Python: {text!r} ({error.msg}).") from None


@dataclass(frozen=True)
class _Place:
    """The nodes ``start`` to ``end`` of what ``parent`` has in ``field``."""

    parent: ast.AST
    field: str
    start: int
    end: int

    def put(self, new: Sequence[ast.AST]) -> None:
        """Put other nodes there, on the lines of the first that goes."""
        held = getattr(self.parent, self.field)
        first = held[self.start] if isinstance(held, list) else held
        for node in new:
            for part in ast.walk(node):
                ast.copy_location(part, first)
        if isinstance(held, list):
            held[self.start : self.end] = new
        else:
            setattr(self.parent, self.field, new[0])


def _places(target: ast.AST, wanted: Sequence[ast.AST]) -> Iterator[_Place]:
    """Where the nodes stand in the target, one after the other."""
    sought, n = _dump(wanted), len(wanted)
    for parent in ast.walk(target):
        for field, held in ast.iter_fields(parent):
            nodes = held if isinstance(held, list) else [held]
            for start in range(len(nodes) - n + 1):
                run = nodes[start : start + n]
                if all(type(a) is type(b) for a, b in zip(run, wanted, strict=True)) and _dump(run) == sought:
                    yield _Place(parent, field, start, start + n)


def _dump(nodes: Sequence[ast.AST]) -> list[str]:
    return [ast.dump(node) for node in nodes]


def _names(node: ast.stmt) -> list[str]:
    """What a statement defines."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return [target.id for target in targets if isinstance(target, ast.Name)]


@dataclass(frozen=True)
class Fault:
    """A realistic bug. ``tests`` are node ids or files, from the repository's root, that must not all pass with it."""

    name: str
    what: str
    plant: Change
    tests: tuple[str, ...]
    size: float | None = None
    """how wrong it is planted, relative to what is right; None for faults without a size"""
    raises: tuple[str, ...] = ASSERTION
    """kinds of exception that count as a catch; any other may have nothing to do with the fault"""

    def __post_init__(self) -> None:
        if (self.size is not None) != (SIZE in self.plant.new):
            raise ValueError(f"The fault {self.name} has the size {self.size}; exactly a change to {SIZE} has one.")

    def tree(self, size: float | None = None) -> ast.Module:
        """The syntax tree of the module with the fault in it, at its own size if no other is given."""
        change = self.plant
        if self.size is not None:
            change = replace(change, new=change.new.replace(SIZE, repr(self.size if size is None else size)))
        elif size is not None:
            raise ValueError(f"The fault {self.name} has no size; leave out {size}.")
        return change.apply(path_of(change.module).read_text("utf-8"))

    def key(self, size: float | None = None) -> str:
        """What names the fault in the environment: ``name`` or ``name=size``."""
        return self.name if size is None else f"{self.name}={size!r}"


def path_of(module: str) -> Path:
    """The file of a module, without importing any. Raises ValueError where there is none."""
    path: Sequence[str] | None = None
    spec: ModuleSpec | None = None
    for name in accumulate(module.split("."), "{}.{}".format):
        spec = find_spec(name, path)
        path = (spec.submodule_search_locations if spec is not None else None) or []
    if spec is None or spec.origin is None:
        raise ValueError(f"There is no module {module}, where a fault is to be planted.")
    return Path(spec.origin)


def find_spec(name: str, path: Sequence[str] | None, without: object = None) -> ModuleSpec | None:
    """What Python's finders, but one, answer for the module ``name`` of the package that lies at ``path``."""
    finders = (finder for finder in sys.meta_path if finder is not without)
    return next((spec for finder in finders if (spec := finder.find_spec(name, path)) is not None), None)
