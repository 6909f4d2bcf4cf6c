"""Settings of a residual stack: absent where they are off, one sentence where they do not fit."""

import dataclasses
import hashlib
import json
from typing import Any

import pytest

from hvae.errors import ConfigError
from hvae.lab.config import BlocksConfig, ModelConfig, ObjectiveConfig, RunConfig, TrainingConfig, as_typed
from hvae.lab.config.model import BESIDE_BLOCKS

TEXT = "1x1,2m1,4m2,8m4"
LADDER = {"decoder": TEXT, "skips": False, "merge": "ladder", "reads_state": False, "widths": [[1, 48], [2, 40]]}


def config(**model: Any) -> RunConfig:
    return RunConfig.from_dict({"model": model})


def test_no_word_of_blocks_where_there_are_none() -> None:
    """So the text, and the digest, of every configuration from before them stay what they were."""
    assert "blocks" not in RunConfig().to_json()
    assert RunConfig().digest == config(blocks=None).digest == hashlib.sha256(b"{}").hexdigest()[:8]


@pytest.mark.parametrize("blocks", [TEXT, {"decoder": TEXT}, LADDER], ids=["text", "table", "ladder"])
def test_round_trip(blocks: Any) -> None:
    plain = config(blocks=blocks, observation="discretised-logistic", n_levels=17)
    mixture = config(blocks=blocks, observation="discretised-logistic-mixture", observation_components=3)
    for found, untold in ((plain, {"observation_components"}), (mixture, set())):
        again = RunConfig.from_json(found.to_json())
        assert again == found and again.digest == found.digest
        assert set(json.loads(found.to_json())["model"]) == set(BESIDE_BLOCKS) - untold, "dense settings are not told"


def test_text_is_the_table_of_its_decoder_and_the_digest_is_made_of_what_differs() -> None:
    text = f'{{"model": {{"blocks": {{"decoder": "{TEXT}"}}, "order": "top-down"}}}}'
    for found in (
        config(blocks=TEXT),
        config(blocks={"decoder": TEXT, "width": 32}),
        config(blocks=TEXT, order="ladder"),
    ):
        assert found.digest == hashlib.sha256(text.encode()).hexdigest()[:8]
    assert config(blocks={"decoder": TEXT, "width": 33}).digest != config(blocks=TEXT).digest


def test_every_setting_of_blocks_names_another_run() -> None:
    other = {
        "decoder": "1x2,8m1", "encoder": "8d8,1", "width": 40, "widths": ((1, 40),), "channels": 3, "bottleneck": 0.5,
        "skips": False, "merge": "shared", "reads_state": False,
    }  # fmt: skip
    plain = BlocksConfig("1x1,8m1")
    assert other.keys() == {knob.name for knob in dataclasses.fields(plain)}
    digests = {config(blocks=dataclasses.asdict(dataclasses.replace(plain, **{k: v}))).digest for k, v in other.items()}
    assert len(digests) == len(other)


def test_sizes_of_layers_by_hand() -> None:
    model = ModelConfig(blocks=BlocksConfig("1x2,2m1,8m2,8x1", channels=3))
    assert model.n_layers == 5 and model.order == "top-down"
    assert model.units == (3,) * 5
    assert model.widths == (3 * 64, 3 * 64, 3 * 4, 3, 3)
    assert (ModelConfig().n_layers, ModelConfig().units, ModelConfig().widths) == (3, (16, 8, 4), (16, 8, 4))


def test_settings_of_a_layer_count_blocks() -> None:
    model = ModelConfig(blocks=BlocksConfig(TEXT))
    RunConfig(model=model, objective=ObjectiveConfig(layer_beta=(1, 1, 1, 2)))
    RunConfig(model=model, training=TrainingConfig(aggressive_steps=2, aggressive_layers=(4,)))
    with pytest.raises(ConfigError, match=r"objective\.layer_beta has 3 entries for 4 latent layers"):
        RunConfig(model=model, objective=ObjectiveConfig(layer_beta=(1, 1, 2)))
    with pytest.raises(ConfigError, match="give layers from 1 to 4"):
        RunConfig(model=model, training=TrainingConfig(aggressive_steps=2, aggressive_layers=(5,)))


