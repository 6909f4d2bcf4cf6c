"""What is kept of a report: small files, and a page that names what made them."""

from pathlib import Path

import pytest

from hvae.analysis.results import write_results
from hvae.errors import ConfigError
from hvae.experiments.depth import configs
from tests.analysis.fabricate import fabricate


def test_results_are_small_files_and_a_page_with_their_origin(tmp_path: Path) -> None:
    demo = configs("demo")
    fabricate(tmp_path, {label: demo[label] for label in ("depth-1", "depth-2 bottom-up")})
    page = write_results(tmp_path / "depth", tmp_path / "kept" / "depth", preset="demo")
    text = page.read_text(encoding="utf-8")
    assert text.startswith("# depth, preset demo") and "## What made it" in text
    assert "depth-2 bottom-up" in text and "command:" in text and "commit:" in text
    for link in ("tables/verdict.csv", "tables/likelihood.csv", "figures/information.svg"):
        assert f"({link})" in text and (page.parent / link).is_file()
    sizes = [file.stat().st_size for file in page.parent.rglob("*") if file.is_file()]
    assert len(sizes) > 5 and max(sizes) < 300_000


def test_a_file_that_lies_there_already_is_left_alone(tmp_path: Path) -> None:
    fabricate(tmp_path, {"depth-1": configs("demo")["depth-1"]})
    mine = tmp_path / "kept" / "figures" / "mine.svg"
    mine.parent.mkdir(parents=True)
    mine.write_text("drawn by hand")
    page = write_results(tmp_path / "depth", tmp_path / "kept", preset="demo")
    assert mine.read_text() == "drawn by hand" and "mine.svg" not in page.read_text(encoding="utf-8")


def test_what_is_committed_is_small() -> None:
    files = [file for file in (Path(__file__).parents[2] / "experiments" / "results").rglob("*") if file.is_file()]
    assert len(files) > 100
    assert not [file for file in files if file.stat().st_size >= 300_000]


def test_a_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    fabricate(tmp_path, {"depth-1": configs("demo")["depth-1"]})
    (tmp_path / "kept").write_text("in the way")
    with pytest.raises(ConfigError, match="cannot be written"):
        write_results(tmp_path / "depth", tmp_path / "kept", preset="demo")
