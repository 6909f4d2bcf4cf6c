"""Reads the binary version of CIFAR-10 (Krizhevsky 2009) from its archive, which nothing is unpacked from.

A batch is one record for each image: a byte for the class, 0 to 9, then 32 x 32 bytes of red, of green and of blue, row
by row. The version for Python holds the same as pickles, which may run code.
"""

import tarfile
import zlib
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from hvae.data.images import Split
from hvae.errors import ConfigError
from hvae.outside import load_arrays

SHAPE = (3, 32, 32)
N_CLASSES = 10
TRAIN, TEST = tuple(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin"
MAX_MEMBERS = 32

Bytes = NDArray[np.uint8]


def read_cifar(path: Path, *, n_per_batch: int = 10000) -> Split:
    """Images ``[N, 3, 32, 32]`` as bytes, and their classes, of the five training batches and the test batch.

    No more than `MAX_MEMBERS` members are looked at, none larger than a batch. Raises `ConfigError` for a broken
    archive, a batch that is missing or of another size, and a class that there is not.
    """
    batches = _batches(path, n_per_batch)
    images, labels = (np.concatenate([batches[name][part] for name in TRAIN]) for part in (0, 1))
    return Split(images, batches[TEST][0], labels, batches[TEST][1])


def read_subset(path: Path) -> Split:
    """Images ``[N, 3, 32, 32]`` as bytes, of a .npz that has them as rows, columns and colours."""
    arrays = load_arrays(path, "fetch it again with `hvae data get`")
    train, test = (np.moveaxis(arrays[key], -1, 1) for key in ("x_train", "x_test"))
    return Split(train, test, arrays["y_train"], arrays["y_test"])


def halved(images: Bytes) -> Bytes:
    """Half the rows and columns: means of 2 x 2 bytes, rounded to a byte, halves up.

    >>> halved(np.array([[[[0, 1], [0, 1]]]], dtype=np.uint8)).tolist()
    [[[[1]]]]
    """
    n, colours, rows, columns = images.shape
    blocks = images.reshape(n, colours, rows // 2, 2, columns // 2, 2)
    means: Bytes = ((blocks.sum(axis=(3, 5), dtype=np.uint16) + 2) // 4).astype(np.uint8)
    return means


def _batches(path: Path, n_items: int) -> dict[str, tuple[Bytes, Bytes]]:
    n_bytes, found = n_items * (1 + int(np.prod(SHAPE))), {}
    try:
        with tarfile.open(path, "r|gz") as archive:
            for count, member in enumerate(archive, 1):
                name = PurePosixPath(member.name).name
                if member.size > n_bytes or count > MAX_MEMBERS:
                    raise _refusal(path, f"holds more than the batches of CIFAR-10, as {member.name[:60]!r}")
                if name not in (*TRAIN, TEST):
                    continue
                content = archive.extractfile(member) if member.isreg() else None
                if content is None or member.size != n_bytes or name in found:
                    raise _refusal(path, f"holds {name} as something else than {n_items} images, once")
                found[name] = _records(path, name, content.read(n_bytes))
    except (tarfile.TarError, EOFError, OSError, zlib.error, UnicodeError) as error:
        raise _refusal(path, f"cannot be unpacked ({' '.join(str(error).split())})") from None
    missing = [name for name in (*TRAIN, TEST) if name not in found]
    if missing:
        raise _refusal(path, f"has no {', '.join(missing)}")
    return found


def _records(path: Path, name: str, content: bytes) -> tuple[Bytes, Bytes]:
    """Images and classes of a batch."""
    records = np.frombuffer(content, dtype=np.uint8).reshape(-1, 1 + int(np.prod(SHAPE)))
    if records[:, 0].max(initial=0) >= N_CLASSES:
        raise _refusal(path, f"holds the class {records[:, 0].max()} in {name}, where there are {N_CLASSES}")
    return records[:, 1:].reshape(-1, *SHAPE), records[:, 0]


def _refusal(path: Path, why: str) -> ConfigError:
    return ConfigError(f"{path} {why}; fetch it again with `hvae data get`.")
