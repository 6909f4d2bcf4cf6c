"""Settings of the evaluation."""

import math
from dataclasses import dataclass

from hvae.lab.config.checks import require


@dataclass(frozen=True)
class EvaluationConfig:
    """What is measured of the finished run, on test images drawn at random with `seed`."""

    n_images: int = 512
    """test images for the information measures, which cannot exceed log(n_images) nats"""
    max_paths: int = 1024
    """largest number M of sampled paths per image in the nested information bounds"""
    epsilon_nats: float = 0.1
    """threshold of the verdict in nats; a layer below it is collapsed"""
    n_likelihood: int = 500
    """test images for the likelihood curve"""
    n_samples: int = 1000
    """K, importance samples per image for that curve"""
    n_likelihood_deep: int = 0
    """test images for the likelihood at `evaluation.n_samples_deep`; 0 leaves it out"""
    n_samples_deep: int = 5000
    """K of the deep likelihood"""
    seed: int = 0
    """seed of the choice of images, and of all draws"""

    def __post_init__(self) -> None:
        for knob in ("n_images", "max_paths", "n_likelihood", "n_samples", "n_samples_deep"):
            value = getattr(self, knob)
            require(value >= 2, f"evaluation.{knob} is {value}; give at least 2.")
        n_deep = self.n_likelihood_deep
        require(n_deep >= 0, f"evaluation.n_likelihood_deep is {n_deep}; give 0 or more.")
        require(
            0 < self.epsilon_nats < math.inf,
            f"evaluation.epsilon_nats is {self.epsilon_nats}; give a number of nats above 0.",
        )
        require(self.seed >= 0, f"evaluation.seed is {self.seed}; give 0 or more.")
