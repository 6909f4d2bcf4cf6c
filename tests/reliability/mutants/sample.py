"""A random sample of mutants, by the operators of cosmic-ray.

A place is a piece of source that an operator may change. Places are drawn at random without replacement, and at each
one of its changes: so an addition, with six other operations, weighs no more than a number, with two. The order is by
a digest of the seed and of the text of the place. So the first of a sample are the same whatever its size, and a change
elsewhere in the library leaves them as they are.

Left out is what changes nothing that is computed: docstrings, annotations, ``abstractmethod``, the messages of errors,
and ``*`` between arguments.
"""

import ast
import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Any

from tests.reliability.mutants.parts import PARTS, REPO, sources

SEED = 20
ARITHMETIC = ("Add", "Sub", "Mul", "Div", "FloorDiv", "Mod", "Pow")
BITS = ("BitOr", "BitAnd", "BitXor")
ORDER = ("Eq", "NotEq", "Lt", "LtE", "Gt", "GtE")
OPERATORS = (
    *(f"ReplaceBinaryOperator_{a}_{b}" for group in (ARITHMETIC, BITS) for a, b in permutations(group, 2)),
    *(f"ReplaceComparisonOperator_{a}_{b}" for a, b in (*permutations(ORDER, 2), *permutations(("Is", "IsNot"), 2))),
    *(f"ReplaceUnaryOperator_Delete_{sign}" for sign in ("USub", "Invert", "Not")),
    *("AddNot", "ReplaceTrueWithFalse", "ReplaceFalseWithTrue", "ReplaceAndWithOr", "ReplaceOrWithAnd"),
    *("ReplaceBreakWithContinue", "ReplaceContinueWithBreak", "ExceptionReplacer", "NumberReplacer"),
    *("RemoveDecorator", "ZeroIterationForLoop"),
)
"""of cosmic-ray, without those that only ever end in a TypeError, as the shift of a float"""


@dataclass(frozen=True)
class Mutant:
    """One change of one file. ``before`` and ``after`` are the line that changes, or lines."""

    key: str
    source: str
    line: int
    operator: str
    before: str
    after: str
    text: str
    """the whole file, changed"""


@dataclass(frozen=True)
class _Place:
    source: str
    start: tuple[int, int]
    changes: tuple[tuple[str, int], ...]
    """operator, and which of its occurrences in the file"""
    name: str
    """text of its line, column, and which of the equal ones"""


def sample(n: int) -> list[Mutant]:
    """The first n. Raises ModuleNotFoundError without cosmic-ray."""
    found: list[Mutant] = []
    for place in sorted(_places(), key=lambda place: _digest(place.name)):
        if len(found) == n:
            break
        if mutant := _mutant(place):
            found.append(mutant)
    return found


def _places() -> Iterator[_Place]:
    from cosmic_ray.ast import ast_nodes, get_ast

    operators = {name: _operator(name) for name in OPERATORS}
    for source in (source for part in PARTS for source in sources(part)):
        text = (REPO / source).read_text("utf-8")
        lines, nodes = text.splitlines(), list(ast_nodes(get_ast(text)))
        changes: dict[tuple[tuple[int, int], tuple[int, int]], list[tuple[str, int]]] = {}
        for name, operator in operators.items():
            spans = (span for node in nodes for span in operator.mutation_positions(node))
            for occurrence, span in enumerate(spans):
                changes.setdefault(span, []).append((name, occurrence))
        equal: Counter[str] = Counter()
        for (start, end), of_place in sorted(changes.items()):
            line = lines[start[0] - 1]
            column = start[1] - (len(line) - len(line.lstrip()))
            name = f"{source} {line.strip()} {column} {end[0] - start[0]} {end[1] - start[1]}"
            equal[name] += 1
            yield _Place(source, start, tuple(of_place), f"{name} {equal[name]}")


def _operator(name: str) -> Any:
    from cosmic_ray.operators.provider import OperatorProvider

    return OperatorProvider()[name]()


def _mutant(place: _Place) -> Mutant | None:
    """The first change of a place, in an order of its own, that does something; None if none does."""
    from cosmic_ray.mutating import mutate_code

    text = (REPO / place.source).read_text("utf-8")
    for operator, occurrence in sorted(place.changes, key=lambda change: _digest(f"{place.name} {change[0]}")):
        changed = mutate_code(text, _operator(operator), occurrence)
        if changed is not None and does_something(text, changed):
            before, after = lines_that_differ(text, changed)
            key = hashlib.sha256(f"{place.name} {after}".encode()).hexdigest()[:8]
            return Mutant(key, place.source, place.start[0], operator, before, after, changed)
    return None


def _digest(text: str) -> str:
    return hashlib.sha256(f"{SEED} {text}".encode()).hexdigest()


def does_something(before: str, after: str) -> bool:
    """Whether the second is Python, and differs in what runs."""
    try:
        return _that_runs(before) != _that_runs(after)
    except SyntaxError:
        return False


def _that_runs(text: str) -> str:
    return ast.dump(_Stripped().visit(ast.parse(text)))


class _Stripped(ast.NodeTransformer):
    """Without annotations, docstrings, what is said when something is raised, and how arguments may be passed."""

    def visit_arguments(self, node: ast.arguments) -> ast.AST:
        node.args = [*node.posonlyargs, *node.args, *node.kwonlyargs]
        node.defaults = [*node.defaults, *(value for value in node.kw_defaults if value is not None)]
        node.posonlyargs, node.kwonlyargs, node.kw_defaults = [], [], []
        return self.generic_visit(node)

    def visit_arg(self, node: ast.arg) -> ast.AST:
        node.annotation = None
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        node.decorator_list = [name for name in node.decorator_list if ast.unparse(name) != "abstractmethod"]
        return self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        node.annotation = ast.Constant(None)
        return self.generic_visit(node)

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        return None if isinstance(node.value, ast.Constant) else self.generic_visit(node)

    def visit_Raise(self, node: ast.Raise) -> ast.AST:
        if isinstance(node.exc, ast.Call):
            node.exc.args = []
        return self.generic_visit(node)


def lines_that_differ(before: str, after: str) -> tuple[str, str]:
    """The lines of each that are not in the other, from the first to the last, stripped."""
    old, new = before.splitlines(), after.splitlines()
    first = next((i for i, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), min(len(old), len(new)))
    last = next(
        (i for i, (a, b) in enumerate(zip(old[first:][::-1], new[first:][::-1], strict=False)) if a != b),
        min(len(old), len(new)) - first,
    )
    return _joined(old[first : len(old) - last]), _joined(new[first : len(new) - last])


def _joined(lines: Sequence[str]) -> str:
    return "\n".join(line.strip() for line in lines).strip()
