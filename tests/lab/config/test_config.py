"""Configurations: strict where they are read, equal where they mean the same."""

import dataclasses
import hashlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hvae.errors import ConfigError
from hvae.lab.config import (
    DataConfig,
    EvaluationConfig,
    ModelConfig,
    ObjectiveConfig,
    RunConfig,
    Stage,
    TrainingConfig,
    per_layer,
)
from hvae.lab.config.run import RETIRED
from hvae.lab.strict import differences
from hvae.schedules import Constant, CosineDecay, Cyclical, LinearWarmup, PiecewiseConstant, Schedule, StepDecay

SCHEDULES = [
    Constant(0.5),
    LinearWarmup(600),
    LinearWarmup(3, start=0.25, stop=2.0),
    Cyclical(100, rising=0.3),
    StepDecay(200, factor=0.5, start=1e-3),
    CosineDecay(200, peak=1e-3, warmup_steps=10),
    PiecewiseConstant((1.0, 0.5), (10,)),
]


@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
def test_json_round_trip_for_every_schedule(schedule: Schedule) -> None:
    config = RunConfig(
        objective=ObjectiveConfig(beta=schedule), training=TrainingConfig(learning_rate=schedule, seeds=(7,))
    )
    again = RunConfig.from_json(config.to_json())
    assert again == config
    assert again.digest == config.digest
    assert type(again.objective.beta) is type(schedule)


def test_round_trip_of_linear_layers_and_every_default() -> None:
    config = RunConfig(model=ModelConfig(latents=(4,), hidden=((),)))
    assert RunConfig.from_json(config.to_json()) == config
    assert RunConfig.from_dict({}) == RunConfig()


@given(
    st.lists(st.integers(1, 99), min_size=1, max_size=5),
    st.floats(1e-6, 1.0),
    st.lists(st.integers(0, 2**31), min_size=1, max_size=4, unique=True),
)
def test_round_trip_of_any_numbers(latents: list[int], rate: float, seeds: list[int]) -> None:
    config = RunConfig(
        model=ModelConfig(latents=tuple(latents), hidden=((8, 8),)),
        training=TrainingConfig(learning_rate=Constant(rate), seeds=tuple(seeds)),
    )
    assert RunConfig.from_json(config.to_json()) == config


def test_equal_configurations_share_a_digest() -> None:
    whole = RunConfig(objective=ObjectiveConfig(beta=Constant(1), free_nats=(0,)))
    assert whole == RunConfig()
    assert whole.digest == RunConfig().digest


def test_digest_sees_every_knob_of_what_is_trained_and_none_of_how_it_is_measured() -> None:
    n_seen = 0
    for section in dataclasses.fields(RunConfig):
        record = getattr(RunConfig(), section.name)
        for field in dataclasses.fields(record):
            value = getattr(record, field.name)
            if type(value) is int:
                changed = dataclasses.replace(record, **{field.name: value + 3})
                config = dataclasses.replace(RunConfig(), **{section.name: changed})
                assert (config.digest == RunConfig().digest) == (section.name == "evaluation"), field.name
                assert config.to_json() != RunConfig().to_json()
                n_seen += 1
    assert n_seen > 12


RELEASED: dict[str, dict[str, Any]] = {
    "data": {"name": "digits-threshold", "n_train": 0, "n_test": 0, "seed": 0},
    "model": {
        "latents": [16, 8, 4], "hidden": [[64]], "order": "bottom-up", "families": ["gaussian"], "n_classes": 4,
        "n_masked": 32, "n_transforms": 2, "n_components": 4, "n_levels": 256,
        "observation": "bernoulli", "latent_variance": "network", "observation_variance": "learned",
        "observation_start": 1.0,
        "prior": "standard", "n_pseudo_inputs": 50, "encoder_families": [], "nets": ["mlp"], "channels": [16, 32],
        "generative_skips": False, "normalised_means": [0.0], "floor_nats": 0.0,
        "activation": ["tanh"], "init": ["xavier"], "batch_norm": [False],
    },
    "objective": {
        "name": "elbo", "n_samples": 1, "beta": {"value": 1.0}, "layer_beta": [1.0], "free_nats": [0.0],
        "unit_free_nats": [0.0], "gradient": "pathwise", "temperature": 0.5, "partition": [0.0, 0.03, 0.1, 0.3],
        "sleep": 0.5,
    },
    "training": {
        "seeds": [0, 1, 2, 3], "n_steps": 1000, "batch_size": 128, "learning_rate": {"value": 2e-3},
        "clip_norm": 100.0, "ema_decay": 0.0, "aggressive_steps": 0, "aggressive_every": 10, "aggressive_layers": [],
        "adam_epsilon": 1e-8, "then": [],
        "log_every_steps": 25, "checkpoint_every_steps": 500,
    },
}  # fmt: skip
"""every knob of what is trained, with the default that it was released with"""


