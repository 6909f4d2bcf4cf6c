"""Settings of the objective."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

from hvae.lab.config.checks import Between, Share, Weight, check_numbers, require
from hvae.schedules import Constant, Schedule

Gradient = Literal[
    "pathwise", "sticking-the-landing", "doubly-reparametrised", "covariance", "relaxed", "straight-through"
]
ObjectiveName = Literal["elbo", "iwae", "vimco", "tvo", "wake-sleep", "reweighted-wake-sleep", "symmetric"]
GAMES = ("wake-sleep", "reweighted-wake-sleep", "symmetric")
"""objectives of two players, decoder and encoder, each with its own utility"""
RELAXED = ("relaxed", "straight-through")
"""biased gradients through the draws of discrete layers"""
GRADIENTS: Mapping[str, tuple[Gradient, ...]] = {
    "elbo": ("pathwise", "sticking-the-landing", "relaxed", "straight-through"),
    "iwae": ("pathwise", "doubly-reparametrised", "relaxed", "straight-through"),
    "tvo": ("pathwise", "covariance"),
}
"""the estimators of each objective; pathwise only for the others"""


@dataclass(frozen=True)
class ObjectiveConfig:
    """What is maximised."""

    name: ObjectiveName = "elbo"
    """what is maximised. elbo: averaged over K samples. iwae: the importance-weighted bound of K samples. vimco: the
    same, with the paper's baseline for discrete layers. tvo: the thermodynamic bound. wake-sleep, reweighted-wake-sleep
    (K samples) and symmetric: two utilities, of decoder and encoder; without labels, symmetric is wake-sleep"""
    n_samples: Annotated[int, Between(1, 10**6)] = 1
    """number K of draws from q per image"""
    beta: Annotated[Schedule, Between(0, 1e6)] = field(default_factory=lambda: Constant(1.0))
    """weight β of the rates; with {"warmup_steps": 500} it rises from 0 to 1 in 500 steps"""
    layer_beta: tuple[Weight, ...] = (1.0,)
    """constant factor on β for each layer"""
    free_nats: tuple[Weight, ...] = (0.0,)
    """rate in nats below which a layer pays nothing, as a mean over the batch; elbo only"""
    unit_free_nats: tuple[Weight, ...] = (0.0,)
    """rate in nats below which a unit pays nothing, as a mean over the batch; elbo and factorised layers only"""
    gradient: Gradient = "pathwise"
    """gradient estimator. pathwise: with the score function for discrete layers. sticking-the-landing (elbo),
    doubly-reparametrised (iwae): same expectation without the score of q, for Gaussian layers. covariance (tvo):
    follows no path. Two are for discrete layers, and biased. relaxed: continuous draws, so bounds recorded in training
    are surrogates. straight-through: the gradient of relaxed, with hard draws. Evaluation always takes hard draws"""
    temperature: Annotated[float, Between(1e-6, 1e6)] = 0.5
    """temperature of the continuous draws behind relaxed and straight-through gradients, only. Lower has less bias
    (none in the limit, for relaxed) and more variance"""
    partition: tuple[Share, ...] = (0.0, 0.03, 0.1, 0.3)
    """inverse temperatures of the thermodynamic bound, rising from 0 and below 1; tvo only"""
    sleep: Share = 0.5
    """share of the decoder's own samples (dreams) in what the encoder learns from; reweighted-wake-sleep only"""

    def __post_init__(self) -> None:
        check_numbers("objective", self)
        for knob in ("layer_beta", "free_nats", "unit_free_nats"):
            values = getattr(self, knob)
            require(len(values) >= 1, f"objective.{knob} is empty; give one number, or one per layer.")
        for knob in ("free_nats", "unit_free_nats"):
            require(
                self.name == "elbo" or max(getattr(self, knob)) == 0,
                f"objective.{knob} goes with the elbo only; {self.name} has no rate per layer to relax.",
            )
            require(
                self.gradient != "sticking-the-landing" or max(getattr(self, knob)) == 0,
                f"objective.{knob} is {list(getattr(self, knob))}, and their gate depends on the draws, which makes "
                "objective.gradient sticking-the-landing biased; use pathwise, or no free nats.",
            )
        require(
            (self.name, self.gradient) != ("iwae", "sticking-the-landing"),
            "objective.gradient is sticking-the-landing, which is biased for the iwae bound of 2 or more samples; "
            "use doubly-reparametrised.",
        )
        require(
            (self.name, self.gradient) != ("elbo", "doubly-reparametrised"),
            "objective.gradient is doubly-reparametrised, which is made for the iwae bound; use sticking-the-landing "
            "for the elbo.",
        )
        made = GRADIENTS.get(self.name, ("pathwise",))
        require(
            self.gradient in made,
            f"objective.gradient is {self.gradient}, which is not made for {self.name}; use {' or '.join(made)}.",
        )
        require(
            self.gradient != "doubly-reparametrised" or len(set(self.layer_beta)) == 1,
            f"objective.layer_beta is {list(self.layer_beta)}, but objective.gradient doubly-reparametrised needs one "
            "factor for all layers; use pathwise.",
        )
        require(
            self.name not in GAMES or (self.beta == Constant(1.0) and set(self.layer_beta) == {1.0}),
            f"objective.beta or objective.layer_beta is not 1, but the players of {self.name} pay no rates to weigh; "
            "leave both at 1.",
        )
        require(
            self.name not in ("tvo", "reweighted-wake-sleep") or self.n_samples >= 2,
            f"objective.n_samples is {self.n_samples}, but {self.name} weighs samples against each other; give at "
            f"least 2, or use {'elbo' if self.name == 'tvo' else 'wake-sleep'}.",
        )
        ends = (*self.partition[1:], 1.0)
        require(
            self.partition[:1] == (0.0,) and all(a < b for a, b in zip(self.partition, ends, strict=True)),
            f"objective.partition is {list(self.partition)}; give 0 and then rising numbers below 1, as in [0, 0.1].",
        )
        require(
            self.gradient in RELAXED or self.temperature == ObjectiveConfig.temperature,
            f"objective.temperature goes with the gradients {' and '.join(RELAXED)} only; objective.gradient is "
            f"{self.gradient}.",
        )
        for knob, owner in (("partition", "tvo"), ("sleep", "reweighted-wake-sleep")):
            require(
                self.name == owner or getattr(self, knob) == getattr(ObjectiveConfig, knob),
                f"objective.{knob} goes with {owner} only; objective.name is {self.name}.",
            )
