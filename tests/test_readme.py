"""The Python examples of the front page and of the laboratory's run as they stand, in an empty directory."""

import re
from pathlib import Path

import pytest
import torch

from tests.foreign.examples import example as example_of

REPO = Path(__file__).parents[1]
README, LABORATORY = REPO / "README.md", REPO / "docs" / "laboratory.md"


def test_the_example_trains_a_stack_and_prints_its_layers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", LABORATORY.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert len([line for line in example.splitlines() if line and "import" not in line]) <= 15
    monkeypatch.chdir(tmp_path)
    exec(compile(example, "laboratory.md", "exec"), {})
    printed = capsys.readouterr().out
    assert all(layer in printed for layer in ("z1", "z2", "z3")) and "active" in printed
    assert (tmp_path / "runs" / "own").is_dir()


def test_the_front_page_diagnoses_a_model_of_ones_own(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its lines are at most fifteen, and print what stands below them but for the numbers."""
    text = README.read_text(encoding="utf-8")
    ((example, shown),) = re.findall(r"```python\n(.*?)```\n\n```text\n(.*?)```", text, flags=re.DOTALL)
    assert len([line for line in example.splitlines() if line.strip() and not line.startswith("#")]) <= 15
    own_model = example_of("own_model")
    torch.manual_seed(0)
    monkeypatch.setenv("COLUMNS", "80")
    exec(compile(example, "README.md", "exec"), {"vae": own_model.Vae(), "x_test": own_model.bars(60, seed=1)})
    printed = capsys.readouterr().out
    assert printed.splitlines()[:3] == [line.rstrip() for line in printed.splitlines()[:3]]
    for line in ("layer  active  verdict", "Verdict at 0.1 nats, rule 3", "log p(x) is on average at least"):
        assert line in printed and line in shown
    assert len(text.splitlines()) <= 125
