"""What is said of all runs of a sweep together."""

import re
import time
from pathlib import Path

from hvae.lab.config import RunConfig
from hvae.lab.runs.run import Run
from hvae.lab.sweep.progress import Progress, Work


def test_steps_and_runs_are_counted_and_the_time_left_is_guessed(tmp_path: Path) -> None:
    config = RunConfig.from_dict({"training": {"n_steps": 100, "log_every_steps": 10}})
    done, resumed, fresh = runs = [Run.create_or_open(tmp_path, "trial", label, config) for label in "abc"]
    resumed.append_metrics([{"step": 40}])
    progress = Progress(runs, [resumed, fresh], n_workers=1)
    work = Work(resumed, time.monotonic())
    assert progress.status([work], 1) == "[1/3] 140 of 300 steps, 1 running", "nothing tells the time left yet"
    progress.begun -= 10
    resumed.append_metrics([{"step": 60}])  # 20 steps in 10 seconds, 140 are left
    assert re.fullmatch(r"\[1/3\] 160 of 300 steps, 1 running, about (70|71) s left", progress.status([work], 1))
    progress.ended(resumed, 30.0)
    work = Work(fresh, time.monotonic() - 10)
    fresh.append_metrics([{"step": 10}])
    assert re.fullmatch(r"\[2/3\] 210 of 300 steps, 1 running, about (20|19) s left", progress.status([work], 1))
    assert progress.line("b", "done in 30 s", [work]).startswith("[2/3] b: done in 30 s (1 to go, about ")
    (fresh.path / "metrics.jsonl").write_text("damaged\n")
    assert "[2/3] 200 of 300 steps" in progress.status([work], 1)
    progress.ended(fresh, None)
    assert progress.line("c", "done by another process", []) == "[3/3] c: done by another process"
    assert done.last_step() == 0
