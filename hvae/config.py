"""Every knob of a run, as nested frozen dataclasses.

A `RunConfig` is complete: two equal configurations are the same run and share a directory, named
by `RunConfig.digest`. What does not change the numbers' meaning (device, threads, where data lie)
is no part of it. The JSON form is strict: an unknown key, a missing type or a value out of range
is refused with one sentence.

Per-layer knobs take one entry for all latent layers or one entry per layer, z1 first.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from hvae.schedules import Constant, Schedule
from hvae.strict import ConfigError as ConfigError
from hvae.strict import differences, read

Order = Literal["bottom-up", "top-down"]
LatentFamily = Literal[
    "gaussian",
    "full-gaussian",
    "bernoulli",
    "categorical",
    "autoregressive-gaussian",
    "autoregressive-bernoulli",
    "autoregressive-categorical",
    "mixture",
    "maf",
    "nsf",
]
MERGED = ("gaussian", "bernoulli", "categorical")
"""what a ladder can merge unit by unit"""
DISCRETE = ("bernoulli", "categorical", "autoregressive-bernoulli", "autoregressive-categorical")
"""whose draws no gradient passes through"""
ObservationFamily = Literal["bernoulli", "gaussian", "discretised-logistic"]
Activation = Literal["tanh", "relu", "leaky-relu", "elu", "softplus"]
Init = Literal["xavier", "kaiming", "orthogonal"]
Variance = Literal["network", "learned", "fixed"]
Gradient = Literal["pathwise", "sticking-the-landing", "doubly-reparametrised", "covariance"]
ObjectiveName = Literal["elbo", "iwae", "vimco", "tvo", "wake-sleep", "reweighted-wake-sleep", "symmetric"]
GAMES = ("wake-sleep", "reweighted-wake-sleep", "symmetric")
"""objectives of two players, decoder and encoder, each with a utility of its own"""

T = TypeVar("T")


def _require(condition: bool, sentence: str) -> None:
    if not condition:
        raise ConfigError(sentence)


def per_layer(name: str, entries: tuple[T, ...], n_layers: int) -> tuple[T, ...]:
    """One entry per latent layer: a single entry is repeated; any other count must be exact."""
    if len(entries) == 1:
        return entries * n_layers
    _require(
        len(entries) == n_layers,
        f"{name} has {len(entries)} entries for {n_layers} latent layers; give one, or one per layer.",
    )
    return entries


def _over_the_run(schedule: Schedule, n_steps: int) -> list[float]:
    """The schedule at a hundred steps of the run, its first and last among them."""
    return [schedule(i * (n_steps - 1) // 99) for i in range(100)]


@dataclass(frozen=True)
class DataConfig:
    """Which images a run sees."""

    name: str = "digits-threshold"
    """a name from `hvae data list`, or a path to a .npy / .npz file; append :dynamic or :threshold to binarise"""
    n_train: int = 0
    """training images, drawn at random with `seed`; 0 takes all"""
    n_test: int = 0
    """test images, drawn at random with `seed`; 0 takes all"""
    seed: int = 0
    """seed of the subsets, of the split of a file without one, and of the once-binarised test images"""

    def __post_init__(self) -> None:
        _require(self.name != "", "data.name is empty; see `hvae data list`.")
        for knob in ("n_train", "n_test", "seed"):
            value = getattr(self, knob)
            _require(value >= 0, f"data.{knob} is {value}; give 0 or more.")


@dataclass(frozen=True)
class ModelConfig:
    """A stack: decoder p(zL) … p(x|z1), and an encoder of the same depth."""

    latents: tuple[int, ...] = (16, 8, 4)
    """units of each latent layer, z1 first"""
    hidden: tuple[tuple[int, ...], ...] = ((64,),)
    """hidden widths of the net between layer l-1 and l, seen upward, as in [[64], [32], [16]]; the decoder mirrors
    them; [[64]] serves every layer, [[]] is linear"""
    order: Order = "bottom-up"
    """inference order: bottom-up q(z_l | z_{l-1}), or the top-down ladder q(z_l | z_{l+1}, x)"""
    families: tuple[LatentFamily, ...] = ("gaussian",)
    """law of each latent layer given its parent. Beyond units that are independent given the parent: full-gaussian;
    autoregressive-*, where each unit also sees those before it; a mixture of Gaussians; the flows maf and nsf"""
    n_classes: int = 4
    """states of each unit of a categorical layer"""
    n_masked: int = 32
    """hidden units of the masked net inside an autoregressive, maf or nsf layer"""
    n_transforms: int = 2
    """transforms of a maf or nsf layer"""
    n_components: int = 4
    """Gaussians in a mixture layer"""
    observation: ObservationFamily = "bernoulli"
    """law of x: bernoulli for 0/1 images, gaussian for grey or real values, discretised-logistic for grey values in
    `n_levels` steps, as 8-bit images are"""
    n_levels: int = 256
    """levels from 0 to 1 of a discretised-logistic observation (17 for digits-grey)"""
    latent_variance: Variance = "network"
    """variance of Gaussian latents: a head of the net, one learned number a unit, or fixed at 1"""
    observation_variance: Variance = "learned"
    """variance of a Gaussian observation, scale of a discretised-logistic one"""
    prior: Literal["standard", "learned"] = "standard"
    """p(zL): N(0, I) (fair coins for discrete layers), or with learned parameters, of the family of the top layer"""
    activation: tuple[Activation, ...] = ("tanh",)
    """non-linearity of the hidden units"""
    init: tuple[Init, ...] = ("xavier",)
    """initialisation of the weights; biases start at 0"""
    batch_norm: tuple[bool, ...] = (False,)
    """batch normalisation of the hidden layers"""

    def __post_init__(self) -> None:
        n = len(self.latents)
        _require(n >= 1, "model.latents is empty; give the units of at least one layer, as in [16, 8, 4].")
        _require(min(self.latents) >= 1, f"model.latents is {list(self.latents)}; every layer needs at least 1 unit.")
        _require(len(self.hidden) >= 1, "model.hidden is empty; give [[]] for linear layers.")
        _require(
            all(width >= 1 for widths in self.hidden for width in widths),
            f"model.hidden is {[list(w) for w in self.hidden]}; every width must be at least 1.",
        )
        _require(self.n_classes >= 2, f"model.n_classes is {self.n_classes}; a categorical unit has at least 2.")
        for knob in ("hidden", "families", "activation", "init", "batch_norm"):
            per_layer(f"model.{knob}", getattr(self, knob), n)
        for knob in ("n_masked", "n_transforms", "n_components"):
            value = getattr(self, knob)
            _require(value >= 1, f"model.{knob} is {value}; give at least 1.")
        _require(self.n_levels >= 2, f"model.n_levels is {self.n_levels}; give at least 2, and 256 for 8-bit images.")
        if self.order == "top-down":
            whole = [family for family in dict.fromkeys(self.families) if family not in MERGED]
            _require(
                not whole,
                f"model.families has {' and '.join(whole)} in a top-down ladder, whose precision-weighted merge is per "
                "unit; use gaussian, bernoulli or categorical, or order bottom-up.",
            )
        _require(
            "mixture" not in self.families or self.latent_variance == "network",
            f"model.latent_variance is {self.latent_variance}, but each component of a mixture has a variance of its "
            "own from the net; use network, or another family.",
        )
        _require(
            (self.observation, self.observation_variance) != ("discretised-logistic", "fixed"),
            "model.observation_variance is fixed, but no one scale of a discretised-logistic observation suits all "
            "images; use learned or network.",
        )


@dataclass(frozen=True)
class ObjectiveConfig:
    """What is maximised."""

    name: ObjectiveName = "elbo"
    """what is maximised: the ELBO averaged over K samples, the importance-weighted bound of K samples (vimco: with the
    paper's baseline for discrete layers), the thermodynamic bound, or the utilities of two players, decoder and
    encoder: wake-sleep, reweighted with K samples, or symmetric, which without labels is wake-sleep"""
    n_samples: int = 1
    """K draws a datum"""
    beta: Schedule = field(default_factory=lambda: Constant(1.0))
    """weight of the rates, a function of the step"""
    layer_beta: tuple[float, ...] = (1.0,)
    """a constant factor on top of beta for each layer"""
    free_nats: tuple[float, ...] = (0.0,)
    """rate below which a layer pays nothing (mean over the batch, nats); elbo only"""
    gradient: Gradient = "pathwise"
    """gradient estimator: pathwise, or of the same expectation without the score of q, for Gaussian layers:
    sticking-the-landing (elbo), doubly-reparametrised (iwae); covariance follows no path (tvo)"""
    partition: tuple[float, ...] = (0.0, 0.03, 0.1, 0.3)
    """inverse temperatures of the thermodynamic bound, from 0 up and below 1; tvo only"""
    sleep: float = 0.5
    """share of dreams in what the encoder learns from; reweighted-wake-sleep only"""

    def __post_init__(self) -> None:
        _require(self.n_samples >= 1, f"objective.n_samples is {self.n_samples}; give at least 1.")
        lowest = min(self.beta(0), getattr(self.beta, "stop", 0.0))
        _require(lowest >= 0, f"objective.beta falls to {lowest}; give 0 or more.")
        for knob in ("layer_beta", "free_nats"):
            values = getattr(self, knob)
            _require(len(values) >= 1, f"objective.{knob} is empty; give one number, or one per layer.")
            _require(min(values) >= 0, f"objective.{knob} is {list(values)}; give 0 or more.")
        _require(
            self.name == "elbo" or max(self.free_nats) == 0,
            f"objective.free_nats goes with the elbo only; {self.name} has no rate per layer to relax.",
        )
        _require(
            (self.name, self.gradient) != ("iwae", "sticking-the-landing"),
            "objective.gradient is sticking-the-landing, which is biased for the iwae bound of 2 or more samples; "
            "use doubly-reparametrised.",
        )
        _require(
            (self.name, self.gradient) != ("elbo", "doubly-reparametrised"),
            "objective.gradient is doubly-reparametrised, which is made for the iwae bound; use sticking-the-landing "
            "for the elbo.",
        )
        kept = {"elbo": "sticking-the-landing", "iwae": "doubly-reparametrised", "tvo": "covariance"}.get(self.name)
        _require(
            self.gradient in ("pathwise", kept),
            f"objective.gradient is {self.gradient}, which is not made for {self.name}; use pathwise"
            + (f" or {kept}." if kept else "."),
        )
        _require(
            self.gradient != "sticking-the-landing" or max(self.free_nats) == 0,
            f"objective.free_nats is {list(self.free_nats)}, and their gate depends on the draws, which makes "
            "objective.gradient sticking-the-landing biased; use pathwise, or no free nats.",
        )
        _require(
            self.gradient != "doubly-reparametrised" or len(set(self.layer_beta)) == 1,
            f"objective.layer_beta is {list(self.layer_beta)}, but objective.gradient doubly-reparametrised needs one "
            "factor for all layers; use pathwise.",
        )
        _require(
            self.name not in GAMES or (self.beta == Constant(1.0) and set(self.layer_beta) == {1.0}),
            f"objective.beta or objective.layer_beta is not 1, but the players of {self.name} pay no rates to weigh; "
            "leave both at 1.",
        )
        _require(
            self.name not in ("tvo", "reweighted-wake-sleep") or self.n_samples >= 2,
            f"objective.n_samples is {self.n_samples}, but {self.name} weighs samples against each other; give at "
            f"least 2, or use {'elbo' if self.name == 'tvo' else 'wake-sleep'}.",
        )
        ends = (*self.partition[1:], 1.0)
        _require(
            self.partition[:1] == (0.0,) and all(a < b for a, b in zip(self.partition, ends, strict=True)),
            f"objective.partition is {list(self.partition)}; give 0 and then rising numbers below 1, as in [0, 0.1].",
        )
        _require(0 <= self.sleep <= 1, f"objective.sleep is {self.sleep}; give a share between 0 and 1.")
        for knob, owner in (("partition", "tvo"), ("sleep", "reweighted-wake-sleep")):
            _require(
                self.name == owner or getattr(self, knob) == getattr(ObjectiveConfig, knob),
                f"objective.{knob} goes with {owner} only; objective.name is {self.name}.",
            )


@dataclass(frozen=True)
class TrainingConfig:
    """How it is maximised. Every seed is one replica; all train at once."""

    seeds: tuple[int, ...] = (0, 1, 2, 3)
    """one replica each: initialisation, order of the data, noise"""
    n_steps: int = 1000
    """optimisation steps"""
    batch_size: int = 128
    """images per step and replica"""
    learning_rate: Schedule = field(default_factory=lambda: Constant(2e-3))
    """Adam's step size, a function of the step"""
    clip_norm: float = 100.0
    """largest gradient norm of a replica; 0 does not clip"""
    ema_decay: float = 0.0
    """decay of the averaged weights that are evaluated; 0 evaluates the last weights"""
    log_every_steps: int = 25
    """steps between two rows of metrics"""
    checkpoint_every_steps: int = 500
    """steps between two checkpoints"""

    def __post_init__(self) -> None:
        _require(len(self.seeds) >= 1, "training.seeds is empty; give at least one seed, as in [0].")
        distinct = len(set(self.seeds)) == len(self.seeds)
        _require(distinct, f"training.seeds {list(self.seeds)} repeats a seed; replicas must differ.")
        _require(min(self.seeds) >= 0, f"training.seeds is {list(self.seeds)}; give 0 or more.")
        for knob in ("n_steps", "batch_size", "log_every_steps", "checkpoint_every_steps"):
            value = getattr(self, knob)
            _require(value >= 1, f"training.{knob} is {value}; give at least 1.")
        rates = _over_the_run(self.learning_rate, self.n_steps)
        _require(
            min(rates) >= 0 < max(rates),
            f"training.learning_rate runs from {min(rates)} to {max(rates)}; give a positive rate.",
        )
        _require(self.clip_norm >= 0, f"training.clip_norm is {self.clip_norm}; give 0 (no clipping) or more.")
        _require(0 <= self.ema_decay < 1, f"training.ema_decay is {self.ema_decay}; give a number in [0, 1).")


@dataclass(frozen=True)
class EvaluationConfig:
    """What is measured on the finished run, on test images drawn at random with `seed`."""

    n_images: int = 512
    """images of the information measures; they are capped at log(n_images) nats"""
    max_paths: int = 1024
    """largest number M of sampled paths per image in the nested information bounds"""
    epsilon_nats: float = 0.1
    """a layer below this is collapsed (verdict threshold)"""
    n_likelihood: int = 500
    """images of the likelihood curve"""
    n_samples: int = 1000
    """K of the likelihood on all of these images"""
    n_likelihood_deep: int = 0
    """images of the likelihood at `n_samples_deep`; 0 leaves it out"""
    n_samples_deep: int = 5000
    """K of the deep likelihood"""
    n_bootstrap: int = 2000
    """bootstrap resamples of the images behind every interval"""
    seed: int = 0
    """seed of the choice of images and of all draws"""

    def __post_init__(self) -> None:
        for knob in ("n_images", "max_paths", "n_likelihood", "n_samples", "n_samples_deep", "n_bootstrap"):
            value = getattr(self, knob)
            _require(value >= 2, f"evaluation.{knob} is {value}; give at least 2.")
        n_deep = self.n_likelihood_deep
        _require(n_deep >= 0, f"evaluation.n_likelihood_deep is {n_deep}; give 0 or more.")
        _require(self.epsilon_nats > 0, f"evaluation.epsilon_nats is {self.epsilon_nats}; give more than 0 nats.")
        _require(self.seed >= 0, f"evaluation.seed is {self.seed}; give 0 or more.")


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
        for knob in ("layer_beta", "free_nats"):
            per_layer(f"objective.{knob}", getattr(self.objective, knob), n)
        _require(
            not any(self.model.batch_norm) or self.training.batch_size * self.objective.n_samples >= 2,
            "model.batch_norm needs at least 2 draws a batch to normalise by; give training.batch_size 2 or more.",
        )
        discrete = set(DISCRETE) & set(self.model.families)
        name = self.objective.name
        _require(
            not discrete or self.objective.n_samples >= 2 or name in GAMES,
            f"objective.n_samples is {self.objective.n_samples}, but the leave-one-out baseline of "
            f"{' and '.join(sorted(discrete))} layers needs at least 2.",
        )
        _require(
            name != "vimco" or bool(discrete),
            "objective.name is vimco, whose baseline is for discrete layers, and model.families has none; use iwae.",
        )
        gradient = self.objective.gradient
        _require(
            gradient in ("pathwise", "covariance") or set(self.model.families) != discrete,
            f"objective.gradient is {gradient}, but all layers are discrete: no path leads through their draws; "
            "use pathwise.",
        )
        _require(
            gradient != "doubly-reparametrised" or not discrete,
            f"objective.gradient is doubly-reparametrised, which the draws of {' and '.join(sorted(discrete))} layers "
            "do not allow; use pathwise.",
        )
        _require(
            gradient != "doubly-reparametrised" or not any(self.model.batch_norm),
            "objective.gradient is doubly-reparametrised, but with model.batch_norm a draw moves the weights of all "
            "others, which makes it biased; use pathwise, or no batch norm.",
        )
        _require(
            gradient != "covariance" or not any(self.model.batch_norm),
            "objective.gradient is covariance, but with model.batch_norm the draws of a batch are not weighed one by "
            "one; use pathwise, or no batch norm.",
        )
        _require(
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
