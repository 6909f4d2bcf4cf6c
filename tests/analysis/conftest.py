"""Fabricated run directories, written once and read by every test of this directory."""

from pathlib import Path

import pytest

from hvae.analysis.study import Study, open_study
from hvae.experiments.depth import configs
from tests.analysis.fabricate import fabricate


@pytest.fixture(scope="session")
def depth_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The nineteen runs of the demo preset with four replicas each."""
    root = tmp_path_factory.mktemp("runs")
    fabricate(root, configs("demo"))
    return root / "depth"


@pytest.fixture(scope="session")
def depth_study(depth_directory: Path) -> Study:
    return open_study(depth_directory)
