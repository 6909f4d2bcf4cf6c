"""YAML and JSON from outside: what is read as YAML 1.2 and RFC 8259 say, and all else refused in one sentence."""

import json
import math
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hvae.errors import ConfigError
from hvae.outside import from_json, from_yaml, read_json, read_yaml
from hvae.outside.plain import MOST_DEPTH, MOST_YAML

SECONDS = 20.0
"""that no bad input takes; the longest seen takes 4 on a busy machine"""

SCALARS = {
    **{word: word for word in ("no", "No", "NO", "yes", "on", "off", "y", "n", "On", "OFF")},
    **{
        word: word
        for word in ("1_000", "1:30", "190:20:30", "0b11", "2001-01-01", "1_0.5", "+.Nan", "<<", "=", "0x", "-0o7")
    },
    **{word: True for word in ("true", "True", "TRUE")},
    **{word: False for word in ("false", "False", "FALSE")},
    **{word: None for word in ("null", "Null", "NULL", "~", "")},
    **{"0o17": 15, "0xFF": 255, "017": 17, "-3": -3, "+4": 4, "00": 0},
    **{"1e-3": 1e-3, "1.": 1.0, ".5": 0.5, "+1E4": 1e4, "-1.5e+2": -150.0},
    **{".inf": math.inf, "-.INF": -math.inf, "+.Inf": math.inf, "'1'": "1", '"no"': "no", "a b": "a b"},
}


@pytest.mark.parametrize("text", SCALARS)
def test_scalars_are_those_of_the_core_schema(text: str) -> None:
    assert from_yaml(text) == SCALARS[text] and type(from_yaml(text)) is type(SCALARS[text])
    assert from_yaml(f"[{text}]") == ([SCALARS[text]] if text else [])
    assert from_yaml(f"key: {text}") == {"key": SCALARS[text]}


def test_not_a_number() -> None:
    assert all(math.isnan(from_yaml(word)) for word in (".nan", ".NaN", ".NAN"))


BILLION = "a: &a [x, x]\n" + "".join(f"{b}: &{b} [*{a}, *{a}]\n" for a, b in zip("abcdefghi", "bcdefghij", strict=True))
BAD_YAML = [
    "*a",
    "&a 1",
    "&a [*a]",
    "a: &x 1\nb: *x",
    BILLION,
    "!!python/object/apply:os.system [ls]",
    "!!str 3",
    "! 3",
    "!!binary aGk=",
    "!<tag:x> 3",
    "{a: 1, a: 2}",
    "a: 1\na: 1",
    "x: {b: 1, 'b': 2}",
    "1: 2",
    "~: 2",
    "true: 1",
    "? [a]\n: b",
    "? {a: b}\n: c",
    "1.5: x",
    "a\n---\nb",
    "--- a\n...\n--- b",
    "[1, 2",
    "{a: 1",
    "[1}",
    "a: b: c",
    "- a\nb",
    "'open",
    '"open',
    '"\\q"',
    '"\\ud800"',
    '"\\uDFFF"',
    '"\\UFFFFFFFF"',
    '"\\U00110000"',
    '"\\x0"',
    '"\\0"',
    "\tx",
    "@a",
    "`a",
    "%a",
    "%YAML 2.0\n--- a",
    "%YAML x\n---\na",
    "a\x00b",
    "a\x07b",
    "\ud800",
    "\x1b[2J",
    "a: |9\n  b",
    "a: >0\n b",
    "key: [a\nb: c]]",
    "9" * 30,
    "-" + "9" * 5000,
    "0x" + "f" * 400,
    "0o" + "7" * 400,
    "[" * 60,
    "[" * 60000,
    "[" * 40 + "]" * 40,
    "- " * 60,
    "- " * 30000,
    "{a: " * 60,
    "{a: " * 16000,
    "? " * 60,
    "[a: " * 60,
    "[" * 33 + "]" * 33,
    "x" * (MOST_YAML + 1),
    "? - ? - " * 20,
    "a:\n" * 2 + " - b\n-",
    "{,}",
    "[,]",
    "{a b: c, }}",
    "<<: *a",
    "a: !!map {b: c}",
    ": : :",
    "}",
    "]",
    ",",
    "a: *",
    "a: &",
    "a: !",
    "--- |\n\ta\n b\n---\n",
    "'a' 'b'",
    "[a, b]: c\n  d: e\n f",
    "a\n...\nb",
]


