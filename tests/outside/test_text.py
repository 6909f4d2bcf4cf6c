"""Files of text: UTF-8, regular, not too large; all else is one sentence with the remedy."""

import os
from pathlib import Path

import pytest

from hvae.errors import ConfigError, NotLoadableError
from hvae.outside import read_line, read_text, sound
from hvae.outside.text import MOST_LINE

BAD = {
    "latin-1": "café".encode("latin-1"),
    "utf-16": "text".encode("utf-16"),
    "utf-32": "text".encode("utf-32"),
    "mark": b"\xef\xbb\xbftext",
    "nul": b"a\0b",
    "surrogate": b"\xed\xa0\x80",
    "overlong": b"\xc0\xaf",
    "cut": "é".encode()[:1],
    "ff": b"\xff" * 9,
    "too large": b"x" * 101,
}


@pytest.mark.parametrize("how", BAD)
def test_what_is_no_text_is_one_sentence(tmp_path: Path, how: str) -> None:
    (tmp_path / "f").write_bytes(BAD[how])
    with pytest.raises(ConfigError, match=r"/f is damaged \(it .*\); write it again\.$") as refusal:
        read_text(tmp_path / "f", "write it again", most=100)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    "content", [b"two\nlines", b"\x1b[2J", b"a\tb", b"a\xe2\x80\xa8b", b"x" * (MOST_LINE + 1), *BAD.values()][:-1]
)
def test_what_is_no_line_is_one_sentence(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "f").write_bytes(content)
    with pytest.raises(ConfigError, match="write it again"):
        read_line(tmp_path / "f", "write it again")


@pytest.mark.timeout(30)
def test_what_is_no_file_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for place, words in (("pipe", "no regular file"), ("", "a folder"), ("loop", "cannot be read")):
        with pytest.raises(ConfigError, match=words):
            read_text(tmp_path / place, "write it again")
    with pytest.raises(ConfigError, match="no regular file"):
        read_text(Path("/dev/zero"), "write it again")
    with pytest.raises(FileNotFoundError):
        read_text(tmp_path / "nothing", "write it again")


@pytest.mark.parametrize(
    "error",
    [KeyError("a"), OverflowError("big"), RecursionError("deep"), EOFError(), TypeError("\n" * 9)],
)
def test_whatever_a_parser_raises_is_one_sentence(error: Exception) -> None:
    with (
        pytest.raises(ConfigError, match=rf"^f is damaged \({type(error).__name__}.*\); mend it\.$"),
        sound(Path("f"), "mend it"),
    ):
        raise error


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), OSError(5, "I/O error"), MemoryError()])
def test_what_cannot_be_read_here_is_not_called_damaged(error: Exception) -> None:
    with pytest.raises(NotLoadableError, match=r"^f cannot be read \(.*; .*mend it\.$"), sound(Path("f"), "mend it"):
        raise error


def test_a_mistake_of_our_own_is_no_damage() -> None:
    with pytest.raises(NameError), sound(Path("f"), "mend it"):
        raise NameError
