"""Which runs of an experiment a command completes, and what follows when all are done."""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from hvae.errors import ConfigError
from hvae.lab import completion, experiment, sweep
from hvae.lab.cli import main, making
from hvae.lab.config import RunConfig
from hvae.lab.experiment import share
from hvae.lab.runs.clock import cost
from hvae.lab.runs.run import Failure, Run

CONFIGS = {f"run {n}": RunConfig.from_dict({"training": {"n_steps": 100 * n}}) for n in range(1, 8)}


@pytest.mark.parametrize("n", [1, 2, 3, 7, 9])
def test_the_shares_are_a_partition_of_about_equal_cost(n: int) -> None:
    shares = [share(CONFIGS, f"{k}/{n}") for k in range(1, n + 1)]
    assert sorted(label for labels in shares for label in labels) == sorted(CONFIGS)
    costs = [sum(cost(CONFIGS[label]) for label in labels) for labels in shares]
    assert max(costs) - min(costs) <= max(map(cost, CONFIGS.values()))
    assert all(labels == sorted(labels) for labels in shares), "in the order of the experiment"


def test_a_label_is_itself_and_nothing_is_all() -> None:
    assert share(CONFIGS, "run 3") == ["run 3"] and share(CONFIGS, "run") == [] and share(CONFIGS, "") == list(CONFIGS)


@pytest.mark.parametrize("only", ["0/2", "3/2", "1/0", "/", "1/", "a/b", "-1/2", "1/2/3", "1.5/2", "1/9999999", "²/3"])
def test_a_share_that_is_none_is_refused(only: str) -> None:
    with pytest.raises(ConfigError, match="give the label of a run, or k/n"):
        share(CONFIGS, only)


@pytest.fixture
def trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """An experiment whose runs are marked done at once; what happens is listed."""
    happened: list[str] = []

    def measure(preset: str, paths: Any, data_dir: Any, say: Any, device: str) -> dict[str, Any]:
        happened.append("asked")
        return {"part": lambda: happened.append("measured") or {"x": np.ones(2)}}

    found = SimpleNamespace(
        PRESETS=("demo",), configs=lambda preset: CONFIGS, measure=measure, __file__=__file__, __name__=__name__
    )

    def complete(runs: Sequence[Run], **options: Any) -> list[Failure]:
        for run in runs:
            if not options["settled"](run):
                happened.append(run.label)
                run.mark_done()
        return []

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(experiment, "find", lambda name: found)
    monkeypatch.setattr(experiment, "digest_of", lambda module: "digest")
    monkeypatch.setattr(completion, "check", lambda *arguments: [])
    monkeypatch.setattr(completion, "said_before", lambda *arguments: [])
    monkeypatch.setattr(sweep, "sweep", complete)
    monkeypatch.setattr(making, "show", lambda *arguments: happened.append("shown"))
    return happened


def test_the_last_share_measures_and_reports(trial: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    command = ["run", "trial", "--only"]
    assert main([*command, "run 2"]) == 0 and trial == ["run 2"]
    assert "6 runs of trial are left to others" in capsys.readouterr().err
    assert main([*command, "1/2"]) == 0 and set(trial) == {f"run {n}" for n in (1, 3, 5, 7, 2)}
    trial.clear()
    assert main([*command, "2/2"]) == 0
    assert sorted(trial) == ["asked", "measured", "run 4", "run 6", "shown"]
    trial.clear()
    assert main([*command, "1/2"]) == 0 and trial == ["asked", "shown"], "each once"
    assert "all 4 runs are done already" in capsys.readouterr().err


def test_a_share_without_runs_is_done(trial: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "trial", "--only", "9/9"]) == 0 and trial == []
    assert "no run falls to --only 9/9" in capsys.readouterr().err


@pytest.mark.parametrize(("only", "words"), [("run", "'run' of --only; close are 'run"), ("8/7", "k from 1 to n")])
def test_what_only_cannot_name_is_refused(
    only: str, words: str, trial: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", "trial", "--only", only]) == 2 and trial == []
    assert words in capsys.readouterr().err
