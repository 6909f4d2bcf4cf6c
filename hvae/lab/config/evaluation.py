"""Settings of the evaluation."""

from dataclasses import dataclass
from typing import Annotated

from hvae.lab.config.checks import Between, Seed, check_numbers

Many = Annotated[int, Between(2, 10**7)]
"""what needs a spread"""


@dataclass(frozen=True)
class EvaluationConfig:
    """What is measured of the finished run, on test images drawn at random with `seed`."""

    n_images: Many = 512
    """test images for the information measures, which cannot exceed log(n_images) nats"""
    max_paths: Many = 1024
    """largest number M of sampled paths per image in the nested information bounds"""
    n_alternatives: Annotated[int, Between(1, 10**5)] = 64
    """codes against which the decoder's use V of a layer is told, which cannot exceed log(n_alternatives + 1) nats"""
    n_paths_use: Annotated[int, Between(1, 10**6)] = 32
    """draws per image of U, what the layer below can tell of the image"""
    n_paths_knockout: Annotated[int, Between(1, 10**6)] = 32
    """samples per image of each bound whose difference is a knock-out"""
    epsilon_nats: Annotated[float, Between(1e-9, 1e6)] = 0.1
    """threshold of the verdict in nats; a layer below it is collapsed"""
    n_likelihood: Many = 500
    """test images for the likelihood curve"""
    n_samples: Many = 1000
    """K, importance samples per image for that curve"""
    n_likelihood_deep: Annotated[int, Between(0, 10**7)] = 0
    """test images for the likelihood at `evaluation.n_samples_deep`; 0 leaves it out"""
    n_samples_deep: Many = 5000
    """K of the deep likelihood"""
    seed: Seed = 0
    """seed of the choice of images, and of all draws"""

    def __post_init__(self) -> None:
        check_numbers("evaluation", self)
