"""One run, complete: its parts, what fits together, its JSON and its digest."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from hvae.errors import ConfigError
from hvae.lab.config.checks import per_layer, require
from hvae.lab.config.data import DataConfig
from hvae.lab.config.evaluation import EvaluationConfig
from hvae.lab.config.latents import DISCRETE, MERGED
from hvae.lab.config.model import BESIDE_BLOCKS, ModelConfig
from hvae.lab.config.objective import GAMES, RELAXED, ObjectiveConfig
from hvae.lab.config.observations import COUNTS, LEVELS
from hvae.lab.config.training import Stage, TrainingConfig
from hvae.lab.strict import differences, read
from hvae.outside import from_json
from hvae.suitability import Follows, Layer, ModelTraits, ObjectiveTraits, Words, joined, refusal, relaxation_refusal

FOLLOWS: Mapping[str, Follows] = {
    "sticking-the-landing": "score and path",
    "doubly-reparametrised": "path",
    "covariance": "covariance",
}
"""what a gradient follows; the score for all others"""
WORDS = Words(
    free_nats="objective.free_nats",
    unit_free_nats="objective.unit_free_nats",
    straight_through="objective.gradient straight-through",
    pathwise="pathwise",
    families="model.families",
    iwae="iwae",
    shared="model.prior vamp",
    apart="prior learned",
)
"""names of things in a configuration: its keys"""
RETIRED = {"evaluation": ("n_bootstrap",)}
"""section -> settings that files of released runs hold, and that nothing reads any more"""
LATER = {
    "model": ("standardise", "blocks", "observation_components"),
    "training": ("adam_betas", "weight_decay", "skip_norm", "checkpoint_gradients", "precision"),
    "evaluation": ("n_alternatives", "n_paths_use", "n_paths_knockout"),
}
"""section -> settings that came later, and stand in a file only where they differ from their default"""


@dataclass(frozen=True)
class RunConfig:
    """One run: one configuration, trained from R seeds at once."""

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)

    def __post_init__(self) -> None:
        n = self.model.n_layers
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
        objective, discrete = self.objective, self._discrete
        require(
            not discrete or objective.n_samples >= 2 or objective.name in GAMES or objective.gradient in RELAXED,
            f"objective.n_samples is {objective.n_samples}, but the leave-one-out baseline of "
            f"{joined(discrete)} layers needs at least 2.",
        )
        self._check_suited(f"model.{norm}" if normed else "")
        for layer in range(n):
            free, units = (
                per_layer(f"objective.{knob}", getattr(objective, knob), n)[layer]
                for knob in ("free_nats", "unit_free_nats")
            )
            require(
                min(free, units) == 0,
                f"objective.free_nats and objective.unit_free_nats are both above 0 for z{layer + 1}; give one.",
            )
        require(
            self.training.aggressive_steps == 0 or self.model.prior != "vamp",
            "training.aggressive_steps updates the encoder alone, but with model.prior vamp its top weights make the "
            "decoder's prior; use 0, or prior learned.",
        )
        for index, stage in enumerate(self.training.then):
            training = dataclasses.replace(self.training, learning_rate=stage.learning_rate, then=())
            try:
                dataclasses.replace(self, objective=stage.objective, training=training)
            except ConfigError as error:
                raise ConfigError(f"training.then[{index}].{error}") from None

    @property
    def yardstick(self) -> str:
        """Data and distribution of x: bounds on log p(x) compare within one only. All distributions of counts are one,
        as they are probabilities of the same numbers, and so are those of levels."""
        kind = self.model.observation
        x = "counts" if kind in COUNTS else "levels" if kind in LEVELS else f"{kind} x"
        return f"{self.data.name} (seed {self.data.seed}, {x})"

    @property
    def _discrete(self) -> set[str]:
        """The discrete families of the encoder."""
        return set(DISCRETE) & set(self.model.distributions_upward)

    def _check_suited(self, norm: str) -> None:
        """The checks that `Objective.refuse` makes of built models, on the settings alone."""
        objective, model = self.objective, self.model
        n, relaxed = model.n_layers, objective.gradient in RELAXED
        downward = per_layer("model.families", model.families, n)
        layers = []
        for layer, (up, down) in enumerate(zip(model.distributions_upward, downward, strict=True)):
            whole = joined({up, down} - set(MERGED))
            vamp = model.prior == "vamp" and layer == n - 1
            layers.append(
                Layer(
                    name=f"z{layer + 1}",
                    family=up,
                    discrete=up in DISCRETE,
                    relaxed=relaxed and up in DISCRETE,
                    in_order=up in DISCRETE and up not in MERGED,
                    whole=f"a distribution of {whole}" if whole else "a vamp prior" if vamp else "",
                )
            )
        units = per_layer("objective.unit_free_nats", objective.unit_free_nats, n)
        asked = ObjectiveTraits(
            follows="players" if objective.name in GAMES else FOLLOWS.get(objective.gradient, "score"),
            name=f"objective.name is {objective.name}",
            gradient=f"objective.gradient is {objective.gradient}",
            for_discrete=objective.name == "vimco",
            free_nats=max(*objective.free_nats, *objective.unit_free_nats) > 0,
            unit_free_nats=frozenset(layer.name for layer, free in zip(layers, units, strict=True) if free > 0),
        )
        words = dataclasses.replace(WORDS, norm=norm, no_norm=norm.removeprefix("model."))
        if relaxed:
            refused = relaxation_refusal(asked.gradient, layers, words)
            require(not refused, refused)
        refused = refusal(asked, ModelTraits(tuple(layers), bool(norm), model.prior == "vamp"), words)
        require(not refused, refused)

    @property
    def stages(self) -> tuple[Stage, ...]:
        """Objective and learning rate from which step on: the first stage and those of `training.then`."""
        return (Stage(0, self.objective, self.training.learning_rate), *self.training.then)

    def stage_at(self, step: int) -> Stage:
        """The stage that the step belongs to, the first step of a run being 0."""
        return [stage for stage in self.stages if stage.from_step <= step][-1]

    def to_json(self) -> str:
        """The complete configuration as JSON with sorted keys.

        Read back once, so that equal configurations have equal texts: 1 is written as 1.0 where a float stands.
        Settings in `LATER` are written where they differ from their default only. Blocks stand in place of the settings
        of dense layers.
        """
        read_back = read(RunConfig, dataclasses.asdict(self))
        values = dataclasses.asdict(read_back)
        for section, later in LATER.items():
            for name in set(later) - differences(getattr(read_back, section)).keys():
                del values[section][name]
        if read_back.model.blocks is not None:
            values["model"] = {name: value for name, value in values["model"].items() if name in BESIDE_BLOCKS}
        return json.dumps(values, indent=2, sort_keys=True)

    @cached_property
    def digest(self) -> str:
        """Eight hexadecimal digits that name what is trained.

        It is made of what differs from the defaults. A released default never changes, so this says as much as the
        whole, and a new setting leaves the digest of older runs as it was. The evaluation is left out: changing it
        measures the run again and does not train another.
        """
        told = differences(read(RunConfig, dataclasses.asdict(self)))  # 1 is 1.0 where a float stands
        told.pop("evaluation", None)
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:8]

    @staticmethod
    def from_json(text: str, source: str = "The configuration") -> "RunConfig":
        """Read what `to_json` wrote, in this version or a released one: settings in `RETIRED` are passed over.

        Raises `ConfigError` for anything that it would not have written.
        """
        try:
            values = from_json(text)
        except ValueError as error:
            raise ConfigError(f"{source} is damaged ({error}); restore it.") from None
        return RunConfig.from_dict(_without_retired(values), source)

    @staticmethod
    def from_dict(values: Mapping[str, Any], source: str = "") -> "RunConfig":
        """Strictly typed values, every key known; missing keys take their defaults."""
        try:
            return read(RunConfig, values)
        except ConfigError as error:
            raise ConfigError(f"{source}: {error}" if source else str(error)) from None


def _without_retired(values: Any) -> Any:
    """The plain values of a configuration without the settings in `RETIRED`; anything else as it is."""
    if not isinstance(values, dict):
        return values
    found = dict(values)
    for section, retired in RETIRED.items():
        if isinstance(found.get(section), dict):
            found[section] = {name: value for name, value in found[section].items() if name not in retired}
    return found
