"""`python -m tests.reliability.mutants --n 400`: tries the first n mutants of the sample, and goes on where it stopped.

`results.jsonl` has a line for each. A mutant is tried again when its file has changed, and with `--survivors` when it
survived and `survivors.toml` does not say why. Needs the extra `mutants`.
"""

import argparse
import os
import resource
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from tests.reliability.mutants import cover, forks, parts, sample, trial
from tests.reliability.mutants.cover import Covered
from tests.reliability.mutants.figure import explained
from tests.reliability.mutants.sample import Mutant
from tests.reliability.mutants.trial import NOTHING, RESULTS, UNCHANGED, Result, Round

Plan = tuple[Mutant, list[Round]]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.reliability.mutants", description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, required=True, help="how many of the sample")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes at once, one thread each")
    parser.add_argument("--survivors", action="store_true", help="try again what survived unexplained")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no other after so many")
    arguments = parser.parse_args()
    try:
        import cosmic_ray  # noqa: F401
        import coverage  # noqa: F401
    except ModuleNotFoundError as error:
        parser.error(f"{error.name} is not installed; pip install -e '.[test,lab,mutants]'")
    os.environ["OMP_NUM_THREADS"] = "1"
    forks.warm()
    covered = the_map(arguments.jobs)
    mutants, until = sample.sample(arguments.n), time.monotonic() + 60 * arguments.minutes
    found = trial.results(RESULTS)
    wanted = [each for each in mutants if _is_wanted(each, found.get(each.key), arguments.survivors)]
    former = {key: result.killed_by for key, result in found.items()}
    plans = (
        (each, trial.plan(each.source, each.line, trial.text_of(each.source), covered, former.get(each.key, "")))
        for each in wanted
    )
    try_all(plans, len(wanted), arguments.jobs, until)
    found = trial.results(RESULTS)
    if all(each.key in found for each in mutants):
        unchanged = [twin(part, [found[each.key] for each in mutants], covered) for part in parts.PARTS]
        try_all(unchanged, len(unchanged), arguments.jobs, float("inf"))
        found = trial.results(RESULTS)
    keep(found, [each.key for each in mutants])
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    n_killed = sum(found[each.key].killed for each in mutants if each.key in found)
    print(f"{n_killed} of {len(mutants)} killed; this took {used.ru_utime + used.ru_stime:.0f} s of processor time")


def keep(found: Mapping[str, Result], first: Sequence[str]) -> None:
    """Write the file again: the sample in its order, then the rest, without what is stale."""
    digests = {source: parts.digest(source) for source in cover.mutated()}
    keys = [key for key in (*first, *sorted(found.keys() - {*first})) if key in found]
    current = [found[key] for key in keys if found[key].digest == digests.get(found[key].source)]
    whole = RESULTS.with_suffix(".tmp")
    whole.write_text("".join(result.as_json() + "\n" for result in current), "utf-8")
    whole.replace(RESULTS)


def the_map(jobs: int) -> list[Covered]:
    """The map, whole; files that are missing are made first."""
    files = parts.test_files()
    for ended in forks.in_forks(map(cover.making, cover.stale(files)), jobs):
        print(f"which tests run which lines: {ended.name}, {ended.seconds:.0f} s", flush=True)
        if ended.code:
            raise SystemExit(f"{ended.output[-2000:]}\nNo mutant can be tried: {ended.name} does not pass as it is.")
    return cover.read(files)


def try_all(plans: Iterable[Plan], n: int, jobs: int, until: float) -> None:
    """Tries each of n by its plan, begins none after ``until``, and appends each result as it comes."""
    tried: dict[str, Mutant] = {}
    with tempfile.TemporaryDirectory() as scratch:

        def works() -> Iterator[forks.Work[str]]:
            for mutant, rounds in plans:
                if time.monotonic() > until:
                    return
                tried[mutant.key] = mutant
                yield trial.trying(mutant.key, mutant.source, mutant.text, rounds, Path(scratch) / mutant.key)

        for number, ended in enumerate(forks.in_forks(works(), jobs), start=1):
            result = result_of(tried[ended.name], ended, Path(scratch) / ended.name)
            with RESULTS.open("a", encoding="utf-8") as to:
                to.write(result.as_json() + "\n")
            print(f"{number}/{n} {said(result)}", flush=True)


def twin(part: str, results: Sequence[Result], covered: Sequence[Covered]) -> Plan:
    """A change that changes nothing, against every test that killed a mutant of the part."""
    source = parts.sources(part)[0]
    killers = {each.killed_by for each in results if each.source in parts.sources(part)}
    rounds = [
        Round(each.file, {test: took for test, took in each.seconds.items() if test in killers}) for each in covered
    ]
    mutant = Mutant(UNCHANGED.format(part), source, 0, NOTHING, "", "", trial.text_of(source))
    return mutant, [each for each in rounds if each.tests]


def _is_wanted(mutant: Mutant, result: Result | None, again: bool) -> bool:
    stale = result is None or result.digest != parts.digest(mutant.source)
    return stale or (again and not result.killed and mutant.key not in explained())


def result_of(mutant: Mutant, ended: forks.Ended[str], to: Path) -> Result:
    killed_by, kind, n_tests = trial.judged(ended, to)
    return Result(
        mutant.key, mutant.source, parts.digest(mutant.source), mutant.line, mutant.operator, mutant.before,
        mutant.after, killed_by, kind, n_tests, round(ended.seconds, 1),
    )  # fmt: skip


def said(result: Result) -> str:
    how = f"killed by {result.killed_by}" if result.killed else f"SURVIVED {result.n_tests} tests"
    change = f"\n    {result.before}\n    {result.after}" if result.before else ""
    return f"{result.key} {result.source}:{result.line} {how} in {result.seconds} s{change}"


if __name__ == "__main__":
    main()
