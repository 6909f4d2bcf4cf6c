"""The benchmark: contenders that weigh draws differently are refused, the clock is known, the page is renewed."""

from typing import Any

import numpy as np
import pytest

from hvae.errors import ConfigError
from hvae.experiments.shared.costs.bench import clock, depth, page, plain, rows
from hvae.experiments.shared.costs.bench.__main__ import PAGE
from hvae.experiments.shared.costs.bench.clock import Contender, in_turn
from hvae.experiments.shared.costs.bench.rows import Row, check_agreement
from hvae.experiments.shared.costs.bench.stacks import ONE, Shape, Stack

SMALL = Shape("small", (3, 2), ((5,), (4, 4)))


@pytest.mark.parametrize("shape", [SMALL, ONE])
def test_plain_torch_weighs_draws_as_the_house_does(shape: Shape) -> None:
    assert "nats apart at most" in check_agreement(shape, {"plain": plain.log_weight})


def test_a_contender_of_another_model_is_refused() -> None:
    def other(stack: Stack, x: Any, noise: Any) -> Any:
        weight, bias = stack.decoder[0][-1]
        stack.decoder[0][-1] = weight, bias + np.float32(1e-3)  # a hundredth of a nat
        return plain.log_weight(stack, x, noise)

    with pytest.raises(ConfigError, match="other weighs draws of small"):
        check_agreement(SMALL, {"other": other})

    def nothing(stack: Stack, x: Any, noise: Any) -> Any:
        return plain.log_weight(stack, x, noise) * np.nan

    with pytest.raises(ConfigError, match="nan nats apart"):
        check_agreement(SMALL, {"nothing": nothing})


def test_time_is_that_of_a_unit_of_work_and_the_median_of_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    now, calls = [0.0], {"fast": 0, "slow": 0}
    monkeypatch.setattr(clock.time, "process_time", lambda: now[0])

    def call(name: str, seconds: float) -> None:
        calls[name] += 1
        now[0] += seconds * (50.0 if calls[name] in (1, 9) else 1.0)  # a first call, and a slow moment

    found = in_turn(
        {"fast": Contender(lambda: call("fast", 0.25), work=2.0), "slow": Contender(lambda: call("slow", 3.0))},
        rounds=9, seconds=1.0,
    )  # fmt: skip
    assert found == {"fast": 0.125, "slow": 3.0}
    assert calls == {"fast": 2 + 9 * 4, "slow": 2 + 9}


def test_every_step_and_bound_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    def called(found: dict[str, Contender]) -> dict[str, float]:
        for each in found.values():
            each.call()
        return dict.fromkeys(found, 1.0)

    monkeypatch.setattr(rows, "in_turn", called)
    monkeypatch.setattr(rows, "N_SAMPLES", 1000)
    absent = list(rows.PEERS)
    step = rows.training(SMALL, 5, 2, absent, (1, 2))
    assert set(step.times) == {"hvae, R = 1", "hvae, R = 2", "plain", "matrix products"}
    assert set(rows.bound(SMALL, absent).times) == {"hvae", "plain", "matrix products"}


def test_the_page_is_renewed_between_its_marks_and_a_missed_target_is_said() -> None:
    text = f"before\n{page.BEGIN}\nold\n{page.END}\nafter\n"
    found = [
        Row(page.TARGETS[0].row, "ms", {"hvae, R = 1": 2.0, "hvae, R = 16": 1.0, "plain": 1.9}),
        Row("quick diagnosis", "s", {"1 layers": 1.0, "2 layers": 2.0, "5 layers": 5.0, "10 layers": 20.0}),
    ]
    once = page.renewed(text, page.tables(found, ["Said."]))
    assert once == page.renewed(once, page.tables(found, ["Said."]))
    assert once.startswith("before\n") and once.endswith("after\n") and "old" not in once and "Said." in once
    missed, reached, *rest = once.partition("| target |")[2].splitlines()[2 : 2 + len(page.TARGETS)]
    assert "0.95 | **missed**" in missed and "1.90 | reached" in reached
    assert all("not measured" in line for line in rest) and "| hvae | 1 | 2 | 5 | 20 | 2.0 |" in once


def test_the_page_has_the_marks() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for mark in (page.BEGIN, page.END, *page.DEPTH):
        assert text.count(mark) == 1


def test_the_table_of_depths_has_marks_of_its_own() -> None:
    text = f"{page.BEGIN}\nold\n{page.END}\n{page.DEPTH[0]}\nold\n{page.DEPTH[1]}\nafter\n"
    found = {"hvae": {"12 layers": 1.0, "24 layers": 2.0, "48 layers": 8.0}}
    once = page.renewed(text, "Said.\n\n" + page.depth_table("step of a residual stack, ms", found), page.DEPTH)
    assert once.startswith(f"{page.BEGIN}\nold\n{page.END}\n") and once.endswith("after\n")
    assert "| hvae | 1 | 2 | 8 | 2.00 |" in once and "Said." in once and once.count("old") == 1


def test_a_step_of_a_deep_stack_runs() -> None:
    for again in (False, True):
        (loss,) = depth.step(2, checkpoint_gradients=again)()  # type: ignore[misc]
        assert 0 < loss < 1e3
