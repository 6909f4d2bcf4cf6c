"""One contract for every name of the catalogue: what is said of it, its pins; it loads, or says what is missing."""

import os
import re
from pathlib import Path

import pytest
import torch

from hvae.data import load
from hvae.data.files import state
from hvae.data.names import CATALOGUE
from hvae.errors import ConfigError

every = pytest.mark.parametrize("name", CATALOGUE)


@every
def test_what_is_said_of_it_is_whole_and_its_files_are_pinned(name: str) -> None:
    entry = CATALOGUE[name]
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name) and entry.description and "\n" not in entry.description
    assert entry.n_train > 0 and entry.n_test > 0 and 1 <= len(entry.image_shape) <= 3 and min(entry.image_shape) > 0
    for file in entry.files:
        assert re.fullmatch(r"[0-9a-f]{64}", file.sha256)
        assert bool(file.url) != bool(file.origin), "it is fetched, or says where it is from"
        assert not Path(file.path).is_absolute() and ".." not in Path(file.path).parts


def test_no_two_files_share_a_pin_or_a_place() -> None:
    files = {file for entry in CATALOGUE.values() for file in entry.files}
    assert len({file.sha256 for file in files}) == len({file.path for file in files}) == len(files)


@every
def test_it_loads_or_says_what_is_missing(name: str, tmp_path: Path) -> None:
    entry = CATALOGUE[name]
    folder = Path(os.environ.get("HVAE_DATA") or tmp_path)
    if not all(state(file, folder) == "present" for file in entry.files):
        with pytest.raises(ConfigError) as missing:
            load(name, data_dir=folder)
        said = str(missing.value)
        assert Path(entry.files[0].path).name in said and "\n" not in said and said.endswith(".")
        return
    data = load(name, n_train=50, n_test=20, data_dir=folder)
    assert data.name == name and data.image_shape == entry.image_shape
    n_values = torch.Size(entry.image_shape).numel()
    assert data.train.shape == (50, n_values) and data.test.shape == (20, n_values)
    for part in (data.train, data.test):
        assert part.dtype == torch.float32 and part.isfinite().all() and part.std() > 0
    shown = data.test if data.dynamic else torch.cat([data.train, data.test])
    if data.kind == "binary":
        assert ((shown == 0) | (shown == 1)).all()
    if len(entry.image_shape) == 3:
        levels = shown * 255
        assert data.kind == "grey" and (levels - levels.round()).abs().max() < 1e-3, "8 bits"
    if data.kind != "real":
        assert data.train.min() >= 0 and data.train.max() <= 1
    assert data.dynamic == name.endswith("-dynamic")
    for labels, part in ((data.train_labels, data.train), (data.test_labels, data.test)):
        assert labels is None or len(labels) == len(part)
    again = load(name, n_train=50, n_test=20, data_dir=folder)
    torch.testing.assert_close(again.train, data.train, rtol=0, atol=0)
    torch.testing.assert_close(again.test, data.test, rtol=0, atol=0)


@pytest.mark.parametrize("name", [name for name, entry in CATALOGUE.items() if not entry.files])
def test_a_name_without_files_has_the_counts_that_are_said(name: str) -> None:
    data, entry = load(name), CATALOGUE[name]
    assert (len(data.train), len(data.test)) == (entry.n_train, entry.n_test)
