"""Settings of deep stacks: absent from a file where they are off, refused in a sentence; skipped steps are said."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hvae import HVAE
from hvae.analysis.load import load_run
from hvae.errors import ConfigError
from hvae.lab.assembly import check_savings
from hvae.lab.completion import check
from hvae.lab.config import RunConfig, TrainingConfig
from hvae.lab.runs.remarks import remarks, skipped
from hvae.lab.training import board, loop
from hvae.schedules import LinearWarmup
from tests.lab.training.test_loop import assert_same_state, config, state, toy, trained
from tests.topdown.stacks import stack

SETTINGS: dict[str, Any] = {
    "adam_betas": (0.9, 0.9), "weight_decay": 0.01, "skip_norm": 400.0, "checkpoint_gradients": True,
    "precision": "bfloat16",
}  # fmt: skip


def test_what_is_off_is_in_no_file_and_moves_no_digest() -> None:
    off = json.loads(RunConfig().to_json())["training"]
    assert not SETTINGS.keys() & off.keys()
    for name, value in SETTINGS.items():
        made = RunConfig(training=TrainingConfig(**{name: value}))
        told = json.loads(made.to_json())["training"]
        assert told.keys() - off.keys() == {name} and RunConfig.from_json(made.to_json()) == made
        assert made.digest != RunConfig().digest
        off_again = RunConfig.from_dict({"training": {name: getattr(TrainingConfig(), name)}})
        assert off_again.to_json() == RunConfig().to_json() and off_again.digest == RunConfig().digest


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"weight_decay": -1.0}, "training.weight_decay is -1.0; give 0 to 1000000."),
        ({"skip_norm": -1.0}, "training.skip_norm is -1.0; give 0 to 1000000000000."),
        ({"skip_norm": 50.0}, "training.skip_norm is 50.0 and training.clip_norm 100.0, so a gradient that is large "
         "enough to be clipped is skipped; give a skip_norm above 100.0, or a smaller clip_norm."),
        ({"adam_betas": [0.9]}, "training.adam_betas is [0.9]; give two numbers in [0, 1), as [0.9, 0.999]."),
        ({"adam_betas": [0.9, 1.0]}, "training.adam_betas is [0.9, 1.0]; give two numbers in [0, 1), as [0.9, 0.999]."),
        ({"precision": "float16"}, "training.precision is 'float16'; did you mean bfloat16? give float32 or bfloat16."),
        ({"checkpoint_gradients": 1}, "training.checkpoint_gradients is 1; give true or false."),
    ],
)  # fmt: skip
def test_bad_values_are_refused_in_a_sentence(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError) as refused:
        RunConfig.from_dict({"training": settings})
    assert str(refused.value) == sentence


@pytest.mark.parametrize("settings", [{"checkpoint_gradients": True}, {"precision": "bfloat16"}])
def test_a_model_without_blocks_is_refused_before_anything_is_written(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"is for stacks of residual blocks .*; leave it out"):
        check([RunConfig.from_dict({"data": {"name": "digits-threshold"}, "training": settings})])
    check_savings(TrainingConfig(**settings), stack())


def test_a_learning_rate_warms_up() -> None:
    found = RunConfig.from_dict({"training": {"learning_rate": {"warmup_steps": 100, "stop": 2e-4}}})
    rate = found.training.learning_rate
    assert rate == LinearWarmup(100, stop=2e-4) and [rate(step) for step in (0, 50, 100, 500)] == [0, 1e-4, 2e-4, 2e-4]
    assert RunConfig.from_json(found.to_json()) == found and not remarks(found, ())
    (doubt,) = remarks(RunConfig.from_dict({"training": {"learning_rate": {"warmup_steps": 100}}}), ())
    assert "learning_rate rises to 1, which is for beta; give it the rate as stop" in doubt.sentence


def scalars(path: Path) -> dict[str, list[float]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (file,) = path.iterdir()
    events = EventAccumulator(str(file)).Reload()
    return {tag: [event.value for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_skipped_steps_are_recorded_shown_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = trained(tmp_path, config(skip_norm=1e-3, clip_norm=0.0))
    rows = run.read_metrics()
    assert [(row["skipped_steps"], row["skipped_in_a_row"]) for row in rows] == [([n, n], [n, n]) for n in (4, 8, 12)]
    shown = scalars(run.path / "tensorboard" / "seed-1")
    assert shown["skipped_steps"] == [4.0, 8.0, 12.0] == shown["skipped_in_a_row"]
    said = [line for line in capsys.readouterr().err.splitlines() if "skipped" in line]
    assert len(said) == 6  # of two seeds, at 4 and at 8 steps, and what there was at the end
    assert said[-1].startswith("seed 1 skipped 12 of 12 steps, as its gradient was larger than skip_norm, the last 12 ")
    notes = [str(note) for note in load_run(run).diagnosis.notes]
    assert [note.partition(", as")[0] for note in notes] == [
        f"training, seed {seed}: It skipped 12 of 12 steps" for seed in (0, 1)
    ]
    assert all("so it stands still since step 0: give a larger skip_norm" in note for note in notes)


def test_a_run_that_skips_none_says_nothing_and_trains_as_one_without(tmp_path: Path) -> None:
    run = trained(tmp_path, config(skip_norm=1e9))
    assert run.read_metrics()[-1]["skipped_steps"] == [0, 0] and skipped(run.read_metrics(), run.config) == []
    usual = trained(tmp_path, config(), label="usual")
    assert "skipped_steps" not in usual.read_metrics()[-1]
    found, expected = state(run)["parameters"], state(usual)["parameters"]
    for name, value in expected.items():  # fused kernels may round the last entries of a weight otherwise
        torch.testing.assert_close(found[name], value, atol=1e-6, rtol=0)


def test_a_run_that_skips_goes_on_bit_for_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = config(skip_norm=4.0, clip_norm=1.0, weight_decay=0.01, adam_betas=(0.9, 0.9), log_every_steps=1)
    whole = trained(tmp_path, made, label="whole")
    counts = np.array([row["skipped_steps"] for row in whole.read_metrics()])
    assert 0 < counts[-1].max() < 12, counts[-1]
    part = trained(tmp_path, replace(made, training=replace(made.training, n_steps=5)), label="part")
    at_five = state(part)
    monkeypatch.setattr(loop, "latest_checkpoint", lambda run, device="cpu": (5, at_five))
    rest = trained(tmp_path, made, label="rest")
    monkeypatch.undo()
    assert_same_state(state(rest), state(whole))
    assert rest.read_metrics() == whole.read_metrics()[5:]


def test_the_board_names_layers_with_their_resolution_and_sums_each(tmp_path: Path) -> None:
    """40 layers; of a dense stack nothing changes."""
    blocks = "1x4,2m1,2x5,4m2,4x14,8m4,8x14"
    model: HVAE = stack(blocks)
    at = board.resolutions(model)
    assert len(at) == 40 and at["z40"] == 1 and at["z1"] == 8
    run = trained(tmp_path, config(n_steps=4))
    rates = {f"rate_nats/z{layer}": [float(layer), 0.5] for layer in range(1, 41)}
    units = {f"rate_unit_nats/z{layer}": [[0.1 * layer] * 16] * 2 for layer in range(1, 41)}
    with board.Board(run, (10, 11), 0, at) as shown:
        shown.scalars({"step": 5, "bound_nats": [-1.0, -2.0], **rates, **units})
        shown.heat_map(5)
    found = scalars(run.path / "tensorboard" / "seed-10")
    of_layers = {f"rate_nats/{name} at {n}x{n}": [float(name[1:])] for name, n in at.items()}
    sums = {
        f"rate_nats_of_resolution/{n}x{n}": [float(sum(int(name[1:]) for name, m in at.items() if m == n))]
        for n in (1, 2, 4, 8)
    }
    assert found == {"bound_nats": [-1.0], **of_layers, **sums}
    from hvae.lab.assembly import build_hvae

    assert board.resolutions(build_hvae(config().model, toy(), seed=0)) == {}


def test_the_picture_of_all_units_has_its_layers_in_order_and_a_size(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[Any] = []

    class Writer:
        def add_image(self, tag: str, image: Any, step: int) -> None:
            shown.append(image)

    made = board.Board.__new__(board.Board)
    monkeypatch.setattr(made, "_writers", [Writer()], raising=False)
    units = {f"rate_unit_nats/z{layer}": [[layer / 40] * 16] for layer in range(40, 0, -1)}
    monkeypatch.setattr(made, "_history", [{"step": 1, **units}], raising=False)
    made.heat_map(1)
    (image,) = shown
    assert image.shape == (3, 640, 1)
    np.testing.assert_allclose(1 - image[1, ::16, 0], np.arange(1, 41) / 40)  # z1 on top, z10 after z9