def test_a_released_default_never_changes() -> None:
    """The digest leaves defaults out, so another default would give runs on disk another meaning under their old name:
    a knob may join this table, with the default that changes nothing, and none may change in it."""
    defaults = json.loads(RunConfig().to_json())
    del defaults["evaluation"]
    assert defaults == RELEASED
    assert [repr(made) for made in (LinearWarmup(1), Cyclical(1))] == [
        "LinearWarmup(warmup_steps=1, start=0.0, stop=1.0)",
        "Cyclical(period_steps=1, rising=0.5, start=0.0, stop=1.0)",
    ]


@pytest.mark.parametrize(
    ("observation", "knob", "plain", "other", "written"),
    [
        ("gaussian", "standardise", False, True, '"standardise": true'),
        ("discretised-logistic-mixture", "observation_components", 10, 3, '"observation_components": 3'),
    ],
)
def test_later_settings_are_written_where_they_differ(
    observation: str, knob: str, plain: Any, other: Any, written: str
) -> None:
    """So the text, and the digest, of every configuration from before them stay what they were."""
    off, on = (RunConfig(model=ModelConfig(observation=observation, **{knob: way})) for way in (plain, other))  # type: ignore[arg-type]
    assert knob not in off.to_json() and written in on.to_json()
    for config, text in (
        (off, f'{{"observation": "{observation}"}}'),
        (on, "{" + ", ".join(sorted([f'"observation": "{observation}"', written])) + "}"),
    ):
        assert RunConfig.from_json(config.to_json()) == config
        assert config.digest == hashlib.sha256(f'{{"model": {text}}}'.encode()).hexdigest()[:8]


def test_digests_are_pinned() -> None:
    """By the text that they are made of, by hand. A run on disk is found by its digest."""
    for config, text in (
        (RunConfig(), "{}"),
        (RunConfig(evaluation=EvaluationConfig(seed=3)), "{}"),
        (
            RunConfig(
                model=ModelConfig(latents=(2,), order="top-down"),
                objective=ObjectiveConfig("iwae", beta=LinearWarmup(600), layer_beta=(2,)),
                training=TrainingConfig(learning_rate=StepDecay(200, 0.5, 1e-3), clip_norm=3),
            ),
            '{"model": {"latents": [2], "order": "top-down"}, '
            '"objective": {"beta": {"warmup_steps": 600}, "layer_beta": [2.0], "name": "iwae"}, '
            '"training": {"clip_norm": 3.0, "learning_rate": {"every_steps": 200, "factor": 0.5, "start": 0.001}}}',
        ),
        (
            RunConfig(training=TrainingConfig(then=(Stage(9, ObjectiveConfig("iwae", 5), Constant(1e-4)),))),
            '{"training": {"then": [{"from_step": 9, "learning_rate": {"value": 0.0001}, '
            '"objective": {"n_samples": 5, "name": "iwae"}}]}}',
        ),
    ):
        assert config.digest == hashlib.sha256(text.encode()).hexdigest()[:8]
        assert config.digest == RunConfig.from_dict(json.loads(text)).digest


@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
def test_what_a_digest_is_made_of_tells_configurations_apart(schedule: Schedule) -> None:
    config = RunConfig(objective=ObjectiveConfig(beta=schedule), training=TrainingConfig(seeds=(7,)))
    assert RunConfig.from_dict(differences(config)) == config


def test_a_new_knob_renames_no_run() -> None:
    """A record that has one more knob, at its default, says the same of itself."""
    knobs = ObjectiveConfig(n_samples=3, beta=LinearWarmup(5))
    newer = dataclasses.make_dataclass("Newer", [("knob", str, "as ever")], bases=(ObjectiveConfig,), frozen=True)
    assert differences(newer(n_samples=3, beta=LinearWarmup(5))) == differences(knobs)
    assert differences(newer(knob="other")) == {"knob": "other"}


def test_a_number_is_a_constant_schedule() -> None:
    assert RunConfig.from_dict({"training": {"learning_rate": 1e-3}}).training.learning_rate == Constant(1e-3)


DOUBLY: dict[str, Any] = {"name": "iwae", "n_samples": 2, "gradient": "doubly-reparametrised"}

