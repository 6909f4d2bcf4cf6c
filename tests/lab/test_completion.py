"""One run made complete: once, under its lock, on the data that it was begun with."""

from pathlib import Path

import pytest

from hvae.errors import ConfigError
from hvae.lab import completion as module
from hvae.lab.completion import check, check_device, complete
from hvae.lab.config import DataConfig, ModelConfig, RunConfig, TrainingConfig
from hvae.lab.runs.run import Run


def test_complete_trains_evaluates_and_marks_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    monkeypatch.setattr(module, "train", lambda *a, **k: calls.append("train"))
    monkeypatch.setattr(module, "evaluate", lambda *a, **k: calls.append("evaluate"))
    run = Run.create_or_open(tmp_path, "trial", "one", RunConfig())
    complete(run, progress=False)
    assert calls == ["train", "evaluate"] and run.done and len(run.read_provenance()) == 1
    complete(run, progress=False)
    assert len(calls) == 2
    run.unmark_done()
    with run.lock(), pytest.raises(ConfigError, match="is held by process"):
        complete(run, progress=False)
    assert len(calls) == 2


def test_a_file_that_changed_under_its_name_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import numpy as np

    monkeypatch.setattr(module, "train", lambda *a, **k: None)
    monkeypatch.setattr(module, "evaluate", lambda *a, **k: None)
    file = tmp_path / "my.npz"
    np.savez(file, train=np.eye(40), test=np.eye(40)[:9])
    run = Run.create_or_open(tmp_path, "own", "mine", RunConfig(data=DataConfig(name=str(file))))
    complete(run, progress=False)
    complete(run, progress=False)
    np.savez(file, train=1 - np.eye(40), test=np.eye(40)[:9])
    with pytest.raises(ConfigError, match="changed since"):
        complete(run, progress=False)


@pytest.mark.parametrize(
    ("config", "device", "words"),
    [
        (RunConfig(data=DataConfig(name="digitz")), "cpu", "digitz"),
        (RunConfig(training=TrainingConfig(batch_size=5000)), "cpu", "training.batch_size is 5000"),
        (RunConfig(data=DataConfig(name="digits-grey"), model=ModelConfig(observation="bernoulli")), "cpu", "grey"),
        (RunConfig(), "abacus", "abacus"),
    ],
)
def test_what_cannot_run_is_refused_beforehand(config: RunConfig, device: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        check([config], device=device)


@pytest.mark.filterwarnings("ignore:.*no longer used as device type")
@pytest.mark.parametrize(
    "device",
    [
        "cpu:0",
        "cpu:5",
        "meta",
        "hpu",
        "privateuseone",
        "mkldnn",
        "hip",
        "maia",
        "lazy",
        "CPU",
        "cpu ",
        "",
        "xla",
        "gpu:0",
    ],
)
def test_a_device_is_refused_before_any_training_however_torch_says_so(device: str) -> None:
    """Tensors can be made on cpu:5, and no checkpoint of them can be read."""
    with pytest.raises(ConfigError, match="cannot be used") as refusal:
        check_device(device)
    assert len(str(refusal.value)) < 300 and "\n" not in str(refusal.value)


def test_the_cpu_is_a_device() -> None:
    check_device("cpu")
