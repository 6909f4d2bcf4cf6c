"""Mutants are planted, killed and counted as they should be; where cosmic-ray is installed, the sample is drawn."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.reliability.mutants.cover import Covered, statement
from tests.reliability.mutants.figure import counted, explained, rows
from tests.reliability.mutants.parts import PARTS, REPO, part_of, sources
from tests.reliability.mutants.sample import does_something, lines_that_differ, sample
from tests.reliability.mutants.trial import BUDGET, NOTHING, RESULTS, Result, mirrors, plan, results, text_of

TRIED = """
import json, sys
from pathlib import Path
from tests.reliability.mutants import forks, trial
from tests.reliability.mutants.trial import Round, judged, trying

forks.warm()
trial.PATIENCE = 1.0, 1.0
to, (texts, tests) = Path(sys.argv[1]), json.loads(sys.stdin.read())
rounds = [Round("tests/test_schedules.py", {test: 0.1}) for test in tests]
works = [trying(name, "hvae/schedules.py", text, rounds, to / name) for name, text in texts.items()]
found = {ended.name: judged(ended, to / ended.name) for ended in forks.in_forks(works, 2)}
print(json.dumps([found, "hvae" in sys.modules]))
"""
VALUES = "tests/test_schedules.py::test_values[schedule{0}-expected{0}]"
WARMUP = "self.start + (self.stop - self.start) * min(step / self.warmup_steps, 1.0)"


def test_a_mutant_is_planted_killed_or_survives(tmp_path: Path) -> None:
    """By the second of two tests, by a hang, at import, and not at all; nothing on disk changes."""
    text = text_of("hvae/schedules.py")
    assert text.count(WARMUP) == 1
    texts = {
        "as it is": text,
        "sign": text.replace(WARMUP, WARMUP.replace("self.start +", "self.start -")),
        "hang": text.replace(f"return {WARMUP}", "while True: pass"),
        "import": text.replace("from math import cos, pi", "from math import cos, py"),
    }
    assert len(set(texts.values())) == 4
    tests = [VALUES.format(0), "tests/test_schedules.py::test_that_is_not_there", VALUES.format(1)]
    outcome = subprocess.run(
        [sys.executable, "-c", TRIED, str(tmp_path)],
        cwd=REPO, input=json.dumps([texts, tests]), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert outcome.returncode == 0, outcome.stderr
    found, loaded = json.loads(outcome.stdout)
    assert not loaded, "a process that has imported hvae can plant nothing"
    assert found["as it is"] == ["", "", 2]
    assert found["sign"] == [VALUES.format(1), "AssertionError", 1]
    assert found["hang"] == ["hang", "SIGPROF", 1]
    assert found["import"] == ["tests/test_schedules.py", "CollectError", 0]
    assert text_of("hvae/schedules.py") == text


SOURCE = '''
def f(x: int | None, *, y=2):
    """Twice 2."""
    if x is None:
        raise ValueError(f"{1 + 1} is none")
    return (
        x +
        y
    )
'''


@pytest.mark.parametrize(
    ("old", "new", "does"),
    [
        ("x +", "x -", True),
        ("y=2", "y=3", True),
        ("x is None", "x is not None", True),
        ("int | None", "int & None", False),
        ("Twice 2", "Twice 3", False),
        ("1 + 1", "1 - 1", False),
        ("*, y", "/, y", False),
        ("x +", "x >", True),
        ("x +", "x", False),  # no Python
    ],
)
def test_what_changes_nothing_that_is_computed_is_no_mutant(old: str, new: str, does: bool) -> None:
    assert SOURCE.count(old) == 1
    assert does_something(SOURCE, SOURCE.replace(old, new)) == does


def test_the_lines_that_differ() -> None:
    assert lines_that_differ(SOURCE, SOURCE.replace("x +", "x -")) == ("x +", "x -")
    assert lines_that_differ("a\n@b\nc\n", "a\nc\n") == ("@b", "")
    assert lines_that_differ("a\na\n", "a\n") == ("a", "")
    assert [*statement(SOURCE, 8)] == [6, 7, 8] and [*statement(SOURCE, 2)] == [2]


def test_the_plan_is_quick_tests_of_every_file_first_and_ends_with_the_budget() -> None:
    source = "hvae/numerics.py"
    quick = Covered("quick.py", {"q1": 1.0, "q2": 0.5, "q3": 90.0, "q4": 0.1}, {
        "q1": {source: [3, 4]}, "q2": {source: [3]}, "q3": {source: [3]}, "q4": {source: [9]},
    })  # fmt: skip
    slow = Covered("slow.py", {"s1": 50.0, "s2": 200.0}, {"s1": {source: [3]}, "s2": {source: [4]}})
    other = Covered("other.py", {"o": 0.1}, {"o": {"hvae/evidence.py": [3]}})
    text = "x = 1\n\ny = 2\nz = (\n    3)\n"

    def found(line: int, first: str = "") -> list[tuple[str, list[str]]]:
        return [(each.file, [*each.tests]) for each in plan(source, line, text, [slow, quick, other], first)]

    assert found(3) == [("quick.py", ["q2", "q1"]), ("slow.py", ["s1"]), ("quick.py", ["q3"]), ("quick.py", ["q4"])]
    assert found(3, "q1")[:2] == [("quick.py", ["q1"]), ("quick.py", ["q2"])]
    assert found(5)[0] == ("quick.py", ["q1"]), "the statement begins on line 4"
    assert {test for _, tests in found(1) for test in tests} >= {"q1", "q4", "s1"}, "at import: whatever runs the file"
    assert all("other.py" != file for file, _ in found(1))
    slow = replace(slow, file="tests/test_numerics.py")
    assert found(3)[0] == ("quick.py", ["q2", "q1"]) and found(4)[0] == ("quick.py", ["q1"]), "it has no quick test"
    slow = replace(slow, seconds={"s1": 1.5, "s2": 200.0})
    assert found(3)[0] == ("tests/test_numerics.py", ["s1"]), "its own file first"
    assert mirrors("tests/families/test_rich.py", "hvae/families/flow.py")
    assert not mirrors("tests/test_evidence.py", source) and not mirrors("tests/exact/test_solve.py", source)
    assert BUDGET == 150


def result(key: str, source: str, killed_by: str, operator: str = "NumberReplacer") -> Result:
    return Result(key, source, "", 1, operator, "1", "2", killed_by, "AssertionError", 3, 1.0)


def test_a_line_that_was_cut_off_is_no_result_and_the_last_counts(tmp_path: Path) -> None:
    file = tmp_path / "results.jsonl"
    assert results(file) == {}
    first, again, other = result("a", "s", ""), result("a", "s", "t"), result("b", "s", "t")
    file.write_text(f"{first.as_json()}\n{again.as_json()}\n{other.as_json()}")
    assert results(file) == {"a": again}


def test_the_rows_say_what_was_killed_and_the_twins_what_was_not() -> None:
    mutants = [result(f"{part}{i}", sources(part)[0], "t" if i else "") for part in PARTS for i in range(10)]
    twins = [result(part, sources(part)[0], "", NOTHING) for part in PARTS]
    why = {f"{part}0": "equivalent" for part in PARTS}
    all_of, explained_row, *of_parts, twin = rows([*mutants, *twins], why)
    assert all_of.found == "54 of 60 killed, 95 % interval [79 %, 96 %]" and all_of.ok
    assert [row.what for row in of_parts] == [*PARTS] and all(row.ok for row in of_parts)
    assert explained_row.found == "6 of 6" and explained_row.ok and twin.ok and twin.twin
    worse = [result("more", sources("evidence")[0], ""), *mutants]
    assert not rows([*worse, *twins], why)[0].ok and not rows([*worse, *twins], why)[1].ok
    assert not rows([*mutants, *twins[1:]], why)[-1].ok
    assert not rows([*mutants, replace(twins[0], killed_by="t"), *twins[1:]], why)[-1].ok
    low = [replace(each, killed_by="") if part_of(each.source) == "likelihood" else each for each in mutants]
    assert [row.what for row in rows([*low, *twins], why)[2:-1] if not row.ok] == ["likelihood"]
    assert counted([]).startswith("0 of 0")


def test_every_survivor_has_its_sentence_and_its_line() -> None:
    found = results(RESULTS)
    survivors = {key for key, each in found.items() if not each.killed and each.operator != NOTHING}
    assert explained().keys() == survivors
    for key in survivors:
        assert found[key].before in "\n".join(line.strip() for line in text_of(found[key].source).splitlines())


def test_the_first_of_a_sample_stay_the_first() -> None:
    pytest.importorskip("cosmic_ray")
    three, five = sample(3), sample(5)
    assert five[:3] == three and len({mutant.key for mutant in five}) == 5
    for mutant in five:
        assert does_something(text_of(mutant.source), mutant.text) and mutant.before != mutant.after
