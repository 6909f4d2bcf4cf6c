"""The runs of the depth experiment."""

import pytest

from hvae.experiments.depth import PRESETS, configs
from hvae.schedules import Constant, LinearWarmup


@pytest.mark.parametrize("preset", PRESETS)
def test_labels_say_what_the_settings_are(preset: str) -> None:
    for label, config in configs(preset).items():
        assert len(config.model.latents) == int(label[6])
        assert config.model.batch_norm == ("BN" in label,)
        assert isinstance(config.objective.beta, LinearWarmup if "WU" in label else Constant)
        assert config.model.order == ("top-down" if "ladder" in label else "bottom-up")


def test_the_papers_epoch_is_its_whole_batches() -> None:
    assert configs("paper")["depth-1"].training.n_steps == 2000 * 234
