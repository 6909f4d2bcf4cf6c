"""A run is found by its label; what is ambiguous or unknown gets one sentence with the candidates."""

import shutil
from pathlib import Path

import pytest

from hvae.errors import ConfigError
from hvae.lab.config import RunConfig, TrainingConfig
from hvae.lab.runs.labels import find_place
from hvae.lab.runs.run import Run


@pytest.fixture
def runs(tmp_path: Path) -> dict[str, Run]:
    return {
        label: Run.create_or_open(tmp_path / "runs", "own", label, RunConfig(training=TrainingConfig(n_steps=n)))
        for n, label in enumerate(("my stack", "my stack, warm", "another", "depth-5", "depth-10"), start=1)
    }


def test_a_label_a_path_and_a_folders_name_lead_to_the_run(runs: dict[str, Run], tmp_path: Path) -> None:
    root, run = tmp_path / "runs", runs["my stack"]
    for text in ("my stack", str(run.path), run.path.name, f"own/{run.path.name}"):
        assert find_place(text, root) == run.path
    assert find_place("own", root) == root / "own"
    best = run.path.rename(run.path.with_name("best"))
    assert find_place("my stack", root) == find_place("best", root) == best


def test_an_ambiguous_label_names_the_directories(runs: dict[str, Run], tmp_path: Path) -> None:
    run = runs["my stack"]
    shutil.copytree(run.path, run.path.with_name("best"))
    with pytest.raises(ConfigError, match=r"2 runs are called 'my stack'; give the directory of one: .*best or .*my-s"):
        find_place("my stack", tmp_path / "runs")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("stack", "did you mean 'my stack' or 'my stack, warm'?"),
        ("MY STACK, W", "did you mean 'my stack, warm'?"),
        ("anothr", "did you mean 'another'?"),
        ("zzz", "known are 'another', 'depth-5', 'depth-10' and 2 more; see `hvae list`."),
        ("../runs/zzz", "no run in"),
        ("", "no run in"),
    ],
)
def test_an_unknown_label_names_candidates(runs: dict[str, Run], tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ConfigError) as refused:
        find_place(text, tmp_path / "runs")
    assert words in str(refused.value) and "\n" not in str(refused.value)


def test_a_damaged_run_hides_no_label(runs: dict[str, Run], tmp_path: Path) -> None:
    (runs["another"].path / "config.json").write_text("{")
    assert find_place("my stack", tmp_path / "runs") == runs["my stack"].path


def test_without_runs_there_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="as there is no run; see `hvae list`"):
        find_place("mine", tmp_path / "runs")
