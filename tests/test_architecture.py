"""The house rules, read from the source with `ast`. Every rule shows that it sees a planted violation."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

REPO = Path(__file__).parents[1]

INSTRUMENT = (
    "errors outside extras vocabulary certain diagnosis schedules suitability grammar shapes numerics rng families "
    "nets network posterior evidence topdown gradients objectives exact likelihood diagnostics data foreign fitting "
    "measuring"
).split()
"""the rooms of hvae that measure: a file imports only from rooms that stand before its own (no circles within)"""

LABORATORY = [
    f"lab.{room}"
    for room in (
        "strict config interrupts runs endings assembly training evaluation rehearsal completion sweep beside "
        "experiment lists options cli"
    ).split()
]
"""the rooms of hvae.lab, which stand below the instrument and see configurations and runs"""

ORDER = [*INSTRUMENT, *LABORATORY, "__main__"]

LAZY = {("lab.cli", "hvae.analysis"), ("diagnosis", "hvae.analysis")}
"""the two exemptions: the console command and a diagnosis have what stands below hvae draw them, inside a function"""

BELOW = ("hvae.analysis", "hvae.experiments", "analysis", "experiments", "tests")
"""what stands below hvae; `analysis` and `experiments` are folders beside it, and packages inside it only"""

BY_NAME = ("lab.experiment", "__init__")
"""what imports by a string: experiments, which stand below hvae too, are found by name; the face of hvae is lazy"""

STRANGERS = {("nets", "families"), ("nets", "network"), ("families", "nets")}
FOR_ANALYSIS = {
    *("errors", "outside", "extras", "vocabulary", "certain", "diagnosis", "schedules"),
    *("lab.strict", "lab.config", "lab.runs"),
}
FOR_EXPERIMENTS = {
    *("errors", "outside", "vocabulary", "diagnosis", "schedules"),
    *("lab.config", "lab.runs", "lab.cli", "lab.experiment"),
}
WITHOUT_TORCH = ("__init__", "__main__", "claims", "curves", "tables", "figures", "section")
"""files of an experiment's folder, by their names up to an underscore, that a listing or a report reads"""


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
        """Of hvae."""
        return room_of(".".join(self.parts)) or ""

    @property
    def lies_in_a_folder(self) -> bool:
        """Whether its room is a folder of several files."""
        return self.package or len(self.parts) > (3 if self.room.startswith("lab.") else 2)

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


@cache
def sources(root: Path, package: str) -> list[Source]:
    """The parsed files of a folder; what is linked into it from outside is not of it."""
    found = []
    top = "hvae" if package == "hvae" else f"hvae.{package}"
    for file in sorted((root / package).rglob("*.py")):
        below = file.relative_to(root / package).with_suffix("").parts
        if package == "hvae" and below[0] in ("analysis", "experiments"):
            continue
        parts = (*top.split("."), *below)
        package_file = parts[-1] == "__init__"
        tree = ast.parse(file.read_text(encoding="utf-8"), str(file))
        found.append(Source(parts[:-1] if package_file else parts, package_file, tree))
    return found


def room_of(name: str) -> str | None:
    """The room of hvae that a full name lies in; None outside hvae, and below it."""
    parts = name.split(".")
    if parts[0] != "hvae" or name.startswith(("hvae.analysis", "hvae.experiments")):
        return None
    if parts[1:2] == ["lab"]:
        return ".".join(parts[1:3])
    return parts[1] if len(parts) > 1 else "__init__"


def import_order(root: Path) -> Iterator[str]:
    for source in sources(root, "hvae"):
        if len(source.parts) == 1 or source.parts == ("hvae", "lab"):
            continue
        if source.room not in ORDER:
            yield f"{source} has no place in the order"
            continue
        for found in source.imports():
            room = room_of(found.name)
            below = next((top for top in BELOW if f"{found.name}.".startswith(f"{top}.")), "")
            if below and not exempt(source, found):
                yield f"{source}:{found.line} imports {found.name}, which stands below hvae"
            if room is None or (room == source.room and source.lies_in_a_folder):
                continue
            if room not in ORDER or ORDER.index(room) >= ORDER.index(source.room):
                yield f"{source}:{found.line} imports {found.name}, which does not stand above it"
            if (source.room, room) in STRANGERS:
                yield f"{source}:{found.line} imports {found.name}, which is a stranger to it"


def exempt(source: Source, found: Import) -> bool:
    """Whether it is an import of `LAZY`."""
    return found.lazy and any(source.room == room and f"{found.name}.".startswith(f"{below}.") for room, below in LAZY)


