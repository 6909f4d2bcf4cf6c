"""Checkpoints: what is loaded is what was saved, or it is refused."""

import hashlib
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from hvae.errors import ConfigError
from hvae.lab.config import RunConfig
from hvae.lab.runs.checkpoints import latest_checkpoint, save_checkpoint
from hvae.lab.runs.run import Run


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run.create_or_open(tmp_path, "depth", "label", RunConfig())


def _state(step: int) -> dict[str, Any]:
    return {"parameters": {"w": torch.full((3, 40), float(step))}, "alive": torch.tensor([True]), "n": step}


def _files(run: Run) -> list[str]:
    return sorted(file.name for file in (run.path / "checkpoints").iterdir())


def test_none_where_none_was_written(run: Run) -> None:
    assert latest_checkpoint(run) is None


def test_the_newest_comes_back_and_two_are_kept(run: Run) -> None:
    for step in (5, 10, 15, 1000):
        save_checkpoint(run, step, _state(step))
    found = latest_checkpoint(run)
    assert found is not None
    step, state = found
    assert step == state["n"] == 1000
    torch.testing.assert_close(state["parameters"]["w"], torch.full((3, 40), 1000.0), rtol=0, atol=0)
    assert _files(run) == [
        "step-000000015.pt",
        "step-000000015.pt.sha256",
        "step-000001000.pt",
        "step-000001000.pt.sha256",
    ]


def test_every_truncation_and_bit_flip_falls_back(run: Run) -> None:
    save_checkpoint(run, 1, _state(1))
    save_checkpoint(run, 2, _state(2))
    file = run.path / "checkpoints" / "step-000000002.pt"
    whole = file.read_bytes()
    damaged = [whole[:length] for length in range(0, len(whole), len(whole) // 10)]
    for position in range(0, len(whole), len(whole) // 40):
        flipped = bytearray(whole)
        flipped[position] ^= 1 << (position % 8)
        damaged.append(bytes(flipped))
    assert len(damaged) > 45
    for content in damaged:
        file.write_bytes(content)
        with pytest.warns(UserWarning, match="damaged"):
            found = latest_checkpoint(run)
        assert found is not None and found[0] == 1
        assert found[1]["n"] == 1
    file.write_bytes(whole)
    assert (latest_checkpoint(run) or (0, {}))[0] == 2


def test_the_control_torch_alone_does_not_see_a_flip(run: Run) -> None:
    """Why the SHA-256 is there: flip a byte of a tensor and `torch.load` answers without a word."""
    save_checkpoint(run, 1, _state(1))
    file = run.path / "checkpoints" / "step-000000001.pt"
    whole = bytearray(file.read_bytes())
    position = whole.index(torch.tensor(1.0).numpy().tobytes() * 8)
    whole[position + 2] ^= 1
    file.write_bytes(whole)
    assert not torch.equal(torch.load(file, weights_only=True)["state"]["parameters"]["w"], torch.ones(3, 40))


def test_a_lost_digest_is_damage_and_none_sound_is_refused(run: Run) -> None:
    save_checkpoint(run, 1, _state(1))
    (run.path / "checkpoints" / "step-000000001.pt.sha256").unlink()
    with pytest.warns(UserWarning, match="SHA-256 file is missing"), pytest.raises(ConfigError, match="is sound"):
        latest_checkpoint(run)


class _Hostile:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("HOSTILE",)


def test_a_pickle_that_runs_code_is_refused(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    directory = run.path / "checkpoints"
    directory.mkdir()
    torch.save({"step": 3, "state": _Hostile()}, directory / "step-000000003.pt")
    (directory / "step-000000004.pt").write_bytes(pickle.dumps(_Hostile(), protocol=2))
    for file in list(directory.glob("*.pt")):
        Path(f"{file}.sha256").write_text(hashlib.sha256(file.read_bytes()).hexdigest())
    with pytest.warns(UserWarning, match="on loading"), pytest.raises(ConfigError, match="is sound"):
        latest_checkpoint(run)
    assert not (tmp_path / "HOSTILE").exists()


def test_stale_temporary_files_go_and_a_failed_save_raises(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    save_checkpoint(run, 1, _state(1))
    stale = run.path / "checkpoints" / ".step-000000002.pt.1234.tmp"
    stale.write_bytes(b"half")
    os.utime(stale, (0, 0))
    save_checkpoint(run, 2, _state(2))
    assert not stale.exists()

    def disk_full(source: object, target: object) -> None:
        raise OSError(28, "No space left on device")

    before = _files(run)
    monkeypatch.setattr(os, "replace", disk_full)
    with pytest.raises(OSError, match="No space"):
        save_checkpoint(run, 3, _state(3))
    assert _files(run) == before
    assert (latest_checkpoint(run) or (0, {}))[0] == 2


def test_a_kill_between_the_two_writes_costs_one_checkpoint(run: Run) -> None:
    """The SHA-256 is written first: alone it is no checkpoint, and the one before stands."""
    save_checkpoint(run, 1, _state(1))
    (run.path / "checkpoints" / "step-000000002.pt.sha256").write_text("0" * 64)
    assert (latest_checkpoint(run) or (0, {}))[0] == 1
