"""The rehearsal: what cannot be measured or drawn ends a command before its first step."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hvae.data import Dataset
from hvae.lab import rehearsal
from hvae.lab.cli import main
from hvae.lab.config import BlocksConfig, ModelConfig, RunConfig
from hvae.lab.endings import MISTAKE

SETTINGS = {"data.name": "mine.npz", "model.latents": "[3, 2]", "training.n_steps": 4, "training.batch_size": 20}
TRAIN = ["train", "--label", "it", *(word for name, value in SETTINGS.items() for word in (f"--{name}", str(value)))]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    x = np.random.default_rng(0).integers(0, 2, (60, 4, 4))
    np.savez(tmp_path / "mine.npz", x=x.astype(np.float32))
    return tmp_path


@pytest.mark.parametrize("step", ["measure", "report"])
def test_what_fails_after_training_fails_before_it(step: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise ArithmeticError("planted")

    if step == "measure":
        monkeypatch.setattr(rehearsal, "measure", broken)
    else:
        monkeypatch.setattr("hvae.diagnosis.Diagnosis.report", broken)
    assert main(TRAIN) == MISTAKE
    assert not list(home.glob("runs/own/*/config.json")), "a run was begun"


def test_it_is_tried_once_before_a_run_is_begun(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[RunConfig] = []
    monkeypatch.setattr(rehearsal, "rehearse", lambda config, *_, **__: tried.append(config))
    assert main(TRAIN) == main(TRAIN) == 0
    assert len(tried) == 1


@pytest.mark.parametrize(
    "model", [ModelConfig(latents=(3, 2)), ModelConfig(blocks=BlocksConfig("1x1,2m1,4m2", width=6, channels=2))]
)
def test_two_images_are_measured_and_drawn(model: ModelConfig) -> None:
    """The first two test images are equal, which measuring refuses, so others are taken."""
    source = torch.Generator().manual_seed(0)
    x = torch.bernoulli(torch.full((20, 16), 0.5), generator=source)
    x[1] = x[0]
    rehearsal.rehearse(RunConfig(model=model), Dataset("toy", x, x, (4, 4), "binary", False))
