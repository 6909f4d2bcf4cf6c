"""The programs of examples/ run, trained for a moment only."""

import re
from pathlib import Path

import pytest

from tests.foreign.examples import example

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_a_vae_of_ones_own(capsys: pytest.CaptureFixture[str]) -> None:
    found = example("own_model").main(n_steps=20)
    assert list(found.verdicts) == ["z"] and "own_elbo agrees" in " ".join(capsys.readouterr().out.split())


def test_a_vdvae() -> None:
    found = example("vdvae").main(sizes=(1, 2, 8), n_steps=2)
    assert list(found.verdicts) == ["z1", "z2", "z3"]


@pytest.mark.parametrize("name", sorted(path.name for path in EXAMPLES.glob("*.py")))
def test_a_program_is_read_in_a_minute(name: str) -> None:
    lines = [line for line in (EXAMPLES / name).read_text(encoding="utf-8").splitlines() if line.strip()]
    assert 40 <= len(lines) <= 100
    assert re.match(r'"""[A-Z]', lines[0])
