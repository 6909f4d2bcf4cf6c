"""What a step costs: the clock stands still, so that every number is known."""

import dataclasses

import pytest

from hvae.experiments.shared import costs
from hvae.fitting import Fit
from hvae.lab.config import DataConfig, ModelConfig, RunConfig, TrainingConfig
from hvae.lab.training import loop as training

PLAIN = RunConfig(
    data=DataConfig("digits-threshold", n_train=64),
    model=ModelConfig(latents=(2,), hidden=((4,),), batch_norm=(True,)),
    training=TrainingConfig(seeds=(0,), n_steps=9, batch_size=16),
)


@pytest.mark.parametrize("busy", [pytest.param(0.0, marks=pytest.mark.slow), 7.0])
def test_only_steps_are_timed_and_the_cheapest_of_them(monkeypatch: pytest.MonkeyPatch, busy: float) -> None:
    """2 s a step of the plain stack, 3 of the wide one; all else, and each training's first span, is dear."""
    now, n_steps = [0.0], [0]
    honest = {name: getattr(training, name) for name in ("batch", "save_checkpoint")}

    def batch(images: object, config: RunConfig, step: int, **knobs: object) -> object:
        n_steps[0] = step + 1
        slow = busy * (costs.SPAN <= step < 2 * costs.SPAN) + 50.0 * (step < costs.SPAN)
        now[0] += (2.0 if config.model.latents == (2,) else 3.0) + slow
        return honest["batch"](images, config, step, **knobs)

    def dear(name: str) -> object:
        def call(*arguments: object, **knobs: object) -> object:
            now[0] += 1000.0
            return honest[name](*arguments, **knobs)

        return call

    monkeypatch.setattr(training, "batch", batch)
    monkeypatch.setattr(training, "save_checkpoint", dear("save_checkpoint"))
    honest["settle"] = Fit._settle
    monkeypatch.setattr(Fit, "_settle", dear("settle"))
    monkeypatch.setattr(costs.time, "process_time", lambda: now[0])
    wide = dataclasses.replace(PLAIN, model=dataclasses.replace(PLAIN.model, latents=(3,)))
    found = costs.step_seconds({"plain": PLAIN, "wide": wide})
    assert found == {"plain": [2.0] * costs.ROUNDS, "wide": [3.0] * costs.ROUNDS}
    assert n_steps[0] > PLAIN.training.n_steps
