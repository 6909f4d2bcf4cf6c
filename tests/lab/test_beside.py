"""Which files say how an experiment measures: a change of any of them is another digest, a change of others is not."""

import os
from functools import partial
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from hvae.lab import experiment
from hvae.lab.beside import code_of, digest_of, measure_once
from hvae.lab.runs.lock import hold, holder

FILES = {
    "shared/__init__.py": "",
    "shared/tools.py": "from hvae.experiments.shared.deeper import leaf\n",
    "shared/deeper/__init__.py": "",
    "shared/deeper/leaf.py": "import hvae.experiments.delta\n",
    "shared/unused.py": "VALUE = 1\n",
    "alpha/__init__.py": '"""Why?"""\nfrom hvae.experiments.shared.tools import f\n',
    "alpha/claims.py": "from hvae.experiments.beta.part import g\n",
    "alpha/inner/deep.py": "def late():\n    from hvae.experiments import epsilon\n",
    "alpha/numbers.csv": "1\n",
    "alpha/notes.json": "{}\n",
    "alpha/reading.md": "What it says.\n",
    "beta/__init__.py": '"""And what?"""\n',
    "beta/part.py": "from hvae.experiments.alpha import claims\n",
    "beta/other.py": "VALUE = 1\n",
    "gamma.py": '"""A short one."""\nfrom hvae.experiments.alpha.claims import g\n',
    "delta.py": '"""Imported by what is shared."""\n',
    "epsilon/__init__.py": '"""Imported in a function."""\n',
    "epsilon/table.csv": "2\n",
    "zeta.py": '"""Nobody asks it."""\n',
    "results/alpha.json": "{}\n",
}
"""a folder of experiments; those of alpha and beta import each other"""
OF_ALPHA = {
    "alpha/__init__.py", "alpha/claims.py", "alpha/inner/deep.py", "alpha/numbers.csv", "alpha/notes.json",
    "shared/tools.py", "shared/deeper/leaf.py", "beta/part.py", "delta.py", "epsilon/__init__.py", "epsilon/table.csv",
}  # fmt: skip
OF_GAMMA = (OF_ALPHA - {"alpha/numbers.csv", "alpha/notes.json"}) | {"gamma.py"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    return tmp_path


def module(folder: Path, name: str) -> ModuleType:
    found = ModuleType(f"hvae.experiments.{name}")
    place = folder / name
    found.__file__ = str(place / "__init__.py" if place.is_dir() else place.with_suffix(".py"))
    return found


def test_the_code_is_the_folder_and_what_it_imports_and_so_on(folder: Path) -> None:
    assert set(code_of(module(folder, "alpha"))) == OF_ALPHA
    assert set(code_of(module(folder, "gamma"))) >= {"gamma.py", "alpha/claims.py", "beta/part.py"}
    assert set(code_of(module(folder, "zeta"))) == {"zeta.py"}


@pytest.mark.parametrize("name", FILES)
def test_the_digest_changes_with_its_own_code_only(name: str, folder: Path) -> None:
    alpha, zeta = module(folder, "alpha"), module(folder, "zeta")
    before = digest_of(alpha), digest_of(zeta)
    file = folder / name
    file.write_text(file.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    after = digest_of(alpha), digest_of(zeta)
    assert (after[0] != before[0]) == (name in OF_ALPHA)
    assert (after[1] != before[1]) == (name == "zeta.py")


def test_a_file_that_is_new_renamed_or_gone_is_another_digest(folder: Path) -> None:
    alpha = module(folder, "alpha")
    seen = [digest_of(alpha)]
    (folder / "alpha" / "more.py").write_text("VALUE = 1\n")
    seen.append(digest_of(alpha))
    (folder / "alpha" / "more.py").rename(folder / "alpha" / "less.py")
    seen.append(digest_of(alpha))
    (folder / "alpha" / "less.py").unlink()
    seen.append(digest_of(alpha))
    assert len(set(seen)) == 3 and seen[0] == seen[3]


@pytest.mark.parametrize("name", experiment.names())
def test_every_experiment_has_its_own_files_and_knows_no_results(name: str) -> None:
    found = experiment.find(name)
    code = code_of(found)
    own = Path(found.__file__ or "")
    held = set(own.parent.rglob("*.py")) if own.name == "__init__.py" else {own}
    assert held <= set(code.values()) and not any(file.startswith("results/") for file in code)


def test_each_part_is_measured_once_and_by_one_process(tmp_path: Path) -> None:
    calls: list[str] = []
    lines: list[str] = []

    def measured(digest: str, *parts: str) -> list[str]:
        makes = {part: partial(made, part) for part in parts}
        return measure_once(tmp_path / "measured", makes, dict.fromkeys(parts, "cpu"), 1, digest, lines.append)

    def made(part: str) -> dict[str, object]:
        assert holder(tmp_path / "measured").startswith(f"process {os.getpid()} ")
        calls.append(part)
        return {"x": np.arange(3)}

    assert measured("one", "a", "b") == [] and measured("one", "a", "b") == [] and calls == ["a", "b"]
    assert measured("two", "a", "b", "c") == ["a", "b"] and calls == ["a", "b", "c"]
    (tmp_path / "measured" / "b.npz").unlink()  # killed between the provenance and the arrays
    assert measured("two", "a", "b", "c") == ["a"] and calls == ["a", "b", "c", "b"] and lines == []


def test_what_another_process_measures_is_waited_for_and_not_measured_again(tmp_path: Path) -> None:
    lines: list[str] = []

    def made() -> dict[str, object]:
        raise AssertionError("it was made meanwhile")

    held = hold(tmp_path)
    held.__enter__()

    def say(line: str) -> None:
        lines.append(line)
        np.savez(tmp_path / "a.npz", x=np.arange(3))
        held.__exit__(None, None, None)

    assert measure_once(tmp_path, {"a": made}, {"a": "cpu"}, 1, "one", say) == [] and len(lines) == 1
