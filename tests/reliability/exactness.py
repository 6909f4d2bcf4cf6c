"""The largest error of all comparisons with exact answers that the tests make at 1e-10 in float64.

This is a pytest plugin as well, `-p tests.reliability.exactness`: it looks on while `torch.testing.assert_close` and
`numpy.testing.assert_allclose` compare, and writes what it saw to the file that `HVAE_COMPARISONS` names.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.faults.faults import FAULTS
from tests.faults.harness import run
from tests.reliability.figure import Figure, Row
from tests.reliability.page import REPO

TO = "HVAE_COMPARISONS"
STRICT = 1e-10
FOLDERS = {
    "closed forms, quadrature and enumeration": ("tests/exact", "tests/test_evidence.py", "tests/test_certain.py"),
    "densities, divergences and sums": ("tests/families", "tests/test_numerics.py"),
    "objectives and their gradients": ("tests/objectives", "tests/test_gradients.py"),
    "likelihoods": ("tests/likelihood",),
    "rates, information, knock-outs and gaps": ("tests/diagnostics",),
    "stacks of blocks": ("tests/topdown",),
}
SLIGHTEST = 1e-8
"""share by which the twin is wrong"""
seen: dict[str, list[float]] = defaultdict(list)
"""test -> error of each of its strict comparisons"""


def errors(actual: Any, expected: Any) -> list[float]:
    """|a - b| / max(1, |b|), the largest of each pair of float64 tensors or arrays; nothing of other types."""
    if isinstance(actual, dict):
        return [error for key in actual for error in errors(actual[key], expected[key])]
    if isinstance(actual, list | tuple):
        return [error for pair in zip(actual, expected, strict=True) for error in errors(*pair)]
    a, b = (np.asarray(x.detach().cpu() if isinstance(x, torch.Tensor) else x) for x in (actual, expected))
    if a.dtype != np.float64 or a.size == 0:
        return []
    a, b = np.broadcast_arrays(a, np.asarray(b, dtype=np.float64))
    finite = np.isfinite(a) & np.isfinite(b)
    return [float((np.abs(a - b) / np.maximum(1, np.abs(b)))[finite].max(initial=0.0))]


def watched(compare: Callable[..., None]) -> Callable[..., None]:
    @wraps(compare)
    def comparing(actual: Any, expected: Any, *arguments: Any, **options: Any) -> None:
        compare(actual, expected, *arguments, **options)
        if (options.get("atol") or 1.0) <= STRICT and (options.get("rtol") or 0.0) <= STRICT:
            seen[os.environ.get("PYTEST_CURRENT_TEST", "").partition(" ")[0]] += errors(actual, expected)

    return comparing


def pytest_configure(config: pytest.Config) -> None:
    if TO in os.environ:
        torch.testing.assert_close = watched(torch.testing.assert_close)
        np.testing.assert_allclose = watched(np.testing.assert_allclose)


def pytest_sessionfinish() -> None:
    if TO in os.environ:
        Path(os.environ[TO]).write_text(json.dumps(seen))


def measure(n: int) -> Sequence[Row]:
    """The first n folders."""
    rows = [group(what, tests) for what, tests in list(FOLDERS.items())[:n]]
    fault = FAULTS["gaussian-kl-of-variance-ratio-only"]
    caught = run(fault.tests, fault.key(SLIGHTEST)).caught(fault)
    found = "caught" if caught else "not caught"
    return [*rows, Row(f"{fault.what}, wrong by {SLIGHTEST:.0e} of itself", found, caught is not None, twin=True)]


def group(what: str, tests: Sequence[str]) -> Row:
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "seen.json"
        ended = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", __name__, "-m", "not slow", *tests],
            cwd=REPO, env={**os.environ, TO: str(file), "OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
        )  # fmt: skip
        found: dict[str, list[float]] = json.loads(file.read_text()) if file.exists() else {}
    all_errors = [error for each in found.values() for error in each]
    words = f"largest error {max(all_errors, default=0):.0e} of {len(all_errors)} comparisons in {len(found)} tests"
    words += "" if ended.returncode == 0 else f"; {ended.stdout.strip().splitlines()[-1]}"
    return Row(what, words, ended.returncode == 0 and bool(all_errors) and max(all_errors) <= STRICT)


EXACT = Figure(
    "exact",
    "Exact answers",
    f"All comparisons that the tests make at {STRICT:.0e} in float64 with a reference that shares no code: "
    "closed forms of linear-Gaussian stacks, quadrature, enumeration, plain NumPy. The error is relative where the "
    "answer is larger than 1.",
    len(FOLDERS),
    measure,
)
