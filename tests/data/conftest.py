"""A tiny data set in IDX files that the tests make, its catalogue entry, and a loopback server."""

import gzip
import hashlib
import struct
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from hvae.data import names

FOLDER = "Tiny/raw"
N_TRAIN, N_TEST, SHAPE = 60, 40, (3, 4)


def idx_bytes(values: np.ndarray) -> bytes:
    """An IDX file of unsigned bytes, written from the format's description."""
    header = bytes((0, 0, 8, values.ndim)) + struct.pack(f">{values.ndim}I", *values.shape)
    return gzip.compress(header + values.astype(np.uint8).tobytes(), mtime=0)


@pytest.fixture
def write_idx(tmp_path: Path) -> Callable[[np.ndarray], Path]:
    def write(values: np.ndarray) -> Path:
        path = tmp_path / "values.gz"
        path.write_bytes(idx_bytes(values))
        return path

    return write


@pytest.fixture
def tiny_arrays() -> list[np.ndarray]:
    """Train images, train labels, test images, test labels; the test part is sorted by class, as in binarised MNIST."""
    generator = np.random.default_rng(5)
    train, test = generator.integers(0, 256, (N_TRAIN, *SHAPE)), generator.integers(0, 256, (N_TEST, *SHAPE))
    return [train, generator.integers(0, 4, N_TRAIN), test, np.arange(N_TEST) // 10]


@pytest.fixture
def tiny_store(tiny_arrays: list[np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that holds tiny-grey, tiny-dynamic and tiny-threshold, which are in the catalogue during the test."""
    store, digests, sizes = tmp_path / "store", [], []
    (store / FOLDER).mkdir(parents=True)
    for name, values in zip(names.IDX_NAMES, tiny_arrays, strict=True):
        content = idx_bytes(values)
        (store / FOLDER / name).write_bytes(content)
        digests.append(hashlib.sha256(content).hexdigest())
        sizes.append(len(content))
    entries = names.idx_entries(
        "tiny",
        "made by the tests",
        folder=FOLDER,
        base_url="http://127.0.0.1:9/nowhere",
        digests=digests,
        sizes=sizes,
        image_shape=SHAPE,
        n_train=N_TRAIN,
        n_test=N_TEST,
    )
    for name, entry in entries.items():
        monkeypatch.setitem(names.CATALOGUE, name, entry)
    for variable in ("HVAE_DATA", "HVAE_DATA_MIRROR"):
        monkeypatch.delenv(variable, raising=False)
    return store


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        pass

    def send_header(self, keyword: str, value: str) -> None:
        """`cut` in the path: promises more bytes than it sends, as a broken connection does."""
        if keyword == "Content-Length" and "/cut/" in self.path:
            value = str(int(value) + 1000)
        super().send_header(keyword, value)


@pytest.fixture
def mirror(tiny_store: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a server that has the files of `tiny_store`; HVAE_DATA_MIRROR points to it."""
    yield from serve(partial(_Quiet, directory=str(tiny_store)), monkeypatch)


def serve(handler: Callable[..., SimpleHTTPRequestHandler], monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a server; HVAE_DATA_MIRROR points to it."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    address = f"http://127.0.0.1:{server.server_address[1]}/"
    monkeypatch.setenv("HVAE_DATA_MIRROR", address)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield address
    server.shutdown()
    thread.join()
    server.server_close()


class _Endless(_Quiet):
    n_sent = 0

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        while True:
            try:
                self.wfile.write(bytes(65536))
            except OSError:  # the other side has hung up
                return
            _Endless.n_sent += 65536


@pytest.fixture
def endless(tiny_store: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], int]]:
    """A server that never stops sending: how many bytes it has sent; HVAE_DATA_MIRROR points to it."""
    _Endless.n_sent = 0
    for _ in serve(_Endless, monkeypatch):
        yield lambda: _Endless.n_sent
