"""A core install: what it does without the extras, what it says where one is asked for, and what is declared."""

import ast
import importlib.metadata
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from hvae import extras
from hvae.errors import ConfigError, MissingExtraError

REPO = Path(__file__).parents[1]
PROJECT = tomllib.loads((REPO / "pyproject.toml").read_text(encoding="utf-8"))["project"]

BARE = """
import contextlib, io, json, sys
from importlib.machinery import PathFinder

ABSENT, find = json.loads(sys.argv[1]), PathFinder.find_spec
PathFinder.find_spec = lambda name, *where: None if name.partition(".")[0] in ABSENT else find(name, *where)
from hvae.lab.cli import main

told = []
for arguments in json.loads(sys.argv[2]):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(arguments)
    told.append((code, out.getvalue(), err.getvalue()))
print(json.dumps(told))
"""

TINY = [
    "--model.latents=[3, 2]", "--model.hidden=[[8]]", "--training.seeds=[0, 1]", "--training.n_steps=4",
    "--training.batch_size=16", "--evaluation.n_images=16", "--evaluation.max_paths=4", "--evaluation.n_likelihood=8",
    "--evaluation.n_samples=20",
]  # fmt: skip
MINE = ["train", "--data.name=mine.npz", *TINY]
ASKED: dict[str, tuple[list[str], str]] = {
    "digits": (["train", *TINY], "The digits data need scikit-learn; pip install 'hvae[lab]'."),
    "flows": ([*MINE, "--model.families=[maf]"], "Flow layers need zuko; pip install 'hvae[lab]'."),
    "report": (["report", "runs"], "A report needs jinja2; pip install 'hvae[report]'."),
    "download": (["data", "get", "mnist-grey"], "Downloads need pooch; pip install 'hvae[lab]'."),
    "experiment": (["run", "depth"], "The digits data need scikit-learn; pip install 'hvae[lab]'."),
    "scheduler": (
        ["run", "depth", "--scheduler=tcp://head:8786"],
        "A scheduler needs distributed; pip install 'hvae[cluster]'.",
    ),
    "classifier": (
        ["run", "objectives"],
        "The classifier behind the Fréchet distances needs scikit-learn; pip install 'hvae[lab]'.",
    ),
}


