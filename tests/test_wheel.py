"""What is installed: the wheel holds every module and what the modules read, none of the results, and works alone."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

REPO = Path(__file__).parents[1]
READ = {
    "hvae/py.typed", "hvae/__init__.pyi", "hvae/analysis/templates/report.html",
    "hvae/experiments/shared/costs/objectives.json", "hvae/experiments/shared/published/numbers.csv",
}  # fmt: skip
FOLDERS = ("hvae", "analysis", "experiments")

ALONE = """
import hvae, hvae.analysis.report, hvae.experiments.depth
from hvae.experiments.shared.published import numbers
from hvae.lab import experiment
from pathlib import Path
import sys
assert len(numbers()) > 100 and len(experiment.names()) > 10
for module in (hvae, hvae.analysis.report, hvae.experiments.depth):
    assert Path(module.__file__).is_relative_to(sys.argv[1]), module.__file__
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built of what git would give: links as links, results and all."""
    scratch = tmp_path_factory.mktemp("wheel")
    source = scratch / "source"
    for folder in FOLDERS:
        shutil.copytree(REPO / folder, source / folder, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPO / file, source)
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(scratch)]
    subprocess.run([*command, str(source)], check=True, capture_output=True)
    (built,) = scratch.glob("*.whl")
    return built


@pytest.mark.slow
def test_the_wheel_holds_what_is_imported_and_read_and_no_results(wheel: Path) -> None:
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert {name.partition("/")[0] for name in held} == {"hvae"}
    assert not any("results/" in name for name in held) and READ <= held
    for folder in FOLDERS:
        for file in (REPO / folder).rglob("*.py"):
            place = file.relative_to(REPO).as_posix()
            assert (place if folder == "hvae" else f"hvae/{place}") in held


@pytest.mark.slow
def test_installed_into_a_folder_it_works_from_there(wheel: Path, tmp_path: Path) -> None:
    target, home = tmp_path / "target", tmp_path / "home"
    home.mkdir()
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--target", str(target)]
    subprocess.run([*command, str(wheel)], check=True, capture_output=True)
    environment = os.environ | {"PYTHONPATH": str(target)}
    for arguments in (["-c", ALONE, str(target)], ["-m", "hvae", "list"], ["-m", "hvae", "data", "list"]):
        outcome = subprocess.run(
            [sys.executable, *arguments], cwd=home, env=environment, capture_output=True, text=True, check=False
        )
        assert outcome.returncode == 0, outcome.stderr
