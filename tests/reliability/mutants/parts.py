"""What is mutated, and the tests that may see it."""

import hashlib
from functools import cache
from pathlib import Path

REPO = Path(__file__).parents[3]
BUILT = REPO / "build/mutants"
"""what is made again when it is missing"""

PARTS = {
    "numerics": ("hvae/numerics.py",),
    "families": ("hvae/families/*.py",),
    "evidence": ("hvae/evidence.py",),
    "objectives": ("hvae/objectives/*.py",),
    "likelihood": ("hvae/likelihood/*.py",),
    "verdict": (
        "hvae/diagnostics/verdict.py", "hvae/diagnostics/critic.py", "hvae/diagnostics/laws.py",
        "hvae/measuring/judging.py", "hvae/certain.py",
    ),
}  # fmt: skip
"""the words of a verdict, V_l, the divergences, what puts them together, and the intervals"""

TESTS = (
    "tests/test_numerics.py", "tests/test_certain.py", "tests/test_evidence.py", "tests/test_network.py",
    "tests/test_posterior.py", "tests/test_every_stack.py", "tests/families", "tests/objectives", "tests/likelihood",
    "tests/diagnostics", "tests/diagnosis", "tests/measuring", "tests/exact",
)  # fmt: skip


@cache
def sources(part: str) -> tuple[str, ...]:
    """The files of a part, from the repository's root."""
    return tuple(sorted(str(path.relative_to(REPO)) for glob in PARTS[part] for path in REPO.glob(glob)))


def part_of(source: str) -> str:
    """The part that a file belongs to."""
    return next(part for part in PARTS if source in sources(part))


def test_files() -> tuple[str, ...]:
    """The files of `TESTS`."""
    found = [file for name in TESTS for file in sorted(REPO.glob(f"{name}/test_*.py")) or [REPO / name]]
    return tuple(str(path.relative_to(REPO)) for path in found)


def digest(*files: str) -> str:
    """What names the contents of files."""
    return hashlib.sha256(b"\0".join((REPO / file).read_bytes() for file in files)).hexdigest()[:12]