@pytest.fixture(scope="module")
def core(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Name of a command -> (exit code, stdout, stderr), each run by one process in which no extra can be imported."""
    home = tmp_path_factory.mktemp("core")
    np.savez(home / "mine.npz", x=np.random.default_rng(0).integers(0, 2, (120, 4, 4)).astype(np.float32))
    commands = {"train": MINE} | {name: arguments for name, (arguments, _) in ASKED.items()}
    code = f"import sys; sys.path.insert(0, {str(REPO)!r})\n{BARE}"
    outcome = subprocess.run(
        [sys.executable, "-c", code, json.dumps(list(extras.EXTRAS)), json.dumps(list(commands.values()))],
        cwd=home, env={"HVAE_DATA": str(home / "data"), "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert outcome.returncode == 0, outcome.stderr
    return {"home": home} | dict(zip(commands, json.loads(outcome.stdout), strict=True))


def test_a_core_install_trains_measures_and_prints_the_table(core: dict[str, Any]) -> None:
    code, out, err = core["train"]
    assert code == 0, err
    assert re.search(r"z1", out) and "log p(x)" in out and "Report:" not in out
    assert err.count("Training goes on without a board, which needs tensorboard; pip install 'hvae[lab]'.") == 1
    assert err.count("A report needs jinja2; pip install 'hvae[report]'.") == 1
    (run,) = (core["home"] / "runs" / "own").iterdir()
    assert (run / "DONE").exists() and not (run / "tensorboard").exists() and not (run / "report.html").exists()


@pytest.mark.parametrize("name", ASKED)
def test_what_is_missing_is_one_sentence_and_nothing_written(name: str, core: dict[str, Any]) -> None:
    code, out, err = core[name]
    assert (code, out, err) == (2, "", f"hvae: {ASKED[name][1]}\n")
    assert len(list((core["home"] / "runs").glob("*/*"))) == 1, "more than the one that was trained"
    assert not (core["home"] / "data").exists()


def test_from_python_it_is_an_error_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from hvae.families import Flow

    monkeypatch.setitem(sys.modules, "zuko", None)
    with pytest.raises(MissingExtraError, match=r"^Flow layers need zuko; pip install 'hvae\[lab\]'\.$") as refused:
        Flow(3, "maf", 4, 2, source=torch.Generator())
    assert isinstance(refused.value, ConfigError) and isinstance(refused.value, ImportError)


@pytest.mark.parametrize(
    ("command", "heavy"),
    [
        (["--help"], "torch scipy matplotlib jinja2 sklearn pooch zuko tensorboard analysis"),
        (["list", "--runs-dir", "nowhere"], "torch scipy matplotlib jinja2 sklearn pooch zuko tensorboard"),
    ],
)
def test_a_quick_command_loads_nothing_heavy(command: list[str], heavy: str) -> None:
    code = (
        "import sys\nfrom hvae.lab.cli import main\n"
        f"try:\n    main({command})\nexcept SystemExit:\n    pass\n"
        f"sys.exit(' '.join(set({heavy.split()}) & set(sys.modules)) or 0)"
    )
    outcome = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True, check=False)
    assert outcome.returncode == 0, outcome.stderr


# -- what is declared ----------------------------------------------------------------------------------


def _name(requirement: str) -> str:
    """The package of a requirement, as `pooch` of "pooch>=1.9"."""
    return re.split(r"[^A-Za-z0-9._-]", requirement)[0].lower().replace("_", "-")


CORE = {_name(requirement) for requirement in PROJECT["dependencies"]}
EXTRAS = {
    extra: {_name(requirement) for requirement in requirements}
    for extra, requirements in PROJECT["optional-dependencies"].items()
}
BENCH = EXTRAS["bench"] - {"hvae"}
"""what hvae is timed beside (`make bench`), in an environment of its own"""
READ = EXTRAS["pyro"] | EXTRAS["pythae"] | EXTRAS["scvi"] | EXTRAS["cluster"]
"""libraries whose models are read, and Dask; their tests have an environment of their own (`make test-adapters`)"""


def _imports(node: ast.AST, lazy: bool = False) -> Iterator[tuple[str, bool]]:
    """(package, whether it is imported in a function) of every absolute import."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from ((alias.name.split(".")[0], lazy) for alias in child.names)
        elif isinstance(child, ast.ImportFrom) and child.module and not child.level:
            yield child.module.split(".")[0], lazy
        else:
            yield from _imports(child, lazy or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef))


def test_every_import_is_declared_and_the_core_imports_no_extra() -> None:
    known = importlib.metadata.packages_distributions()
    own = {"hvae", "analysis", "experiments"}
    optional = EXTRAS["lab"] | EXTRAS["report"] | EXTRAS["frames"] | READ | BENCH
    seen: set[str] = set()
    for package in sorted(own):
        for file in (REPO / package).rglob("*.py"):
            for module, lazy in _imports(ast.parse(file.read_text(encoding="utf-8"))):
                if module in own or module in sys.stdlib_module_names:
                    continue
                # libraries whose models are read are not installed here
                needed = {_name(name) for name in known.get(module, [extras.EXTRAS.get(module, (module, ""))[0]])}
                assert needed & (CORE | optional if lazy else CORE), f"{file} imports {module}"
                seen |= needed
    assert (CORE | optional) - seen == {"tensorboard"}, "declared, and imported nowhere (tensorboard: by torch)"


def test_what_an_extra_brings_is_what_is_said() -> None:
    for package, extra in extras.EXTRAS.values():
        assert package in EXTRAS[extra]
    packages = {package for package, _ in extras.EXTRAS.values()}
    assert EXTRAS["lab"] | EXTRAS["frames"] | {"jinja2"} | READ == packages


def test_make_installs_core_lab_report_test_and_check() -> None:
    """requirements.txt pins each by an exact version that pyproject.toml admits."""
    lines = (REPO / "requirements.txt").read_text(encoding="utf-8").splitlines()
    pinned = {_name(line) for line in lines if "==" in line}
    declared = CORE.union(*(EXTRAS[extra] for extra in ("lab", "report", "frames", "test", "check")))
    assert declared - pinned == {"hvae"}


def test_the_citation_names_this_version() -> None:
    cited = yaml.safe_load((REPO / "CITATION.cff").read_text(encoding="utf-8"))
    for key in ("version", "license"):
        assert cited[key] == PROJECT[key]
    assert [author["name"] for author in cited["authors"]] == [author["name"] for author in PROJECT["authors"]]
    assert {"cff-version", "message", "title"} <= cited.keys()
