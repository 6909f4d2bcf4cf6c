"""Settings of the data."""

from dataclasses import dataclass
from typing import Annotated

from hvae.lab.config.checks import Between, Seed, check_numbers, require

Items = Annotated[int, Between(0, 10**12)]


@dataclass(frozen=True)
class DataConfig:
    """Which images a run sees."""

    name: str = "digits-threshold"
    """data set: a name from `hvae data list`, or the path of a .npz, .npy, .csv or .mat file; append :dynamic or
    :threshold to binarise"""
    n_train: Items = 0
    """number of training images, drawn at random with `data.seed`; 0 takes all"""
    n_test: Items = 0
    """number of test images, drawn at random with `data.seed`; 0 takes all"""
    seed: Seed = 0
    """seed of these subsets, of the test split of a file without one, and of test images that are binarised once"""

    def __post_init__(self) -> None:
        require(self.name != "", "data.name is empty; see `hvae data list`.")
        check_numbers("data", self)