BAD: list[tuple[dict[str, Any], str]] = [
    ({"modle": {}}, "did you mean model?"),
    ({"model": {"latent": [1]}}, "model.latent is no setting; did you mean model.latents?"),
    ({"model": {"zzz": 1}}, "model.zzz is no setting; known are latents"),
    ({"model": {"latents": []}}, "model.latents is empty"),
    ({"model": {"latents": "16"}}, "model.latents is '16'"),
    ({"model": {"latents": 16}}, "model.latents is 16; give a list, each entry a whole number."),
    ({"model": {"latents": [1.5]}}, "model.latents[0] is 1.5"),
    ({"model": {"latents": [4, -1], "hidden": [[4]]}}, "model.latents is [4, -1]; give 1 to 1000000"),
    ({"model": {"hidden": []}}, "model.hidden is empty"),
    ({"model": {"hidden": [[1], [2]]}}, "model.hidden has 2 entries for 3 latent layers"),
    ({"model": {"hidden": [64]}}, "model.hidden[0] is 64"),
    ({"model": {"order": "unamortised"}}, "train with order mean-field, and fit a posterior to each datum"),
    ({"model": {"order": "exact"}}, "model.order is exact, which needs no encoder to train"),
    (
        {"model": {"order": "top-down-shared", "prior": "vamp"}},
        "no one conditional of the encoder is that distribution",
    ),
    ({"model": {"order": "top-down-shared", "families": ["mixture"]}}, "has mixture in a top-down ladder"),
    ({"model": {"order": "sideways"}}, "model.order is 'sideways'; give bottom-up or bottom-up-x or mean-field"),
    ({"model": {"activation": ["swish"]}}, "model.activation[0] is 'swish'"),
    ({"model": {"batch_norm": ["yes"]}}, "model.batch_norm[0] is 'yes'; give true or false."),
    ({"model": None}, "model is nothing"),
    ({"model": [1]}, "model is [1]"),
    ({"data": {"name": 3}}, "data.name is 3; give text."),
    ({"data": {"name": ""}}, "data.name is empty"),
    ({"data": {"n_train": -1}}, "data.n_train is -1"),
    ({"training": {"n_steps": "many"}}, "training.n_steps is 'many'; give a whole number."),
    ({"training": {"n_steps": "300"}}, "training.n_steps is '300'"),
    ({"training": {"n_steps": True}}, "training.n_steps is true"),
    ({"training": {"n_steps": -3}}, "training.n_steps is -3"),
    ({"training": {"seeds": []}}, "training.seeds is empty"),
    ({"training": {"seeds": [1, 1]}}, "repeats a seed"),
    ({"training": {"learning_rate": -1e-3}}, "training.learning_rate"),
    ({"training": {"learning_rate": {"value": -1.0}}}, "training.learning_rate"),
    ({"training": {"learning_rate": {"warmup_steps": 10, "stop": -1.0}}}, "training.learning_rate"),
    ({"training": {"clip_norm": float("nan")}}, "training.clip_norm is nan; give a finite number."),
    ({"training": {"ema_decay": 1.0}}, "training.ema_decay is 1.0"),
    ({"objective": {"beta": {"warmup_steps": 0}}}, "objective.beta.warmup_steps is 0"),
    ({"objective": {"beta": {"warmup": 3}}}, "objective.beta has the keys warmup; give a number or one of the tables"),
    ({"objective": {"beta": {"value": "x"}}}, "objective.beta.value is 'x'"),
    ({"objective": {"beta": -1}}, "objective.beta is -1; give 0 to 1000000"),
    ({"objective": {"beta": {"class_path": "subprocess.Popen", "init_args": {"args": "ls"}}}}, "objective.beta"),
    ({"objective": {"layer_beta": [-0.5]}}, "objective.layer_beta"),
    ({"objective": {"free_nats": []}}, "objective.free_nats is empty"),
    ({"objective": {"gradient": "stl"}}, "objective.gradient is 'stl'; give pathwise or sticking-the-landing or"),
    ({"objective": {"name": "iwae", "gradient": "sticking-the-landing"}}, "biased for the iwae bound of 2 or more"),
    ({"objective": {"gradient": "doubly-reparametrised"}}, "use sticking-the-landing for the elbo."),
    (
        {"objective": {"free_nats": [0.0, 0.5, 0.0], "gradient": "sticking-the-landing"}},
        "objective.free_nats is [0.0, 0.5, 0.0], and their gate depends on the draws",
    ),
    ({"objective": DOUBLY | {"layer_beta": [1, 1, 2]}}, "objective.layer_beta is [1.0, 1.0, 2.0], but"),
    ({"objective": DOUBLY, "model": {"batch_norm": [True]}}, "with model.batch_norm a draw moves the weights of all"),
    (
        {"objective": DOUBLY, "model": {"families": ["gaussian", "categorical", "bernoulli"]}},
        "which the draws of bernoulli and categorical layers do not allow; use pathwise.",
    ),
    (
        {"objective": {"n_samples": 2, "gradient": "sticking-the-landing"}, "model": {"families": ["bernoulli"]}},
        "objective.gradient is sticking-the-landing, but all layers are discrete",
    ),
    ({"evaluation": {"epsilon_nats": 0}}, "evaluation.epsilon_nats"),
]


