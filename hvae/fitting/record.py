"""What a step yields, as tensors on the device: means over samples and data of a batch, in nats, one per replica."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from hvae.evidence import Evidence

Also = Callable[[Evidence, int], Mapping[str, Tensor]]
"""(evidence of one replica, step) -> further terms of its record, tensors of any shape"""


@dataclass(frozen=True)
class Record:
    """One step of R replicas, read from the batch before the step moved the weights.

    A tensor waits for its device when it is printed or turned into numbers, and only then. ``terms`` hold the
    distortion, the rate of every latent, the bound, and what `fit` was asked to record beside them, each ``[R, ...]``.

    >>> terms = {"distortion_nats": torch.tensor([90.0]), "rate_nats/z1": torch.tensor([2.0])}
    >>> terms["bound_nats"] = -terms["distortion_nats"] - terms["rate_nats/z1"]
    >>> record = Record(1, torch.tensor([92.0]), terms, torch.tensor([True]), learning_rate=1e-3)
    >>> record.bound_nats, record.rate_nats
    (tensor([-92.]), {'z1': tensor([2.])})
    """

    step: int
    """steps done, 1 after the first"""
    loss_nats: Tensor
    """what the step made lower ``[R]``"""
    terms: Mapping[str, Tensor]
    alive: Tensor
    """which replicas are finite and still train, bool ``[R]``"""
    learning_rate: float

    @property
    def bound_nats(self) -> Tensor:
        """The ELBO of the batch, ``-distortion - Σ_l rate_l``, whatever the objective is ``[R]``."""
        return self.terms["bound_nats"]

    @property
    def distortion_nats(self) -> Tensor:
        """``-log p(x|z)`` ``[R]``."""
        return self.terms["distortion_nats"]

    @property
    def rate_nats(self) -> dict[str, Tensor]:
        """Latent, z1 first -> its rate ``[R]``."""
        start = "rate_nats/"
        return {name.removeprefix(start): term for name, term in self.terms.items() if name.startswith(start)}


def summary(evidence: Evidence) -> dict[str, Tensor]:
    """The terms of every record, of one replica: scalars."""
    terms = {"distortion_nats": evidence.distortion.mean()}
    for name in evidence.latents:
        terms[f"rate_nats/{name}"] = evidence.rate(name).mean()
    terms["bound_nats"] = -sum(terms.values(), start=torch.zeros_like(terms["distortion_nats"]))
    return terms


def nothing_more(evidence: Evidence, step: int) -> Mapping[str, Tensor]:
    """No further terms."""
    return {}