def circles(root: Path) -> Iterator[str]:
    """Files that import each other, also within a room."""
    folders = ("hvae", "analysis", "experiments")
    files = {str(source): source for package in folders for source in sources(root, package)}
    edges: dict[str, set[str]] = {}
    for name, source in files.items():
        found = [i for i in source.imports() if not exempt(source, i)]
        targets = {i.name for i in found} | {i.name.rpartition(".")[0] for i in found}
        edges[name] = {target for target in targets if target in files and target != name and not name == "hvae"}
        # a package's own __init__ gathers its files; a file that names only the package is the circle
        edges[name] -= {target for target in edges[name] if target in ("hvae", "hvae.lab", "hvae.analysis")}
        # an experiment's folder names itself to import a file of its own
        edges[name] -= {target for target in edges[name] if name.rpartition(".")[0] == target and "experiments" in name}
        edges[name] -= {target for target in edges[name] if target.rpartition(".")[0] == name and "experiments" in name}
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
    """The instrument sees no configuration and no file of a run: nothing of the laboratory."""
    for source in sources(root, "hvae"):
        if source.room in INSTRUMENT:
            for found in source.imports():
                if f"{found.name}.".startswith("hvae.lab."):
                    yield f"{source}:{found.line} sees the laboratory: {found.name}"


def prints(root: Path) -> Iterator[str]:
    for source in sources(root, "hvae"):
        if source.room != "lab.cli":
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
                if package == "hvae" and source.room not in BY_NAME and name in ("import_module", "__import__"):
                    yield f"{source} imports by a string"


def below(root: Path) -> Iterator[str]:
    """analysis reads configurations and files, never torch and no experiment.

    In an experiment only the measurement loads torch: what a listing or a report reads imports it inside a function.
    """
    for source in sources(root, "analysis"):
        for found in source.imports():
            room = room_of(found.name)
            if found.name.split(".")[0] == "torch" or (room is not None and room not in FOR_ANALYSIS):
                yield f"{source}:{found.line} imports {found.name}, which is not for analysis"
            if f"{found.name}.".startswith("hvae.experiments."):
                yield f"{source}:{found.line} imports {found.name}, which is not for analysis"
    for source in sources(root, "experiments"):
        if not read_without_torch(source):
            continue
        for found in source.imports():
            room = room_of(found.name)
            if found.lazy and room is not None:
                continue
            if found.name.split(".")[0] == "torch" or (room is not None and room not in FOR_EXPERIMENTS):
                yield f"{source}:{found.line} imports {found.name}, which is not for what a listing reads"


def read_without_torch(source: Source) -> bool:
    """Whether a listing or a report reads the file: the file of an experiment, and those of `WITHOUT_TORCH`."""
    return len(source.parts) == 3 or source.package or source.parts[-1].partition("_")[0] in WITHOUT_TORCH


def names(root: Path) -> Iterator[str]:
    """`analysis` and `experiments` are the names of a user's own folders: here they are packages of hvae."""
    for package in ("hvae", "analysis", "experiments"):
        for source in sources(root, package):
            for found in source.imports():
                if found.name.split(".")[0] in ("analysis", "experiments"):
                    yield f"{source}:{found.line} imports {found.name}; write hvae.{found.name}"


