"""A user's data are found by what they are, wherever their file lies now."""

from pathlib import Path

import numpy as np
import pytest

from hvae.errors import ConfigError
from hvae.lab.completion import data_of, load_data
from hvae.lab.config import DataConfig, ModelConfig, RunConfig
from hvae.lab.runs.run import Run


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "my.npz", 0)
    return tmp_path / "my.npz"


def write(file: Path, seed: int) -> None:
    file.parent.mkdir(exist_ok=True)
    np.savez(file, x=np.random.default_rng(seed).random((40, 6)).astype(np.float32))


@pytest.fixture(params=["", ":threshold"])
def run(request: pytest.FixtureRequest, file: Path, tmp_path: Path) -> Run:
    config = RunConfig(data=DataConfig(f"my.npz{request.param}"), model=ModelConfig(latents=(2,), hidden=((4,),)))
    run = Run.create_or_open(tmp_path / "runs", "own", "mine", config)
    data_of(run)
    return run


def test_a_moved_file_is_found_in_its_new_folder_or_under_a_new_name(run: Run, file: Path, tmp_path: Path) -> None:
    before = load_data(run.config)
    for place in (tmp_path / "new" / "my.npz", tmp_path / "new" / "other.npz"):
        place.parent.mkdir(exist_ok=True)
        file = file.rename(place)
        found = data_of(run, place.parent if place.name == "my.npz" else place)
        assert found.name == before.name == run.config.data.name
        assert (found.train == before.train).all() and (found.test == before.test).all()


def test_the_numbers_decide_not_the_path(run: Run, file: Path, tmp_path: Path) -> None:
    before = load_data(run.config).train
    write(tmp_path / "new" / "my.npz", 0)
    write(file, 1)  # other numbers under the name that the run was given
    assert (data_of(run, tmp_path / "new").train == before).all()
    write(tmp_path / "new" / "my.npz", 2)
    with pytest.raises(ConfigError, match=r"changed since the run .* was started; restore them, or say by --data-dir"):
        data_of(run, tmp_path / "new")


def test_a_lost_file_is_one_sentence_with_both_ways(run: Run, file: Path, tmp_path: Path) -> None:
    file.unlink()
    for folder in (None, tmp_path / "nowhere"):
        with pytest.raises(ConfigError) as refused:
            data_of(run, folder)
        said = str(refused.value)
        assert "my.npz" in said and "put it back" in said and "--data-dir" in said and "\n" not in said, said


def test_an_altered_pin_is_told_from_altered_data(run: Run) -> None:
    pin = run.path / "data.sha256"
    known = pin.read_text().strip()
    pin.write_text("0" * 64)
    with pytest.raises(ConfigError, match=rf"was altered; write {known} into it"):
        data_of(run)
    pin.unlink()
    data_of(run)
    assert pin.read_text().strip() == known