@pytest.mark.parametrize(("values", "words"), BAD, ids=lambda value: str(value)[:50])
def test_bad_input_is_one_sentence_that_names_the_key(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        RunConfig.from_dict(values)
    message = str(caught.value)
    assert words in message
    assert "\n" not in message and len(message) < 400


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"x"', "[" * 5000])
def test_text_that_is_no_table_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"here\.json"):
        RunConfig.from_json(text, "here.json")


def test_every_key_of_the_json_is_needed_by_nobody_and_known() -> None:
    """Dropping any one knob takes its default; adding any unknown one is refused, at every level."""
    values = json.loads(RunConfig().to_json())
    for section, record in values.items():
        for knob in record:
            shorter = {**values, section: {k: v for k, v in record.items() if k != knob}}
            assert RunConfig.from_dict(shorter) == RunConfig()
        with pytest.raises(ConfigError, match="is no setting"):
            RunConfig.from_dict({**values, section: {**record, "unheard_of": 1}})


def test_a_setting_that_is_retired_is_passed_over_in_a_file_and_refused_from_anybody() -> None:
    """A file of a released run keeps its digest; nobody is told that a setting without effect was taken."""
    for section, retired in RETIRED.items():
        for knob in retired:
            values = json.loads(RunConfig().to_json())
            assert knob not in values[section], f"{knob} is a setting again"
            values[section][knob] = 7
            assert RunConfig.from_json(json.dumps(values)) == RunConfig()
            with pytest.raises(ConfigError, match=f"{section}.{knob} is no setting"):
                RunConfig.from_dict(values)


def test_per_layer() -> None:
    assert per_layer("x", (1,), 3) == (1, 1, 1)
    assert per_layer("x", (1, 2), 2) == (1, 2)
    with pytest.raises(ConfigError, match="x has 2 entries for 3"):
        per_layer("x", (1, 2), 3)


def test_discrete_layers_need_two_samples() -> None:
    with pytest.raises(ConfigError, match="leave-one-out"):
        RunConfig(model=ModelConfig(families=("bernoulli",)))
    RunConfig(model=ModelConfig(families=("bernoulli",)), objective=ObjectiveConfig(n_samples=2))


def test_gradients_without_the_score_where_they_are_right() -> None:
    stuck: dict[str, Any] = {"n_samples": 2, "gradient": "sticking-the-landing", "layer_beta": [1, 2, 0]}
    for objective, model in (
        (stuck, {"families": ["gaussian", "full-gaussian", "bernoulli"]}),
        (stuck, {"batch_norm": [True]}),
        (stuck | {"n_samples": 1}, {"order": "top-down"}),
        (DOUBLY | {"layer_beta": [2, 2, 2], "beta": {"warmup_steps": 9}}, {"order": "top-down"}),
        (DOUBLY | {"n_samples": 1}, {"families": ["full-gaussian"]}),
    ):
        RunConfig.from_dict({"objective": objective, "model": model})


def test_a_ladder_refuses_full_covariance() -> None:
    with pytest.raises(ConfigError, match="precision-weighted"):
        ModelConfig(order="top-down", families=("full-gaussian",))


def test_records_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        DataConfig().seed = 3  # type: ignore[misc]


def test_equal_configurations_have_one_digest_and_it_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = RunConfig(training=TrainingConfig(clip_norm=100.0, ema_decay=0.5))
    other = RunConfig(training=TrainingConfig(clip_norm=100, ema_decay=0.5))
    assert whole.digest == other.digest == RunConfig.from_json(whole.to_json()).digest
    assert dataclasses.replace(whole, training=TrainingConfig()).digest != whole.digest
    monkeypatch.setattr("hvae.lab.config.run.hashlib", None)  # whoever asks again is not told by making it again
    assert whole.digest == other.digest
