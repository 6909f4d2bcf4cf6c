"""One run, whole: its parts, what goes together, its JSON and its name."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hvae.errors import ConfigError
from hvae.lab.config.checks import per_layer, require
from hvae.lab.config.data import DataConfig
from hvae.lab.config.evaluation import EvaluationConfig
from hvae.lab.config.model import DISCRETE, MERGED, ModelConfig
from hvae.lab.config.objective import GAMES, RELAXED, ObjectiveConfig
from hvae.lab.config.training import Stage, TrainingConfig
from hvae.lab.strict import differences, read


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
        layers = self.training.aggressive_layers
        require(
            len(set(layers)) == len(layers) and all(1 <= layer <= n for layer in layers),
            f"training.aggressive_layers is {list(layers)}; give layers from 1 to {n}, each once.",
        )
        for knob in ("layer_beta", "free_nats", "unit_free_nats"):
            per_layer(f"objective.{knob}", getattr(self.objective, knob), n)
        norm = "batch_norm" if any(self.model.batch_norm) else "normalised_means"
        normed = any(self.model.batch_norm) or any(self.model.normalised_means)
        require(
            not normed or self.training.batch_size >= 2,
            f"model.{norm} needs at least 2 images a batch to normalise by; give training.batch_size 2 or more.",
        )
        encoder = self.model.encoder_families or self.model.families
        discrete = set(DISCRETE) & set(encoder)
        name, gradient = self.objective.name, self.objective.gradient
        require(
            not discrete or self.objective.n_samples >= 2 or name in GAMES or gradient in RELAXED,
            f"objective.n_samples is {self.objective.n_samples}, but the leave-one-out baseline of "
            f"{' and '.join(sorted(discrete))} layers needs at least 2.",
        )
        require(
            not discrete or name in GAMES or gradient in RELAXED or not normed,
            f"model.{norm} is on beside {' and '.join(sorted(discrete))} layers, but with it a draw moves the "
            "bound of all others, which the score function and its leave-one-out baseline leave out: its gradient is "
            f"biased; use no {norm}.",
        )
        free = max(*self.objective.free_nats, *self.objective.unit_free_nats) > 0
        require(
            not discrete or gradient in RELAXED or not free,
            f"objective.free_nats (or unit_free_nats) is on, but the draws of {' and '.join(sorted(discrete))} "
            "layers move the gates of a whole batch, which the score function leaves out: its gradient is biased; use "
            "layer_beta, or objective.gradient straight-through.",
        )
        require(
            name != "vimco" or bool(discrete),
            "objective.name is vimco, whose baseline is for discrete layers, and model.families has none; use iwae.",
        )
        require(
            gradient not in ("sticking-the-landing", "doubly-reparametrised") or set(encoder) != discrete,
            f"objective.gradient is {gradient}, but all layers are discrete: no path leads through their draws; "
            "use pathwise.",
        )
        require(
            gradient != "doubly-reparametrised" or not discrete,
            f"objective.gradient is doubly-reparametrised, which the draws of {' and '.join(sorted(discrete))} layers "
            "do not allow; use pathwise.",
        )
        require(
            gradient != "doubly-reparametrised" or not normed,
            f"objective.gradient is doubly-reparametrised, but with model.{norm} a draw moves the weights of all "
            f"others, which makes it biased; use pathwise, or no {norm}.",
        )
        require(
            gradient not in RELAXED or bool(discrete),
            f"objective.gradient is {gradient}, which is for discrete layers, and model.families has none; use "
            "pathwise.",
        )
        in_order = sorted(discrete - {"bernoulli", "categorical"})
        require(
            gradient not in RELAXED or not in_order,
            f"objective.gradient is {gradient}, but the units of {' and '.join(in_order)} layers are drawn one after "
            "another from the states before them; use pathwise, or layers that factorise.",
        )
        for layer in range(n):
            if per_layer("objective.unit_free_nats", self.objective.unit_free_nats, n)[layer] > 0:
                kinds = {per_layer("model.families", families, n)[layer] for families in (encoder, self.model.families)}
                whole = sorted(kinds - set(MERGED))
                require(
                    not whole,
                    f"objective.unit_free_nats is above 0 for z{layer + 1}, but a law of {' and '.join(whole)} has no "
                    "rate per unit; use objective.free_nats there.",
                )
                require(
                    layer < n - 1 or self.model.prior != "vamp",
                    f"objective.unit_free_nats is above 0 for z{n}, but a vamp prior has no rate per unit; use "
                    "objective.free_nats there.",
                )
                require(
                    per_layer("objective.free_nats", self.objective.free_nats, n)[layer] == 0,
                    f"objective.free_nats and objective.unit_free_nats are both above 0 for z{layer + 1}; give one.",
                )
        require(
            gradient != "covariance" or not normed,
            f"objective.gradient is covariance, but with model.{norm} the draws of a batch are not weighed one by "
            f"one; use pathwise, or no {norm}.",
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
            name not in GAMES or not normed,
            f"objective.name is {name}, but with model.{norm} q of dreams, normalised among dreams, is not q of "
            f"data; use a bound, or no {norm}.",
        )
        for index, stage in enumerate(self.training.then):
            training = dataclasses.replace(self.training, learning_rate=stage.learning_rate, then=())
            try:
                dataclasses.replace(self, objective=stage.objective, training=training)
            except ConfigError as error:
                raise ConfigError(f"training.then[{index}].{error}") from None

    @property
    def stages(self) -> tuple[Stage, ...]:
        """What is maximised, and how fast, from which step on: the first stage and those of `training.then`."""
        return (Stage(0, self.objective, self.training.learning_rate), *self.training.then)

    def stage_at(self, step: int) -> Stage:
        """The stage that the step belongs to, the first step of a run being 0."""
        return [stage for stage in self.stages if stage.from_step <= step][-1]

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
