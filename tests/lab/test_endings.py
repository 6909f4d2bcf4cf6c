"""Every exception ends in one sentence and its own exit code; the traceback of an unexpected one is kept."""

import errno
from pathlib import Path

import pytest
import torch

from hvae.errors import ConfigError, HeldError, MissingExtraError, TrainingError
from hvae.lab.endings import MOST_SENTENCE, ending
from hvae.lab.interrupts import Interrupted
from hvae.lab.runs.lock import hold

KNOWN: list[tuple[BaseException, int, str]] = [
    (ConfigError("a; b."), 2, "a; b."),
    (MissingExtraError("x needs y."), 2, "x needs y."),
    (HeldError("held."), 75, "held."),
    (TrainingError("dead."), 1, "dead."),
    (KeyboardInterrupt(), 130, "Stopped; the same command goes on from there."),
    (Interrupted("a stopped after step 3."), 130, "a stopped after step 3."),
    (MemoryError(), 1, "make training.batch_size or the model smaller"),
    (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), 1, "run fewer --workers"),
    (OSError(errno.ENOMEM, "Cannot allocate memory"), 1, "The memory is too small"),
    (RuntimeError("can't start new thread"), 1, "run fewer --workers"),
    (ImportError("libtorch_cpu.so: failed to map segment from shared object"), 1, "take a larger machine"),
    (OSError(errno.ENOSPC, "No space left on device", "a.npz"), 2, "a.npz: No space left on device; make room"),
    (OSError(errno.EDQUOT, "Disk quota exceeded"), 2, "make room"),
    (PermissionError(errno.EACCES, "Permission denied", "a.npz"), 2, "a.npz: Permission denied; see that"),
    (IsADirectoryError(errno.EISDIR, "Is a directory", "a"), 2, "a: Is a directory; see that"),
    (OSError("no number"), 2, "no number; see that"),
]


@pytest.mark.parametrize(("error", "code", "words"), KNOWN, ids=lambda value: type(value).__name__)
def test_what_is_known_is_its_own_sentence(error: BaseException, code: int, words: str, tmp_path: Path) -> None:
    found, sentence = ending(error, [tmp_path])
    assert found == code and words in sentence and "\n" not in sentence
    assert ("make room" in sentence) == (getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", [ConfigError, HeldError, TrainingError, KeyboardInterrupt])
def test_a_sentence_is_one_printable_line_with_its_remedy(kind: type[BaseException]) -> None:
    _, sentence = ending(kind(f"a\nb\x1b[2J{'c' * 5000} is not there; give another."))
    assert sentence.startswith("a\\nb\\x1b[2Jccc") and sentence.endswith("c is not there; give another.")
    assert sentence.isprintable() and len(sentence) == MOST_SENTENCE + 1


def test_torch_says_on_the_cpu_that_memory_is_short() -> None:
    try:
        torch.empty(2**60, dtype=torch.uint8)
    except RuntimeError as error:
        assert ending(error)[0] == 1
    else:
        raise AssertionError("an exabyte was allocated")


class Mute(Exception):
    def __str__(self) -> str:
        raise ValueError("no text")


@pytest.mark.parametrize("error", [ZeroDivisionError("a\nb"), RuntimeError("\udce9"), RecursionError(), Mute()])
def test_what_nobody_expects_keeps_its_traceback(error: Exception, tmp_path: Path) -> None:
    def raised(error: Exception) -> Exception:
        try:
            raise error
        except Exception as found:
            return found

    place = tmp_path / "place"
    place.mkdir()
    code, sentence = ending(raised(error), [tmp_path / "missing", place])
    assert code == 70 and sentence.startswith(f"unexpected: {type(error).__name__}: ") and "\n" not in sentence
    assert sentence.endswith(f"; the traceback is in {place / 'log.txt'}")
    text = (place / "log.txt").read_text()
    assert "Traceback (most recent call last)" in text and "test_endings.py" in text and type(error).__name__ in text
    ending(raised(error), [place])
    assert (place / "log.txt").read_text().count("Traceback") == 2, "an older one is not overwritten"


def test_the_traceback_lies_in_the_run_at_work_else_in_a_temporary_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, place = tmp_path / "run", tmp_path / "place"
    run.mkdir()
    place.mkdir()
    with pytest.raises(ZeroDivisionError) as caught, hold(run):
        raise ZeroDivisionError
    assert ending(caught.value, [place])[1].endswith(str(run / "log.txt"))
    assert list(place.iterdir()) == []
    monkeypatch.setenv("TMPDIR", str(place))
    monkeypatch.setattr("tempfile.tempdir", None)
    sentence = ending(ValueError("x"), [tmp_path / "missing"])[1]
    (kept,) = place.iterdir()
    assert sentence.endswith(str(kept)) and "ValueError: x" in kept.read_text()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "missing"))
    assert "no file, as none can be written: ValueError: x" in ending(ValueError("x"))[1]
