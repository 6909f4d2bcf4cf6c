"""Places that are no ordinary files, where one is asked for: pipes, devices, links, folders, names beyond measure."""

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

Prepare = Callable[[Path], None]
DEVICES = ("/dev/zero", "/dev/null", "/dev/stdin", "/dev/urandom", "/proc/self/mem", "/dev/fd/99")
SUFFIXES = ("npy", "npz", "csv", "mat")


def pipe(name: str) -> Prepare:
    """One that nobody writes to: whoever opens it waits for ever."""
    return lambda folder: os.mkfifo(folder / name)


def link(name: str, to: str) -> Prepare:
    return lambda folder: os.symlink(to, folder / name)


def directory(name: str) -> Prepare:
    return lambda folder: (folder / name).mkdir()


def nothing(folder: Path) -> None:
    pass


def arguments(train: Sequence[str]) -> Iterator[tuple[list[str], Prepare]]:
    """Arguments of `hvae train`, and what must be laid out before."""
    for device in DEVICES:
        for option in ("--config", "--data.name", "--runs-dir"):
            yield [*train, f"{option}={device}"], nothing
    for option in ("--config", "--runs-dir"):
        yield [*train, f"{option}=p"], pipe("p")
        yield [*train, f"{option}=l"], link("l", "l")
        yield [*train, f"{option}={'n' * 300}"], nothing
    for suffix in SUFFIXES:
        for made in (pipe(f"x.{suffix}"), link(f"x.{suffix}", f"x.{suffix}"), link(f"x.{suffix}", "gone")):
            yield [*train, f"--data.name=x.{suffix}"], made
        yield [*train, f"--data.name=x.{suffix}"], directory(f"x.{suffix}")
        for name in ("n" * 300, "a\nb", "", "~nobody/x", "*", "http://example.com/x"):
            yield [*train, f"--data.name={name}.{suffix}"], nothing
