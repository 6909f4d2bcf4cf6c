"""The house rules, read from the source with `ast`. Every rule shows that it sees a planted violation."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

REPO = Path(__file__).parent.parent

ORDER = (
    "vocabulary schedules strict suitability config provenance files runs shapes numerics rng checkpoints families "
    "nets network posterior evidence gradients objectives reference likelihood diagnostics data build board health "
    "interrupts training evaluation completion sweep experiment options cli __main__"
).split()
"""the rooms of hvae: a file imports only from rooms that stand before its own (within a room: no circles)"""

LAZY = {("cli", "analysis")}
"""the one exemption: the console command has what stands below hvae draw the report, inside a function"""

BY_NAME = "experiment"
"""the one room that imports by a string: the experiments, which stand below hvae too"""

SEES_NO_CONFIGURATION = ORDER[ORDER.index("shapes") : ORDER.index("build")]
STRANGERS = {("nets", "families"), ("nets", "network"), ("families", "nets")}
FOR_ANALYSIS = {"vocabulary", "schedules", "strict", "config", "files", "runs"}
FOR_EXPERIMENTS = {"vocabulary", "schedules", "config", "runs", "cli"}


@dataclass(frozen=True)
class Import:
    """An import statement: the full name of what is imported, and whether it stands in a function."""

    name: str
    lazy: bool
    line: int


@dataclass(frozen=True)
class Source:
    """A parsed file and where it stands, as ("hvae", "data", "names")."""

    parts: tuple[str, ...]
    package: bool
    tree: ast.Module

    @property
    def room(self) -> str:
        return self.parts[1] if len(self.parts) > 1 else "__init__"

    def __str__(self) -> str:
        return ".".join(self.parts)

    def imports(self) -> Iterator[Import]:
        yield from self._imports(self.tree, lazy=False)

    def _imports(self, node: ast.AST, lazy: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                for alias in child.names:
                    yield Import(alias.name, lazy, child.lineno)
            elif isinstance(child, ast.ImportFrom):
                package = ".".join(self.parts[: len(self.parts) - child.level + self.package]) if child.level else ""
                module = ".".join(part for part in (package, child.module) if part)
                for alias in child.names:
                    yield Import(f"{module}.{alias.name}", lazy, child.lineno)
            else:
                inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
                yield from self._imports(child, lazy or inside)


def sources(root: Path, package: str) -> list[Source]:
    found = []
    for file in sorted((root / package).rglob("*.py")):
        parts = file.relative_to(root).with_suffix("").parts
        package_file = parts[-1] == "__init__"
        found.append(
            Source(
                parts[:-1] if package_file else parts,
                package_file,
                ast.parse(file.read_text(encoding="utf-8"), str(file)),
            )
        )
    return found


def room_of(name: str) -> str | None:
    """The room of hvae that a full name lies in; None outside hvae."""
    parts = name.split(".")
    return None if parts[0] != "hvae" else parts[1] if len(parts) > 1 else "__init__"


def import_order(root: Path) -> Iterator[str]:
    for source in sources(root, "hvae"):
        if len(source.parts) == 1:
            continue
        if source.room not in ORDER:
            yield f"{source} has no place in the order"
            continue
        for found in source.imports():
            top, room = found.name.split(".")[0], room_of(found.name)
            if top in ("analysis", "experiments", "tests") and not ((source.room, top) in LAZY and found.lazy):
                yield f"{source}:{found.line} imports {found.name}, which stands below hvae"
            if room is None or (room == source.room and (source.package or len(source.parts) > 2)):
                continue
            if room not in ORDER or ORDER.index(room) >= ORDER.index(source.room):
                yield f"{source}:{found.line} imports {found.name}, which does not stand above it"
            if (source.room, room) in STRANGERS:
                yield f"{source}:{found.line} imports {found.name}, which is a stranger to it"


def circles(root: Path) -> Iterator[str]:
    """Files that import each other, also within a room."""
    files = {str(source): source for package in ("hvae", "analysis") for source in sources(root, package)}
    edges: dict[str, set[str]] = {}
    for name, source in files.items():
        targets = {i.name for i in source.imports()} | {i.name.rpartition(".")[0] for i in source.imports()}
        edges[name] = {target for target in targets if target in files and target != name and not name == "hvae"}
        # a package's own __init__ gathers its files; a file that names only the package is the circle
        edges[name] -= {target for target in edges[name] if target in ("hvae", "analysis")}
    done: set[str] = set()

    def walk(name: str, path: tuple[str, ...]) -> Iterator[str]:
        if name in path:
            yield " -> ".join((*path[path.index(name) :], name))
        elif name not in done:
            for target in sorted(edges[name]):
                yield from walk(target, (*path, name))
            done.add(name)

    for name in sorted(edges):
        yield from walk(name, ())


def configuration(root: Path) -> Iterator[str]:
    for source in sources(root, "hvae"):
        if source.room in SEES_NO_CONFIGURATION:
            for found in source.imports():
                sees = found.name == "hvae.config" or found.name.startswith("hvae.config.")
                if sees and found.name != "hvae.config.ConfigError":
                    yield f"{source}:{found.line} sees the configuration: {found.name}"


def prints(root: Path) -> Iterator[str]:
    for source in sources(root, "hvae"):
        if source.room != "cli":
            for node in ast.walk(source.tree):
                if isinstance(node, ast.Name) and node.id == "print":
                    yield f"{source}:{node.lineno} prints"


def escapes(root: Path) -> Iterator[str]:
    """What would get round the order: TYPE_CHECKING, and modules imported by a string."""
    for package in ("hvae", "analysis", "experiments"):
        for source in sources(root, package):
            for node in ast.walk(source.tree):
                name = node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""
                name = node.name if isinstance(node, ast.alias) else name
                if name == "TYPE_CHECKING":
                    yield f"{source} uses TYPE_CHECKING"
                if package == "hvae" and source.room != BY_NAME and name in ("import_module", "__import__"):
                    yield f"{source} imports by a string"


def below(root: Path) -> Iterator[str]:
    """analysis and experiments read configurations and files; torch is not for them.

    What an experiment measures itself it imports inside a function, so that listing experiments stays quick.
    """
    for package, rooms in (("analysis", FOR_ANALYSIS), ("experiments", FOR_EXPERIMENTS)):
        for source in sources(root, package):
            for found in source.imports():
                top, room = found.name.split(".")[0], room_of(found.name)
                if package == "experiments" and room is not None and found.lazy:
                    continue
                if top == "torch" or (room is not None and room not in rooms):
                    yield f"{source}:{found.line} imports {found.name}, which is not for {package}"
                if package == "analysis" and top == "experiments":
                    yield f"{source}:{found.line} imports {found.name}, which is not for analysis"


RULES = [import_order, circles, configuration, prints, escapes, below]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_house_keeps_the_rule(rule) -> None:  # type: ignore[no-untyped-def]
    assert len(sources(REPO, "hvae")) > 15 and len(sources(REPO, "analysis")) > 5
    assert list(rule(REPO)) == []


PLANTED = [
    (import_order, "hvae/families.py", "from hvae.network import Trace"),
    (import_order, "hvae/families.py", "def f():\n    from hvae.network import Trace"),
    (import_order, "hvae/families.py", "from hvae import network"),
    (import_order, "hvae/families.py", "import hvae.network as n"),
    (import_order, "hvae/families.py", "from . import network"),
    (import_order, "hvae/data/names.py", "from ..build import build_hvae"),
    (import_order, "hvae/data/names.py", "from hvae.training import train"),
    (import_order, "hvae/diagnostics/units.py", "import hvae.training"),
    (import_order, "hvae/nets.py", "from hvae.families import Family"),
    (import_order, "hvae/evaluation.py", "def f():\n    from analysis.load import load_runs"),
    (import_order, "hvae/cli.py", "from analysis.report import verdict_text"),
    (import_order, "hvae/training.py", "import experiments.depth"),
    (import_order, "hvae/cli.py", "def f():\n    import experiments.depth"),
    (import_order, "hvae/training.py", "import tests.statistics"),
    (import_order, "hvae/attic.py", "x = 1"),
    (circles, "hvae/data/files.py", "from hvae.data.names import CATALOGUE"),
    (circles, "hvae/data/files.py", "from hvae.data import load"),
    (configuration, "hvae/nets.py", "from hvae.config import ModelConfig"),
    (configuration, "hvae/nets.py", "from hvae import config"),
    (configuration, "hvae/likelihood/estimate.py", "import hvae.config"),
    (configuration, "hvae/data/names.py", "def f():\n    from hvae.config import ConfigError, DataConfig"),
    (prints, "hvae/training.py", "def f():\n    print('step')"),
    (prints, "hvae/training.py", "say = print"),
    (escapes, "hvae/nets.py", "from typing import TYPE_CHECKING"),
    (escapes, "analysis/load.py", "import typing\nif typing.TYPE_CHECKING:\n    pass"),
    (escapes, "hvae/cli.py", "import importlib\nx = importlib.import_module('experiments.depth')"),
    (escapes, "hvae/build.py", "import importlib\nx = importlib.import_module('hvae.training')"),
    (below, "analysis/load.py", "import torch"),
    (below, "analysis/load.py", "def f():\n    from torch import nn"),
    (below, "analysis/load.py", "from hvae.training import train"),
    (below, "analysis/load.py", "from experiments import depth"),
    (below, "experiments/depth.py", "from hvae.build import build_hvae"),
]


@pytest.mark.parametrize(
    ("rule", "file", "text"), PLANTED, ids=lambda value: getattr(value, "__name__", str(value))[:40]
)
def test_the_rule_sees_a_planted_violation(rule, file: str, text: str, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    sound = {
        "hvae/__init__.py": "",
        "hvae/cli.py": "import hvae.runs\ndef f():\n    from analysis.load import x\n    print(x)",
        "hvae/nets.py": "from torch import nn\nfrom hvae.config import ConfigError",
        "hvae/data/__init__.py": "from hvae.data.names import CATALOGUE",
        "hvae/data/names.py": "from hvae.data.files import DataFile\nfrom hvae.config import ConfigError",
        "hvae/data/files.py": "",
        "analysis/load.py": "from hvae.runs import Run\nimport numpy",
        "experiments/depth.py": "from hvae.config import RunConfig\nfrom analysis.load import x",
    }
    for name, content in sound.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    for every in RULES:
        assert list(every(tmp_path)) == []
    path = tmp_path / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    assert list(rule(tmp_path)) != []


@pytest.mark.parametrize(
    "statement",
    [
        "import hvae",
        "import hvae.runs, hvae.config, hvae.schedules",
        "import analysis.report",
        "import experiments.depth",
        "from hvae.cli import main; main(['list', '--runs-dir', 'nowhere'])",
    ],
)
def test_what_needs_no_torch_loads_none(statement: str) -> None:
    """Seen from outside: a fresh interpreter, whatever the source says."""
    code = f"import sys\n{statement}\nsys.exit('torch was imported' if 'torch' in sys.modules else 0)"
    outcome = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True, check=False)
    assert outcome.returncode == 0, outcome.stderr
