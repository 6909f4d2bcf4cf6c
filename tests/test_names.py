"""A project with folders `analysis` and `experiments` of its own: every command and the README's example work there."""

import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from hvae.experiments.depth import configs
from hvae.lab.cli.commands import COMMANDS
from tests.analysis.fabricate import fabricate

REPO = Path(__file__).parents[1]
TINY = [
    "--data.name=synthetic-binary-2", "--data.n_train=64", "--model.latents=[2]", "--model.hidden=[[4]]",
    "--training.seeds=[0]", "--training.n_steps=3", "--training.batch_size=16", "--evaluation.n_images=8",
    "--evaluation.max_paths=4", "--evaluation.n_likelihood=4", "--evaluation.n_samples=8",
]  # fmt: skip


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose packages raise when they are imported, with one fabricated run in it."""
    home = tmp_path_factory.mktemp("project")
    for package in ("analysis", "experiments"):
        (home / package).mkdir()
        (home / package / "__init__.py").write_text(f"raise RuntimeError('the {package} of the project')\n")
    fabricate(home / "runs", {"depth-1": configs("demo")["depth-1"]}, n_replicas=2)
    return home


def python(*arguments: str, project: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(REPO), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *arguments], cwd=project, env=environment, capture_output=True, text=True, check=False
    )


def test_the_projects_packages_stand_first_and_raise(project: Path) -> None:
    """Else nothing here would be proved."""
    for package in ("analysis", "experiments"):
        outcome = python("-c", f"import {package}", project=project)
        assert outcome.returncode == 1 and f"RuntimeError: the {package} of the project" in outcome.stderr


def test_list_names_every_experiment(project: Path) -> None:
    outcome = python("-m", "hvae", "list", project=project)
    assert outcome.returncode == 0, outcome.stderr
    assert "conjecture" in outcome.stdout and "burda-tables" in outcome.stdout and "depth-1" in outcome.stdout


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_of_every_command(command: str, project: Path) -> None:
    outcome = python("-m", "hvae", *command.split(), "--help", project=project)
    assert outcome.returncode == 0 and outcome.stdout.startswith("usage: hvae"), outcome.stderr


def test_a_report_of_an_experiments_run(project: Path) -> None:
    outcome = python("-m", "hvae", "report", "runs/depth", project=project)
    assert outcome.returncode == 0, outcome.stderr
    assert "depth-1" in outcome.stdout and (project / "runs" / "depth" / "report.html").is_file()


def test_an_experiment_as_a_module(project: Path) -> None:
    outcome = python("-m", "hvae.experiments.depth", "--preset", "nonsense", project=project)
    assert outcome.returncode == 2 and "depth has no preset 'nonsense'" in outcome.stderr


@pytest.mark.slow
def test_training(project: Path) -> None:
    outcome = python("-m", "hvae", "train", *TINY, project=project)
    assert outcome.returncode == 0, outcome.stderr
    assert "z1" in outcome.stdout and "Report: " in outcome.stdout


@pytest.mark.slow
def test_the_readmes_example(project: Path) -> None:
    """With fewer steps: the number of steps is the only thing that is changed in it."""
    (example,) = re.findall(
        r"```python\n(.*?)```", (REPO / "docs" / "laboratory.md").read_text(encoding="utf-8"), flags=re.DOTALL
    )
    shorter, n_found = re.subn(r"n_steps=[\d_]+", "n_steps=5", example)
    assert n_found == 1
    (project / "example.py").write_text(textwrap.dedent(shorter))
    outcome = python("example.py", project=project)
    assert outcome.returncode == 0, outcome.stderr
    assert all(layer in outcome.stdout for layer in ("z1", "z2", "z3")) and (project / "runs" / "own").is_dir()