@pytest.mark.parametrize("number", range(len(BAD_YAML)))
def test_bad_yaml_is_refused_in_time(number: int, tmp_path: Path) -> None:
    begun = time.monotonic()
    with pytest.raises(ValueError) as refusal:
        from_yaml(BAD_YAML[number])
    assert type(refusal.value) is ValueError and "\n" not in str(refusal.value) and len(str(refusal.value)) < 300
    assert str(refusal.value).isprintable() and time.monotonic() - begun < SECONDS
    file = tmp_path / "f.yaml"
    file.write_bytes(BAD_YAML[number].encode("utf-8", "surrogatepass"))
    with pytest.raises(ConfigError, match=r"f\.yaml cannot be read .*; mend it\.$"):
        read_yaml(file, "mend it")


@pytest.mark.parametrize(
    "text", ["[" + "1," * 32000 + "1]", "- a\n" * 16000, "x" * MOST_YAML, "'" + "''" * 32000 + "'", "\n" * MOST_YAML]
)
def test_the_largest_yaml_takes_no_minutes(text: str) -> None:
    begun = time.monotonic()
    from_yaml(text)
    assert time.monotonic() - begun < SECONDS


BAD_JSON = [
    "",
    " ",
    "{",
    "[",
    "[1,]",
    "{,}",
    '{"a"}',
    '{"a":}',
    "{'a': 1}",
    "nul",
    "True",
    "[1 2]",
    "1 2",
    '{"a": 1, "a": 2}',
    '[{"b": {"c": 1, "c": 1}}]',
    "NaN",
    "Infinity",
    "-Infinity",
    "[NaN]",
    '{"a": [1, {"b": NaN}]}',
    "1e999",
    "[-1e999]",
    '{"a": [[1e400]]}',
    "9" * 21 + "99",
    "-" + "9" * 5000,
    "[" + "9" * 4301 + "]",
    "[" * 100000,
    "[" * 60 + "]" * 60,
    '{"a":' * 60 + "1" + "}" * 60,
    '{"a":' * 100000,
    "[" * 33 + "]" * 33,
    '"\\ud800"',
    '["\\udfff"]',
    '{"\\ud800": 1}',
    '"\\u0000"',
    '{"a\\u0000": 1}',
    '"a\x00"',
    '"\x01"',
    '"\n"',
    '"\\x"',
    '"open',
    "\ufeff{}",
    "0x1",
    "01",
    "+1",
    ".5",
    "1.",
    "/* */ 1",
    "# a\n1",
    "[1]]",
    "{}{}",
    "--1",
    "1e",
    "\x00",
    "undefined",
]


@pytest.mark.parametrize("number", range(len(BAD_JSON)))
def test_bad_json_is_refused_in_time(number: int, tmp_path: Path) -> None:
    begun = time.monotonic()
    with pytest.raises(ValueError) as refusal:
        from_json(BAD_JSON[number])
    assert type(refusal.value) is ValueError and "\n" not in str(refusal.value) and len(str(refusal.value)) < 300
    assert time.monotonic() - begun < SECONDS
    file = tmp_path / "f.json"
    file.write_bytes(BAD_JSON[number].encode("utf-8", "surrogatepass"))
    with pytest.raises(ConfigError, match=r"f\.json is damaged .*; mend it\.$"):
        read_json(file, "mend it")


def test_as_deep_as_allowed() -> None:
    text = "[" * MOST_DEPTH + "]" * MOST_DEPTH
    assert from_json(text) == from_yaml(text) == json.loads(text)


VALUES: Any = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=("Cs", "Cc"))),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(categories=("L",))), inner, max_size=4)
    ),
    max_leaves=20,
)


@settings(max_examples=200, deadline=None)
@given(VALUES)
def test_json_is_read_back_and_is_yaml(values: Any) -> None:
    assert from_json(json.dumps(values)) == values
    if not any(mark in json.dumps(values, ensure_ascii=False) for mark in ("\x7f", "\ufffe", "\uffff", "\ufeff")):
        assert from_yaml(json.dumps(values)) == values


@settings(max_examples=300, deadline=None)
@given(st.text() | st.text(alphabet="{}[]:,-&*!|>'\"%@`?#~ \n\tab01.eox<="))
def test_any_text_is_read_or_refused(text: str) -> None:
    """No exception but ValueError, whatever the text."""
    for read in (from_yaml, from_json):
        try:
            read(text)
        except ValueError as refusal:
            assert type(refusal) is ValueError and "\n" not in str(refusal)