RULES = [import_order, circles, configuration, prints, escapes, below, names]


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
    (import_order, "hvae/lab/config/run.py", "from ..assembly import build_hvae"),
    (import_order, "hvae/data/names.py", "from hvae.lab.training import loop"),
    (import_order, "hvae/diagnostics/units.py", "import hvae.lab.training"),
    (import_order, "hvae/nets.py", "from hvae.families import Family"),
    (import_order, "hvae/lab/evaluation.py", "def f():\n    from hvae.analysis.load import load_runs"),
    (import_order, "hvae/lab/evaluation.py", "def f():\n    from analysis.load import load_runs"),
    (import_order, "hvae/lab/cli.py", "from hvae.analysis.report import verdict_text"),
    (import_order, "hvae/diagnosis/table.py", "from hvae.analysis.report import verdict_text"),
    (import_order, "hvae/diagnosis/table.py", "def f():\n    import hvae.measuring"),
    (import_order, "hvae/measuring/whole.py", "def f():\n    from hvae.analysis.load import load_runs"),
    (circles, "hvae/diagnosis/table.py", "from hvae.diagnosis.layer import Layer"),
    (import_order, "hvae/lab/training.py", "import hvae.experiments.depth"),
    (import_order, "hvae/lab/cli.py", "def f():\n    import hvae.experiments.depth"),
    (import_order, "hvae/lab/training.py", "import tests.statistics"),
    (import_order, "hvae/attic.py", "x = 1"),
    (import_order, "hvae/lab/attic.py", "x = 1"),
    (circles, "hvae/data/files.py", "from hvae.data.names import CATALOGUE"),
    (circles, "hvae/data/files.py", "from hvae.data import load"),
    (circles, "experiments/depth.py", "from hvae.experiments import other"),
    (configuration, "hvae/nets.py", "from hvae.lab.config import ModelConfig"),
    (configuration, "hvae/nets.py", "from hvae.lab import config"),
    (configuration, "hvae/likelihood/estimate.py", "import hvae.lab.runs"),
    (configuration, "hvae/data/names.py", "def f():\n    from hvae.lab.config import DataConfig"),
    (prints, "hvae/lab/training.py", "def f():\n    print('step')"),
    (prints, "hvae/nets.py", "say = print"),
    (escapes, "hvae/nets.py", "from typing import TYPE_CHECKING"),
    (escapes, "analysis/load.py", "import typing\nif typing.TYPE_CHECKING:\n    pass"),
    (escapes, "hvae/lab/cli.py", "import importlib\nx = importlib.import_module('hvae.experiments.depth')"),
    (escapes, "hvae/nets.py", "import importlib\nx = importlib.import_module('hvae.lab.training')"),
    (below, "analysis/load.py", "import torch"),
    (below, "analysis/load.py", "def f():\n    from torch import nn"),
    (below, "analysis/load.py", "from hvae.lab.training import train"),
    (below, "analysis/load.py", "from hvae.experiments import depth"),
    (below, "experiments/depth.py", "from hvae.lab.assembly import build_hvae"),
    (below, "experiments/other/__init__.py", "import torch"),
    (below, "experiments/other/claims_of_one.py", "from hvae.network import Trace"),
    (names, "experiments/depth.py", "from analysis.claims import Claim"),
    (names, "hvae/lab/cli.py", "def f():\n    import experiments.depth"),
]


@pytest.mark.parametrize(
    ("rule", "file", "text"), PLANTED, ids=lambda value: getattr(value, "__name__", str(value))[:40]
)
def test_the_rule_sees_a_planted_violation(rule, file: str, text: str, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    sound = {
        "hvae/__init__.py": "",
        "hvae/errors.py": "",
        "hvae/lab/__init__.py": "",
        "hvae/lab/config/__init__.py": "from hvae.lab.config.run import RunConfig",
        "hvae/lab/config/run.py": "from hvae.errors import ConfigError",
        "hvae/lab/runs.py": "from hvae.lab.config import RunConfig",
        "hvae/lab/cli.py": "import hvae.lab.runs\ndef f():\n    from hvae.analysis.load import x\n    print(x)",
        "hvae/nets.py": "from torch import nn\nfrom hvae.errors import ConfigError",
        "hvae/data/__init__.py": "from hvae.data.names import CATALOGUE",
        "hvae/data/names.py": "from hvae.data.files import DataFile\nfrom hvae.errors import ConfigError",
        "hvae/data/files.py": "",
        "hvae/diagnosis/__init__.py": "",
        "hvae/diagnosis/layer.py": "from hvae.diagnosis.table import x",
        "hvae/diagnosis/table.py": "def f():\n    from hvae.analysis.load import x",
        "analysis/load.py": "from hvae.lab.runs import Run\nfrom hvae.diagnosis.layer import x\nimport numpy",
        "experiments/depth.py": "from hvae.lab.config import RunConfig\nfrom hvae.analysis.load import x",
        "experiments/other/__init__.py": "from hvae.experiments import depth\n"
        "def measure():\n    from hvae.experiments.other import rows",
        "experiments/other/rows.py": "import torch\nfrom hvae.network import Trace",
        "experiments/other/claims.py": "from hvae.analysis.load import x",
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
    sources.cache_clear()
    assert list(rule(tmp_path)) != []


@pytest.mark.parametrize(
    "statement",
    [
        "import hvae",
        "import hvae.lab.runs.run, hvae.lab.config, hvae.schedules",
        "import hvae.diagnosis",
        "import hvae.analysis.report",
        "import hvae.experiments.depth",
        "from hvae.lab.cli import main; main(['list', '--runs-dir', 'nowhere'])",
    ],
)
def test_what_needs_no_torch_loads_none(statement: str) -> None:
    """Seen from outside: a fresh interpreter, whatever the source says."""
    code = f"import sys\n{statement}\nsys.exit('torch was imported' if 'torch' in sys.modules else 0)"
    outcome = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True, check=False)
    assert outcome.returncode == 0, outcome.stderr
