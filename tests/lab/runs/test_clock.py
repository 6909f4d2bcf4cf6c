"""How long runs take, from what is known: runs done here first, else what was recorded elsewhere."""

import math
from pathlib import Path

import pytest

from hvae.lab.config import RunConfig, TrainingConfig
from hvae.lab.runs.clock import cost, duration, seconds_left
from hvae.lab.runs.run import Run

SHORT, LONG = (RunConfig(training=TrainingConfig(n_steps=n)) for n in (1000, 9000))


def timed(tmp_path: Path, config: RunConfig, *seconds: float | None) -> Run:
    run = Run.create_or_open(tmp_path, "own", "mine", config)
    run._write_provenance([{} if value is None else {"seconds": value} for value in seconds])
    return run


def test_time_left_follows_the_cost_of_what_is_left(tmp_path: Path) -> None:
    share = cost(LONG) / (cost(LONG) + cost(SHORT))
    assert seconds_left([], [SHORT, LONG], 7) == pytest.approx(420)
    untimed = timed(tmp_path, SHORT, 5, None)
    assert seconds_left([untimed], [LONG], 7) == pytest.approx(420 * share)
    assert math.isnan(seconds_left([untimed], [LONG], math.nan)) and seconds_left([], [], 7) == 0
    assert seconds_left([timed(tmp_path, SHORT, 5, 10)], [LONG], 7) == pytest.approx(15 * cost(LONG) / cost(SHORT))


def test_a_damaged_provenance_tells_nothing(tmp_path: Path) -> None:
    run = timed(tmp_path, SHORT, 5)
    for content in ("{", "[3]", '[{"seconds": "long"}]'):
        (run.path / "provenance.json").write_text(content)
        assert math.isnan(seconds_left([run], [LONG], math.nan))


def test_durations_in_words() -> None:
    assert [duration(s) for s in (7, 240, 36000)] == ["7 s", "4 min", "10.0 h"]
