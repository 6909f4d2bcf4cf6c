"""What is kept of a report: small files, and a page that names what made them."""

import re
import subprocess
from pathlib import Path

import pytest

from hvae.analysis.exhibits import GAP, LAYERS
from hvae.analysis.results import write_results
from hvae.analysis.sections import comparison, resolutions, signal
from hvae.errors import ConfigError
from hvae.experiments.depth import configs
from hvae.lab import experiment
from tests.analysis.fabricate import fabricate

REPO = Path(__file__).parents[2]
RESULTS = REPO / "experiments" / "results"
MIB = 2**20
MOST_OF_A_PICTURE, MEAN_OF_PICTURES, MOST_OF_ARRAYS, MOST_OF_ALL = 150_000, 50_000, 750_000, 12 * MIB


def test_results_are_small_files_and_a_page_with_their_origin(tmp_path: Path) -> None:
    demo = configs("demo")
    fabricate(tmp_path, {label: demo[label] for label in ("depth-1", "depth-2 bottom-up")})
    page = write_results(tmp_path / "depth", tmp_path / "kept" / "depth", preset="demo")
    text = page.read_text(encoding="utf-8")
    assert text.startswith("# depth, preset demo") and "## What made it" in text
    assert "depth-2 bottom-up" in text and "command:" in text and "commit:" in text
    for link in ("tables/verdict.csv", "tables/likelihood.csv", "figures/information.png"):
        assert f"({link})" in text and (page.parent / link).is_file()
    sizes = [file.stat().st_size for file in page.parent.rglob("*") if file.is_file()]
    assert len(sizes) > 5 and max(sizes) < MOST_OF_A_PICTURE


def test_a_file_that_lies_there_already_is_left_alone(tmp_path: Path) -> None:
    fabricate(tmp_path, {"depth-1": configs("demo")["depth-1"]})
    mine = tmp_path / "kept" / "figures" / "mine.svg"
    mine.parent.mkdir(parents=True)
    mine.write_text("drawn by hand")
    page = write_results(tmp_path / "depth", tmp_path / "kept", preset="demo")
    assert mine.read_text() == "drawn by hand" and "mine.svg" not in page.read_text(encoding="utf-8")


@pytest.mark.parametrize("place", ["README.md", "tables/verdict.csv", "figures/rate.png", "arrays/runs.npz"])
def test_what_no_report_wrote_is_not_replaced(tmp_path: Path, place: str) -> None:
    fabricate(tmp_path, {"depth-1": configs("demo")["depth-1"]})
    mine = tmp_path / "kept" / place
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    with pytest.raises(ConfigError, match=f"has {place}, which no report wrote; give another folder"):
        write_results(tmp_path / "depth", tmp_path / "kept", preset="demo")
    assert mine.read_text() == "mine" and len([file for file in (tmp_path / "kept").rglob("*") if file.is_file()]) == 1
    mine.unlink()
    for _ in range(2):  # a page that a report wrote is written again
        write_results(tmp_path / "depth", tmp_path / "kept", preset="demo")


def test_a_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    fabricate(tmp_path, {"depth-1": configs("demo")["depth-1"]})
    (tmp_path / "kept").write_text("in the way")
    with pytest.raises(ConfigError, match="cannot be written"):
        write_results(tmp_path / "depth", tmp_path / "kept", preset="demo")


# -- what is committed -----------------------------------------------------------------------------------


def pages() -> list[Path]:
    return sorted(file.parent for file in RESULTS.glob("*/README.md"))


def pictures(page: Path) -> list[Path]:
    return sorted((page / "figures").iterdir())


def tracked() -> list[Path]:
    """The files of the checkout; the test is skipped where there is none."""
    try:
        found = subprocess.run(["git", "ls-files", "-z"], cwd=REPO, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no checkout of git")
    return [REPO / name for name in found.split("\0") if name and (REPO / name).is_file()]


def links(file: Path) -> list[Path]:
    """Files that a page in Markdown links to or shows."""
    targets = re.findall(r"\]\(([^)\s]+)\)", file.read_text(encoding="utf-8"))
    return [file.parent / target.partition("#")[0] for target in targets if not re.match(r"[a-z]+:|#", target)]


def drawn(name: str) -> set[str]:
    """Names of all figures that the report of an experiment may draw."""
    module = experiment.find(name)
    sections = (comparison.SECTION, *getattr(module, "sections", tuple)(), signal.SECTION, resolutions.SECTION)
    exhibits = [*LAYERS, *GAP, *(exhibit for section in sections for exhibit in section.figures)]
    own = getattr(module, "curves", ())
    names = {exhibit.name for exhibit in exhibits} | {curves.name for curves in own}
    panels = range(1, len(getattr(module, "panels", ())) + 1)
    return names | {f"{kind}-{panel}" for kind in ("stack", "resampling") for panel in panels}


def test_every_picture_is_on_its_page_and_every_link_leads_somewhere() -> None:
    assert len(pages()) == 14
    documents = [REPO / "README.md", REPO / "CONTRIBUTING.md", *RESULTS.rglob("*.md"), *(REPO / "docs").rglob("*.md")]
    linked = {file: links(file) for file in documents if "report" not in file.relative_to(REPO).parts}
    dead = [f"{file.relative_to(REPO)}: {target}" for file, found in linked.items() for target in found
            if not target.exists()]  # fmt: skip
    assert not dead
    for page in pages():
        shown = {target.resolve() for target in linked[page / "README.md"]}
        assert not [picture for picture in pictures(page) if picture.resolve() not in shown]


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_pictures_are_those_that_the_experiment_keeps_and_draws(page: Path) -> None:
    kept = experiment.find(page.name).KEPT
    assert len(set(kept)) == len(kept) and set(kept) <= drawn(page.name)
    assert {picture.stem for picture in pictures(page)} <= set(kept)
    assert {picture.suffix for picture in pictures(page)} == {".png"}


def test_a_page_of_an_older_rule_says_so() -> None:
    """Where no arrays were kept, nothing can be judged again."""
    for page in pages():
        if not (page / "arrays").is_dir():
            for name in ("README.md", "summary.md"):
                assert "Made under rule 1" in (page / name).read_text(encoding="utf-8")[:1000], (page.name, name)


def test_only_pages_have_pictures() -> None:
    """And the documentation has one that its program draws."""
    strays = [file for file in tracked() if file.suffix in (".png", ".svg", ".jpg", ".gif", ".pdf")]
    strays = [file for file in strays if not file.with_suffix(".py").exists()]
    assert {file.parent.parent for file in strays} <= set(pages())
    assert {file.parent.name for file in strays} == {"figures"}


def test_what_is_committed_is_small() -> None:
    sizes = {file: file.stat().st_size for file in tracked()}
    shown = [size for file, size in sizes.items() if file.suffix == ".png"]
    assert len(shown) > 30 and max(shown) <= MOST_OF_A_PICTURE
    assert sum(shown) / len(shown) <= MEAN_OF_PICTURES
    for page in pages():
        assert sum(size for file, size in sizes.items() if file.parent == page / "arrays") <= MOST_OF_ARRAYS
    assert sum(sizes.values()) < MOST_OF_ALL
