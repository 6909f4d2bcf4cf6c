"""Colour in levels: a tiny run from the command line, with bits per dimension beside nats wherever a bound is said."""

import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from hvae.analysis.load import load_runs
from hvae.analysis.study import open_study
from hvae.analysis.summary import summary
from hvae.analysis.tables.likelihood import likelihood_csv, likelihoods
from hvae.analysis.terminal import verdict_text
from hvae.data import load
from hvae.diagnosis import Diagnosis
from hvae.families import DiscretisedLogisticMixture
from hvae.lab.assembly import build_hvae
from hvae.lab.cli import main
from hvae.lab.config import DataConfig, ModelConfig, RunConfig
from hvae.lab.runs.survey import find_runs
from hvae.lab.training.loop import progress_text

D = 3 * 4 * 4
TINY = [
    "train", "--data.name=my.npz", "--data.n_train=64", "--data.n_test=16", "--model.latents=[4, 2]",
    "--model.hidden=[[8], [4]]", "--training.seeds=[0, 1]", "--training.n_steps=4", "--training.batch_size=16",
    "--training.log_every_steps=2", "--evaluation.n_images=12", "--evaluation.max_paths=8",
    "--evaluation.n_likelihood=8", "--evaluation.n_samples=30",
]  # fmt: skip
MIXTURE = "--model.observation=discretised-logistic-mixture"


def save(shape: tuple[int, ...] = (3, 4, 4), top: int = 256) -> None:
    images = np.random.default_rng(0).integers(0, top, (200, *shape), dtype=np.uint8)
    np.savez("my.npz", x=images)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("last", [False, True], ids=["colours first", "colours last"])
def test_bits_stand_beside_nats(last: bool, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shape = (4, 4, 3) if last else (3, 4, 4)
    save(shape)
    assert main([*TINY, MIXTURE, "--model.nets=[convolutional, mlp]", "--model.channels=[2]"]) == 0
    (run,) = find_runs(here / "runs")
    for row in run.read_metrics():
        wanted = [-nats / D / math.log(2) for nats in row["bound_nats"]]
        assert row["bits_per_dim"] == pytest.approx(wanted, rel=1e-12) and len(wanted) == 2
        assert progress_text(row) == f"ELBO {np.mean(row['bound_nats']):.2f} nats, {np.mean(wanted):.3f} bits/dim"
    assert 7 < wanted[0] < 20, "near 8 bits, which all levels alike would take"
    (loaded,) = runs = load_runs(run.path)
    found = loaded.likelihood
    assert found is not None and found.bits_per_dim is not None and found.elbo_bits_per_dim is not None
    np.testing.assert_allclose(found.elbo_bits_per_dim[:, 1], -found.elbo_nats[:, 1] / D / math.log(2), rtol=1e-12)
    assert (found.elbo_bits_per_dim[:, 0] <= found.elbo_bits_per_dim[:, 2]).all(), "the low end first"
    assert found.floor_bits_per_dim is not None
    elbo, bits = f"{found.elbo_bits_per_dim[:, 1].mean():.3f}", f"{found.bits_per_dim[:, 1].mean():.3f}"
    table = likelihoods(runs)
    assert table is not None and [cell.text for cell in table.rows[0][-2:]] == [elbo, bits]
    said = " ".join(verdict_text(run.path).split())
    assert f"At most {bits} bits per dimension, {elbo} by the ELBO." in said
    assert f"({bits} bits per dimension)" in " ".join(summary(open_study(run.path)))
    assert f"At most {bits} bits" in " ".join(str(Diagnosis.read(run.path).to_text(100)).split())
    frame = Diagnosis.read(run.path).to_dataframe()
    assert set(frame[frame.quantity == "elbo_bits_per_dim"].unit) == {"bits"}
    floor = f"{found.floor_bits_per_dim[:, 1].mean():.3f}"
    heads = [f"{column.name}, {column.unit}" for column in table.columns]
    assert table.rows[0][heads.index("floor, bits/dim")].text == floor
    assert f"nats ({floor} bits per dimension), independent columns" in said
    assert ",floor," in likelihood_csv(runs) and set(frame[frame.quantity == "floor_bits_per_dim"].unit) == {"bits"}
    for line in likelihood_csv(runs).splitlines()[1:]:
        cells = line.split(",")
        assert float(cells[-1]) == pytest.approx(-float(cells[-6]) / D / math.log(2), rel=1e-3), line
    assert run.load_arrays("images")["image_shape"].tolist() == list(shape)
    assert run.load_arrays("images")["reconstruction"].shape[-1] == D
    assert "colour images of 4 x 4, colour values" in capsys.readouterr().err


def test_bounds_of_two_distributions_of_levels_compare() -> None:
    save()
    one, other, density = (
        RunConfig(data=DataConfig("my.npz"), model=ModelConfig(observation=kind)).yardstick  # type: ignore[arg-type]
        for kind in ("discretised-logistic", "discretised-logistic-mixture", "gaussian")
    )
    assert one == other != density


@pytest.mark.parametrize("nets", [("mlp",), ("residual",)])
def test_dense_nets_have_it_too_and_start_at_the_mean(nets: tuple[str, ...]) -> None:
    save()
    data = load("my.npz")
    config = ModelConfig((4,), ((8,),), observation="discretised-logistic-mixture", nets=nets)  # type: ignore[arg-type]
    for components in (10, 1, 3):
        of = config if components == 10 else replace(config, observation_components=components)
        conditional = build_hvae(of, data, seed=0).decoder["x"]
        assert isinstance(conditional.family, DiscretisedLogisticMixture)
        assert conditional.family.n_outputs == 10 * components * 16
        mean = conditional.family.mean(conditional.family.distribution(conditional.net[-1].bias.detach()))
        torch.testing.assert_close(mean, data.train.mean(0), atol=0.02, rtol=0)


REFUSED = {
    "rows of numbers": (
        (48,),
        256,
        "",
        "is for images, but my.npz holds rows of 48 numbers; use model",
    ),
    "fewer levels": ((3, 4, 4), 256, "--model.n_levels=32", "n_levels is 32, but my.npz holds values that are no mult"),
    "zeros and ones": ((3, 4, 4), 2, "", "my.npz holds binary values; use model.observation bernoulli"),
    "whole numbers": ((3, 4, 4), 17, "", "which may be grey levels, counts or measurements"),
    "no components": (
        (3, 4, 4),
        256,
        "--model.observation_components=0",
        "observation_components is 0; give 1 to 1000.",
    ),
    "a variance for all": ((3, 4, 4), 256, "--model.observation_variance=fixed", "model.observation_variance is fixed"),
}


@pytest.mark.parametrize(("shape", "top", "option", "why"), REFUSED.values(), ids=REFUSED)
def test_what_does_not_fit_is_refused_before_training(
    shape: tuple[int, ...], top: int, option: str, why: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(shape, top)
    assert main([*TINY, MIXTURE, *([option] if option else [])]) == 2
    err = capsys.readouterr().err
    assert re.search(re.escape(why), err) and err.startswith("hvae: ") and err.count("\n") == 1, err
    assert [path.name for path in here.iterdir()] == ["my.npz"]


def test_levels_between_those_of_a_byte_are_refused(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Five bits, scaled to [0, 1] by the user."""
    np.savez("my.npz", x=(np.random.default_rng(0).integers(0, 32, (200, 3, 4, 4)) / 31).astype(np.float32))
    assert main([*TINY, MIXTURE]) == 2
    assert "no multiples of 1/255; give the number of its levels" in capsys.readouterr().err
    assert main([*TINY, MIXTURE, "--model.n_levels=32"]) == 0
