"""Where data files are, whether they are the right ones, and how to fetch them.

The data folder is the argument `data_dir`, else `$HVAE_DATA`, else a cache folder of the user. Every
file is known by its SHA-256. `$HVAE_DATA_MIRROR` names a server with the layout of the data folder
that takes the place of the public addresses.
"""

import errno
import hashlib
import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

from platformdirs import user_cache_path

from hvae.errors import ConfigError
from hvae.extras import need

State = Literal["present", "missing", "damaged"]
TIMEOUT_SECONDS = 30


@dataclass(frozen=True)
class DataFile:
    """One file: its place below the data folder, its SHA-256, its size and its public address.

    >>> state(DataFile("toy/toy.npz", sha256="0" * 64, n_bytes=9), Path("no folder"))
    'missing'
    """

    path: str
    sha256: str
    n_bytes: int
    """a download ends here, whatever the server goes on to send"""
    url: str | None = None
    origin: str = ""
    """the source of a file that has no public address"""

    def address(self) -> str | None:
        """The URL it is fetched from: on the mirror if one is set, else the public one."""
        mirror = os.environ.get("HVAE_DATA_MIRROR", "")
        if not mirror:
            return self.url
        if not mirror.startswith(("http://", "https://")):
            raise ConfigError(f"HVAE_DATA_MIRROR is {mirror!r}; give an address that begins with http:// or https://.")
        return f"{mirror.rstrip('/')}/{self.path}"


def data_folder(data_dir: Path | None = None) -> Path:
    """The argument, else `$HVAE_DATA`, else the cache folder of the user; it need not be there yet.

    Raises `ConfigError` where no folder can be, before anything is downloaded.
    """
    chosen = data_dir or os.environ.get("HVAE_DATA") or user_cache_path("hvae")
    folder = home_of(Path(chosen))
    try:
        _nearest_folder(folder / "file")
    except NotADirectoryError as error:
        raise ConfigError(
            f"{error.filename} is no folder; give the folder of the data files with HVAE_DATA or --data-dir."
        ) from None
    return folder


def home_of(path: Path) -> Path:
    """The path with ~ as the home folder. Raises `ConfigError` where there is no such user.

    >>> home_of(Path("data/my.npz"))
    PosixPath('data/my.npz')
    """
    try:
        return path.expanduser()
    except RuntimeError:
        raise ConfigError(f"{path} begins with the home of nobody; write the folder out.") from None


def sha256(path: Path) -> str:
    """The SHA-256 of a file in hexadecimal."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror}); make it readable, or fetch it again.") from None


def state(file: DataFile, folder: Path) -> State:
    """Whether the file is there, and is the right one."""
    path = folder / file.path
    if not path.exists():
        return "missing"
    return "present" if path.is_file() and sha256(path) == file.sha256 else "damaged"


def require(file: DataFile, folder: Path, *, name: str) -> Path:
    """The path of a file that is there and unaltered, or a `ConfigError` with the remedy."""
    path = folder / file.path
    if not path.exists():
        raise ConfigError(
            f"{path} is missing; {_remedy(file, path, name)}, or set HVAE_DATA (or --data-dir) to the folder "
            f"that holds {file.path}."
        )
    found = sha256(path)
    if found != file.sha256:
        raise ConfigError(
            f"{path} is truncated or altered (SHA-256 {found[:12]}…, expected {file.sha256[:12]}…); "
            f"{_remedy(file, path, name)}."
        )
    return path


def fetch(file: DataFile, folder: Path, *, progress: bool = False) -> Path:
    """Downloads the file unless it is there already; a download that fails leaves nothing behind.

    It is checked in a scratch folder on the same disk, then takes its name. With `progress` a bar is drawn on stderr.
    """
    path = folder / file.path
    try:
        if state(file, folder) == "present":
            return path
        address = file.address()
        if address is None:
            raise ConfigError(f"{file.path} has no public address; {_own_copy(file, path)}.")
        need("pooch", "Downloads need")
        with tempfile.TemporaryDirectory(dir=_nearest_folder(path), prefix=".hvae-") as scratch, _quiet_pooch():
            known = f"sha256:{file.sha256}"
            fetched = _retrieve(
                address, known_hash=known, n_bytes=file.n_bytes, fname=path.name, path=scratch, progress=progress
            )
            path.parent.mkdir(parents=True, exist_ok=True)
            os.chmod(fetched, 0o644)  # pooch leaves it readable by its owner only
            os.replace(fetched, path)
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be written ({error.strerror or error}); give another folder with HVAE_DATA or --data-dir."
        ) from None
    return path


class _Capped:
    """A file that refuses to grow beyond its size."""

    def __init__(self, file: IO[bytes], n_bytes: int) -> None:
        self._file, self._left = file, n_bytes

    def write(self, content: bytes) -> int:
        self._left -= len(content)
        if self._left < 0:
            raise ValueError("more than the size of the catalogue")
        return self._file.write(content)

    def flush(self) -> None:
        self._file.flush()


def _retrieve(address: str, *, known_hash: str, n_bytes: int, fname: str, path: str, progress: bool) -> str:
    import pooch

    over_http = pooch.HTTPDownloader(progressbar=progress, timeout=TIMEOUT_SECONDS)

    def downloader(url: str, output_file: str, caller: object) -> None:
        with open(output_file, "wb") as file:
            over_http(url, _Capped(file, n_bytes), caller)

    try:
        return str(pooch.retrieve(address, known_hash=known_hash, fname=fname, path=path, downloader=downloader))
    except OSError as error:
        raise ConfigError(
            f"{address} cannot be downloaded ({' '.join(str(error).split())}); check the connection, or set "
            "HVAE_DATA_MIRROR to a server that has the file."
        ) from None
    except ValueError:
        raise ConfigError(
            f"{address} sent something else than {fname} (expected {known_hash[:19]}…), which was thrown away; "
            "try again later, or set HVAE_DATA_MIRROR to a server that has the file."
        ) from None


def _remedy(file: DataFile, path: Path, name: str) -> str:
    return f"run `hvae data get {name}`" if file.address() else _own_copy(file, path)


def _own_copy(file: DataFile, path: Path) -> str:
    return f"{file.origin}: put a copy at {path}, or set HVAE_DATA_MIRROR to a server that has it"


def _nearest_folder(path: Path) -> Path:
    """The folder in which its own can be made. Raises NotADirectoryError where something else stands in the way."""
    nearest = next(place for place in path.absolute().parents if os.path.lexists(place))
    if not nearest.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(nearest))
    return nearest


@contextmanager
def _quiet_pooch() -> Iterator[None]:
    """pooch announces every download on stderr, where only our own sentences belong."""
    import pooch

    logger = pooch.get_logger()
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)