OTHER: dict[str, Any] = {
    "latents": [3], "hidden": [[9]], "order": "mean-field", "families": ["mixture"], "encoder_families": ["gaussian"],
    "n_classes": 3, "n_masked": 3, "n_transforms": 3, "n_components": 3, "latent_variance": "fixed",
    "standardise": True, "prior": "learned", "n_pseudo_inputs": 3, "nets": ["residual"], "channels": [3],
    "generative_skips": True, "normalised_means": [0.5], "floor_nats": 1.0, "activation": ["relu"],
    "init": ["orthogonal"], "batch_norm": [True],
}  # fmt: skip


def test_every_setting_of_dense_layers_is_asked_for() -> None:
    assert OTHER.keys() | set(BESIDE_BLOCKS) == {knob.name for knob in dataclasses.fields(ModelConfig)}


@pytest.mark.parametrize("knob", OTHER)
def test_a_setting_of_dense_layers_is_refused_beside_blocks(knob: str) -> None:
    with pytest.raises(ConfigError, match=rf"^model\.{knob} is .*, a setting of dense layers, but model\.blocks"):
        config(blocks=TEXT, **{knob: OTHER[knob]})


BAD: list[tuple[Any, str]] = [
    ("4y2", "model.blocks: the decoder's blocks '4y2': '4y2' is no part of the grammar; write RxN"),
    ("", "is no part of the grammar"),
    ("1x1,8x1", "nothing leads from resolution 1 to 8; write 8m1 between them."),
    ("1x1,3m1,8m3", "resolution 3 does not divide the 8 rows"),
    ("1x99999999999", "is 99999999999 blocks; give at most 1000."),
    (8, "model.blocks is 8; give text or a table of settings."),
    ([1], "model.blocks is [1]; give text or a table of settings."),
    (True, "model.blocks is true; give text or a table of settings."),
    ({"width": 8}, "model.blocks misses decoder."),
    ({"decoder": TEXT, "wdth": 8}, "model.blocks.wdth is no setting; did you mean model.blocks.width?"),
    ({"decoder": TEXT, "encoder": "4x1"}, "the encoder's blocks '4x1': resolution 4 stands where 8 is reached"),
    ({"decoder": TEXT, "channels": 33}, "channels is 33, but the state at resolution 1 has 32; give latents fewer"),
    ({"decoder": TEXT, "widths": [[2, 3]]}, "channels is 4, but the state at resolution 2 has 3"),
    ({"decoder": TEXT, "widths": [[3, 8]]}, "widths names resolution 3, where there is no block; give some of 1, 2, 4"),
    (
        {"decoder": TEXT, "widths": [[2, 8], [2, 9]]},
        "give pairs of a resolution and its channels, each resolution once",
    ),
    ({"decoder": TEXT, "widths": [[2]]}, "give pairs of a resolution and its channels"),
    ({"decoder": TEXT, "widths": [[]]}, "give pairs of a resolution and its channels"),
    ({"decoder": TEXT, "widths": [2, 8]}, "model.blocks.widths[0] is 2"),
    ({"decoder": TEXT, "channels": 0}, "model.blocks.channels is 0; give 1 to 1000000."),
    (
        {"decoder": "8x1", "encoder": "8d2,4x1", "widths": [[4, 0]]},
        "model.blocks.widths is [[4, 0]]; give 1 to",
    ),
    ({"decoder": TEXT, "bottleneck": 0}, "model.blocks.bottleneck is 0.0; give 1e-06 to 1000."),
    ({"decoder": TEXT, "merge": "sum"}, "model.blocks.merge is 'sum'; give alone or ladder or shared."),
    ({"decoder": TEXT, "skips": "no"}, "model.blocks.skips is 'no'; give true or false."),
]


@pytest.mark.parametrize(("blocks", "words"), BAD, ids=lambda value: str(value)[:50])
def test_what_does_not_fit_is_one_sentence(blocks: Any, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config(blocks=blocks)
    said = str(caught.value)
    assert words in said and "\n" not in said and said.count(". ") == 0 and len(said) < 250


def test_typed_settings_show_the_table() -> None:
    assert as_typed(RunConfig())["--model.blocks"] == "null"
    assert as_typed(config(blocks={"decoder": TEXT, "width": 8}))["--model.blocks"] == (
        f'\'{{"decoder": "{TEXT}", "width": 8}}\''
    )
