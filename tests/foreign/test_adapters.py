"""Where the library of an adapter is not installed: one sentence, with the command that brings it."""

import importlib.util
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

import hvae


@pytest.mark.parametrize(
    ("call", "package", "extra"),
    [
        (lambda: hvae.from_pyro(print, print), "pyro-ppl", "pyro"),
        (lambda: hvae.from_pythae(None), "pythae", "pythae"),
        (lambda: hvae.from_scvi(None), "scvi-tools", "scvi"),
        (lambda: hvae.scvi_data(None), "scvi-tools", "scvi"),
    ],
)
def test_a_missing_library_is_one_sentence(
    call: Callable[[], Any], package: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(hvae.MissingExtraError, match=rf"^\w+ needs {package}; pip install 'hvae\[{extra}\]'\.$"):
        call()


def test_an_adapter_is_imported_without_its_library() -> None:
    code = (
        "import sys, hvae\n"
        "assert hvae.from_pyro and hvae.from_pythae and hvae.from_scvi and hvae.from_laws\n"
        "assert not {'pyro', 'pythae', 'scvi'} & set(sys.modules)\n"
    )
    outcome = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert outcome.returncode == 0, outcome.stderr
