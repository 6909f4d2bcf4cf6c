"""One run, whole: its parts, what goes together, its JSON and its name."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hvae.config.checks import per_layer, require
from hvae.config.data import DataConfig
from hvae.config.evaluation import EvaluationConfig
from hvae.config.model import DISCRETE, ModelConfig
from hvae.config.objective import GAMES, ObjectiveConfig
from hvae.config.training import TrainingConfig
from hvae.strict import ConfigError, differences, read


@dataclass(frozen=True)
class RunConfig:
    """One run: one configuration, trained from R seeds at once."""

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)

    def __post_init__(self) -> None:
        n = len(self.model.latents)
        for knob in ("layer_beta", "free_nats", "unit_free_nats"):
            per_layer(f"objective.{knob}", getattr(self.objective, knob), n)
        require(
            not any(self.model.batch_norm) or self.training.batch_size * self.objective.n_samples >= 2,
            "model.batch_norm needs at least 2 draws a batch to normalise by; give training.batch_size 2 or more.",
        )
        laws = {*self.model.families, *self.model.encoder_families}
        discrete = set(DISCRETE) & laws
        name = self.objective.name
        require(
            not discrete or self.objective.n_samples >= 2 or name in GAMES,
            f"objective.n_samples is {self.objective.n_samples}, but the leave-one-out baseline of "
            f"{' and '.join(sorted(discrete))} layers needs at least 2.",
        )
        require(
            not discrete or name in GAMES or not any(self.model.batch_norm),
            f"model.batch_norm is on beside {' and '.join(sorted(discrete))} layers, but with it a draw moves the "
            "bound of all others, which the score function and its leave-one-out baseline leave out: its gradient is "
            "biased; use no batch norm.",
        )
        require(
            name != "vimco" or bool(discrete),
            "objective.name is vimco, whose baseline is for discrete layers, and model.families has none; use iwae.",
        )
        gradient = self.objective.gradient
        require(
            gradient in ("pathwise", "covariance") or laws != discrete,
            f"objective.gradient is {gradient}, but all layers are discrete: no path leads through their draws; "
            "use pathwise.",
        )
        require(
            gradient != "doubly-reparametrised" or not discrete,
            f"objective.gradient is doubly-reparametrised, which the draws of {' and '.join(sorted(discrete))} layers "
            "do not allow; use pathwise.",
        )
        require(
            gradient != "doubly-reparametrised" or not any(self.model.batch_norm),
            "objective.gradient is doubly-reparametrised, but with model.batch_norm a draw moves the weights of all "
            "others, which makes it biased; use pathwise, or no batch norm.",
        )
        require(
            gradient != "covariance" or not any(self.model.batch_norm),
            "objective.gradient is covariance, but with model.batch_norm the draws of a batch are not weighed one by "
            "one; use pathwise, or no batch norm.",
        )
        require(
            name not in GAMES or self.model.prior != "vamp",
            f"objective.name is {name}, in which each player moves a law of its own, but with model.prior vamp the "
            "encoder's weights make the decoder's prior; use a bound, or prior learned.",
        )
        require(
            self.training.aggressive_steps == 0 or self.model.prior != "vamp",
            "training.aggressive_steps updates the encoder alone, but with model.prior vamp its top weights make the "
            "decoder's prior; use 0, or prior learned.",
        )
        require(
            name not in GAMES or not any(self.model.batch_norm),
            f"objective.name is {name}, but with model.batch_norm q of dreams, normalised among dreams, is not q of "
            "data; use a bound, or no batch norm.",
        )

    def to_json(self) -> str:
        """The complete configuration as JSON with sorted keys.

        Read back once, so that equal configurations have equal texts: 1 is written as 1.0 where a float stands.
        """
        canonical = read(RunConfig, dataclasses.asdict(self))
        return json.dumps(dataclasses.asdict(canonical), indent=2, sort_keys=True)

    @property
    def digest(self) -> str:
        """Eight hexadecimal digits that name what is trained.

        Made of what differs from the defaults: a default that was released never changes its meaning, so this says
        as much as the whole, and a new knob leaves the runs that do not turn it under their names. How
        a run is evaluated is left out, so that a change of the evaluation measures it anew and does not train another.
        """
        told = differences(RunConfig.from_json(self.to_json()))
        told.pop("evaluation", None)
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:8]

    @staticmethod
    def from_json(text: str, source: str = "The configuration") -> "RunConfig":
        """Read what `to_json` wrote. Raises `ConfigError` for anything it would not have written."""
        try:
            values = json.loads(text)
        except (json.JSONDecodeError, RecursionError) as error:
            raise ConfigError(f"{source} is not JSON ({error}); restore it or delete the run.") from None
        return RunConfig.from_dict(values, source)

    @staticmethod
    def from_dict(values: Mapping[str, Any], source: str = "") -> "RunConfig":
        """Strictly typed values, every key known; missing keys take their defaults."""
        try:
            return read(RunConfig, values)
        except ConfigError as error:
            raise ConfigError(f"{source}: {error}" if source else str(error)) from None
