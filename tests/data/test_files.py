"""Files that are missing, damaged or have to be fetched, with a server on the loopback."""

import socket
from collections.abc import Callable
from pathlib import Path

import pooch
import pytest

from hvae.data import access, files, names
from hvae.data.files import DataFile, data_folder
from hvae.errors import ConfigError

IMAGES = f"Tiny/raw/{names.IDX_NAMES[0]}"


def contents(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.fixture
def target(tmp_path: Path) -> Path:
    path = tmp_path / "target"
    path.mkdir()
    return path


def test_get_then_load(mirror: str, tiny_store: Path, target: Path) -> None:
    folder = target / "new"
    paths = access.get("tiny-grey", folder)
    assert [path.read_bytes() for path in paths] == [
        (tiny_store / "Tiny/raw" / n).read_bytes() for n in names.IDX_NAMES
    ]
    assert contents(target) == [
        "new",
        "new/Tiny",
        "new/Tiny/raw",
        *sorted(f"new/Tiny/raw/{n}" for n in names.IDX_NAMES),
    ]
    assert {path.stat().st_mode & 0o777 for path in paths} == {0o644}, "others may share the folder"
    assert len(access.load("tiny-grey", data_dir=folder).train) == 60


def test_get_keeps_what_is_there(tiny_store: Path) -> None:
    """No server runs, so any attempt to download would fail."""
    before = (tiny_store / IMAGES).stat().st_mtime_ns
    access.get("tiny-grey", tiny_store)
    assert (tiny_store / IMAGES).stat().st_mtime_ns == before


def test_get_replaces_a_damaged_file(mirror: str, tiny_store: Path, target: Path) -> None:
    access.get("tiny-grey", target)
    (target / IMAGES).write_bytes(b"damaged")
    access.get("tiny-grey", target)
    assert (target / IMAGES).read_bytes() == (tiny_store / IMAGES).read_bytes()


def test_an_endless_download_ends_at_the_size_of_the_catalogue(endless: Callable[[], int], target: Path) -> None:
    """What is sent beyond it lies in buffers of the connection: a few megabytes, not what the disk holds."""
    with pytest.raises(ConfigError, match="sent something else than train-images"):
        access.get("tiny-grey", target)
    assert 0 < endless() < 2**26 and contents(target) == []


def test_every_file_of_the_catalogue_has_its_size() -> None:
    folder = data_folder()
    for file in names.files_of(names.CATALOGUE):
        assert file.n_bytes > 1000
        if (folder / file.path).exists():
            assert (folder / file.path).stat().st_size == file.n_bytes


def test_wrong_hash_leaves_nothing(mirror: str, tiny_store: Path, target: Path) -> None:
    (tiny_store / IMAGES).write_bytes(b"something else")
    with pytest.raises(ConfigError, match="sent something else than train-images"):
        access.get("tiny-grey", target)
    assert contents(target) == []


def test_downloads_are_silent(mirror: str, target: Path, caplog: pytest.LogCaptureFixture) -> None:
    """stderr is for our own sentences; the logger of pooch has no parent that would be captured by itself."""
    pooch.get_logger().addHandler(caplog.handler)
    try:
        access.get("tiny-grey", target)
    finally:
        pooch.get_logger().removeHandler(caplog.handler)
    assert caplog.text == ""


def test_failed_download_keeps_the_old_file(mirror: str, tiny_store: Path, target: Path) -> None:
    (tiny_store / IMAGES).write_bytes(b"something else")
    (target / IMAGES).parent.mkdir(parents=True)
    (target / IMAGES).write_bytes(b"old")
    with pytest.raises(ConfigError):
        access.get("tiny-grey", target)
    assert contents(target) == ["Tiny", "Tiny/raw", IMAGES]
    assert (target / IMAGES).read_bytes() == b"old"


def test_cut_connection_leaves_nothing(
    mirror: str, tiny_store: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HVAE_DATA_MIRROR", f"{mirror}cut/")
    (tiny_store / "cut").symlink_to(tiny_store)
    with pytest.raises(ConfigError, match="cannot be downloaded"):
        access.get("tiny-grey", target)
    assert contents(target) == []


def test_server_without_the_file(mirror: str, tiny_store: Path, target: Path) -> None:
    (tiny_store / IMAGES).unlink()
    with pytest.raises(ConfigError, match="404"):
        access.get("tiny-grey", target)
    assert contents(target) == []


def test_server_down(tiny_store: Path, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    monkeypatch.setenv("HVAE_DATA_MIRROR", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with pytest.raises(ConfigError, match=r"cannot be downloaded.*check the connection"):
        access.get("tiny-grey", target)
    assert contents(target) == []


def _no_download(*arguments: object, **more: object) -> str:
    raise AssertionError("a download was begun")


def test_folder_that_cannot_be_written(mirror: str, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_retrieve", _no_download)
    (target / "Tiny").write_text("a file where a folder should be")
    with pytest.raises(ConfigError, match="cannot be written"):
        access.get("tiny-grey", target)


def test_mirror_with_another_protocol(tiny_store: Path, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HVAE_DATA_MIRROR", "ftp://127.0.0.1")
    with pytest.raises(ConfigError, match=r"HVAE_DATA_MIRROR is 'ftp://127.0.0.1'"):
        access.get("tiny-grey", target)


def test_files_without_public_address(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HVAE_DATA_MIRROR", raising=False)
    for name in ("mnist-static", "omniglot-grey"):
        with pytest.raises(ConfigError, match="put a copy at"):
            access.get(name, target)
        with pytest.raises(ConfigError, match=r"is missing; it .* put a copy at"):
            access.load(name, data_dir=target)
    assert contents(target) == []


def test_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    file = names.CATALOGUE["mnist-grey"].files[0]
    monkeypatch.delenv("HVAE_DATA_MIRROR", raising=False)
    assert file.address() == "https://ossci-datasets.s3.amazonaws.com/mnist/train-images-idx3-ubyte.gz"
    monkeypatch.setenv("HVAE_DATA_MIRROR", "https://host/base/")
    assert file.address() == "https://host/base/MNIST/raw/train-images-idx3-ubyte.gz"
    assert DataFile("a/b", "0", 0).address() == "https://host/base/a/b"


def test_missing_file_names_the_remedy(tiny_store: Path, target: Path) -> None:
    with pytest.raises(ConfigError, match=r"is missing; run `hvae data get tiny-grey`, or set HVAE_DATA"):
        access.load("tiny-grey", data_dir=target)


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty"])
def test_damaged_file_is_refused(tiny_store: Path, damage: str) -> None:
    raw = bytearray((tiny_store / IMAGES).read_bytes())
    if damage == "flipped":
        raw[len(raw) // 2] ^= 1
    (tiny_store / IMAGES).write_bytes({"truncated": raw[:-5], "flipped": raw, "empty": b""}[damage])
    with pytest.raises(
        ConfigError, match=r"truncated or altered \(SHA-256 \w{12}…, expected \w{12}…\); run `hvae data"
    ):
        access.load("tiny-grey", data_dir=tiny_store)


def test_status_and_verify(tiny_store: Path) -> None:
    def status() -> dict[str, str]:
        return {record.name: record.status for record in access.catalogue(tiny_store)}

    assert status()["tiny-dynamic"] == "present"
    assert status()["mnist-grey"] == "missing"
    assert {status()[name] for name in ("digits-grey", "synthetic-linear-2", "synthetic-binary-2")} == {"present"}
    (tiny_store / IMAGES).write_bytes(b"")
    (tiny_store / "Tiny/raw" / names.IDX_NAMES[1]).unlink()
    assert status()["tiny-dynamic"] == "damaged"
    found = {str(path.relative_to(tiny_store)): state for path, state in access.verify(tiny_store)}
    assert [found[f"Tiny/raw/{name}"] for name in names.IDX_NAMES] == ["damaged", "missing", "present", "present"]
    (tiny_store / IMAGES).unlink()
    assert status()["tiny-dynamic"] == "missing"


def test_where_files_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HVAE_DATA", str(tmp_path / "variable"))
    assert data_folder(tmp_path) == tmp_path
    assert data_folder() == tmp_path / "variable"
    monkeypatch.setenv("HVAE_DATA", "")
    assert "hvae" in data_folder().name


def test_unknown_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="perhaps mnist-grey or mnist-dynamic"):
        access.load("mnist", data_dir=tmp_path)
    with pytest.raises(ConfigError, match="perhaps mnist-dynamic"):
        access.get("mnist-dynamik", tmp_path)
    for name in ("", "photographs.doc", "photographs.doc:dynamic"):
        with pytest.raises(ConfigError, match="is not the name of a data set; see `hvae data list`"):
            access.load(name, data_dir=tmp_path)


@pytest.mark.parametrize("place", ["file", "file/below", "link", "link/below"])
@pytest.mark.parametrize("by", ["argument", "variable"])
def test_a_place_that_can_be_no_folder_is_refused_before_any_download(
    place: str, by: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to("nowhere")
    monkeypatch.setattr(files, "_retrieve", _no_download)
    given = tmp_path / place if by == "argument" else None
    monkeypatch.setenv("HVAE_DATA", "" if given else str(tmp_path / place))
    asked: list[Callable[[], object]] = [
        lambda: access.get("mnist-grey", given),
        lambda: access.verify(given),
        lambda: access.load("mnist-grey", data_dir=given),
    ]
    for ask in asked:
        with pytest.raises(ConfigError, match="is no folder; give the folder of the data files"):
            ask()
    assert len(access.load("digits-threshold", data_dir=given).train)  # which has no files
