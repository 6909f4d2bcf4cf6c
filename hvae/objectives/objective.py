"""What every objective answers to."""

from abc import ABC, abstractmethod
from collections.abc import Mapping

from hvae.evidence import HVAE, Evidence
from hvae.network import Trace
from hvae.rng import NoiseSpecs
from hvae.shapes import LogProb, Noise, Scalar, Value


class Objective(ABC):
    """What a batch costs, nats per datum."""

    def noise_specs(self, model: HVAE) -> NoiseSpecs:
        """The noise that `on` takes."""
        return model.noise_specs()

    @abstractmethod
    def on(self, model: HVAE, x: Value, noise: Mapping[str, Noise], step: int) -> tuple[Scalar, Evidence]:
        """The loss of x ``[1, B, D]`` with noise ``[K, B, ·]``, and the evidence z ~ q(z|x) that it rests on."""


def total(trace: Trace) -> LogProb:
    """log-probability of all values of a trace, ``[K, B]``."""
    terms = [site.log_prob for site in trace.values()]
    return sum(terms[1:], start=terms[0])
