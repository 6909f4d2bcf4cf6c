"""Stacks less some of their units: against smaller stacks, built by slicing weights, that never had them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hvae.diagnostics.draws import Sampler
from hvae.evidence import HVAE
from hvae.experiments.burda_tables.removal import removal_arrays, without_units
from hvae.experiments.burda_tables.removed import Removed
from hvae.families import DiagonalGaussian, FullGaussian
from hvae.lab.assembly import build_hvae
from hvae.lab.config import DataConfig, EvaluationConfig, ModelConfig, RunConfig, TrainingConfig
from hvae.lab.evaluation import evaluate
from hvae.lab.runs.run import Run
from hvae.lab.training.loop import load_trained, train
from hvae.likelihood.importance import log_likelihood_curve
from tests.lab.training.test_loop import toy

BIG = ModelConfig(latents=(4, 3), hidden=((6,), (5,)))
GONE = {"z1": np.array([False, True, False, True]), "z2": np.array([True, False, False])}


def random_stack(config: ModelConfig = BIG, order: Any = "bottom-up") -> HVAE:
    """Weights large enough that every unit matters."""
    model = build_hvae(config, toy(), seed=0).double().eval()
    source = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(torch.randn(weight.shape, generator=source, dtype=torch.float64) * 0.7)
    return model


def log_normal(value: Tensor, outputs: Tensor) -> Tensor:
    mean, log_variance = outputs.chunk(2, -1)
    return torch.distributions.Normal(mean, (log_variance / 2).exp()).log_prob(value)


def by_hand(model: HVAE, x: Tensor, noise: dict[str, Tensor], constants: dict[str, Tensor]) -> Tensor:
    """log-weights ``[K, B]`` of the stack whose nets have lost the columns and rows of the units.

    A net's first layer keeps the columns of the units that are left, with what the others give at their constants in
    its bias; its last layer keeps the rows of the means and log-variances that are left.
    """
    left = {name: torch.as_tensor(~gone) for name, gone in GONE.items()}

    def cut(net: nn.Module, parent: str, child: str) -> nn.Sequential:
        assert isinstance(net, nn.Sequential)
        first, *between, last = net
        assert isinstance(first, nn.Linear) and isinstance(last, nn.Linear)
        weight, bias, end, end_bias = first.weight, first.bias, last.weight, last.bias
        if parent in left:
            bias = bias + weight[:, ~left[parent]] @ constants[parent][~left[parent]]
            weight = weight[:, left[parent]]
        if child in left:
            rows = torch.cat([left[child], left[child]])
            end, end_bias = end[rows], end_bias[rows]
        small = [nn.Linear(*weight.T.shape).double(), *between, nn.Linear(*end.T.shape).double()]
        for layer, values in ((small[0], (weight, bias)), (small[-1], (end, end_bias))):
            assert isinstance(layer, nn.Linear)
            layer.weight, layer.bias = (nn.Parameter(value.detach()) for value in values)
        return nn.Sequential(*small)

    q, p = model.posterior.network, model.decoder  # type: ignore[union-attr]
    q1 = cut(q["z1"].net, "x", "z1")(x)  # type: ignore[operator,index]
    z1 = q1.chunk(2, -1)[0] + (q1.chunk(2, -1)[1] / 2).exp() * noise["z1"][..., left["z1"]]
    q2 = cut(q["z2"].net, "z1", "z2")(z1)  # type: ignore[operator,index]
    z2 = q2.chunk(2, -1)[0] + (q2.chunk(2, -1)[1] / 2).exp() * noise["z2"][..., left["z2"]]
    logits = cut(p["x"].net, "z1", "x")(z1)
    log_px = torch.distributions.Bernoulli(logits=logits).log_prob(x).sum(-1)
    prior = torch.distributions.Normal(0.0, 1.0).log_prob(z2).sum(-1)
    middle = log_normal(z1, cut(p["z1"].net, "z2", "z1")(z2)).sum(-1)
    return log_px + prior + middle - log_normal(z1, q1).sum(-1) - log_normal(z2, q2).sum(-1)


def test_the_log_weights_are_those_of_a_stack_that_never_had_the_units() -> None:
    model, x = random_stack(), toy().test[:7].double().unsqueeze(0)
    source = torch.Generator().manual_seed(2)
    noise = {name: torch.randn(5, 7, n, generator=source, dtype=torch.float64) for name, n in (("z1", 4), ("z2", 3))}
    sampler = Sampler(model, torch.zeros(1, 1).double(), 0)
    constants = {name: sampler.prior_means[name].detach() for name in model.latents}
    assert constants["z2"].abs().max() == 0 and constants["z1"].abs().min() > 0.01
    found = without_units(model, GONE, seed=0)(x, noise).log_weight
    expected = by_hand(model, x, noise, constants)
    torch.testing.assert_close(found, expected, atol=1e-10, rtol=0)
    assert (model(x, noise).log_weight - expected).abs().min() > 1e-3


def test_the_standard_distribution_is_that_of_the_family_that_lost_units() -> None:
    """What a divergence from N(0, I) asks for; it had called itself without end."""
    family = Removed(DiagonalGaussian(2), torch.tensor([True, False]), torch.zeros(2))
    assert family.standard(torch.zeros(1)).mean.tolist() == [0.0, 0.0]


def test_nothing_removed_changes_nothing_and_the_original_stays() -> None:
    model, x = random_stack(), toy().test[:7].double()
    before = log_likelihood_curve(model, x, (1, 20), seed=0).estimate.log_px
    none = {name: np.zeros_like(gone) for name, gone in GONE.items()}
    np.testing.assert_allclose(
        log_likelihood_curve(without_units(model, none, 0), x, (20,), seed=0).estimate.log_px, before, atol=1e-12
    )
    without_units(model, GONE, 0)
    assert isinstance(model.decoder["z1"].family, DiagonalGaussian)
    np.testing.assert_array_equal(log_likelihood_curve(model, x, (1, 20), seed=0).estimate.log_px, before)


@pytest.mark.parametrize("statistic", ["burda_variance", "rate_unit_nats"])
def test_a_run_less_its_inactive_units(tmp_path: Path, statistic: str) -> None:
    """Those of either layer of which a statistic is at or below the threshold, on the first images of the likelihood,
    by the same draws."""
    evaluation = EvaluationConfig(n_images=20, max_paths=4, n_likelihood=12, n_samples=30)
    training = TrainingConfig(seeds=(0, 1), n_steps=2, batch_size=32, log_every_steps=2)
    config = RunConfig(DataConfig("digits-threshold"), BIG, training=training, evaluation=evaluation)
    run, data = Run.create_or_open(tmp_path, "trial", "run", config), toy()
    train(run, data, progress=False)
    evaluate(run, data, progress=False)
    variances, index = run.load_arrays("diagnostics"), run.load_arrays("likelihood")["image_index"][:8]
    threshold = float(np.median(variances[f"{statistic}/z1"][..., 1]))
    found = removal_arrays(run, data, 8, statistic, threshold)
    masks = {name: variances[f"{statistic}/{name}"][..., 1] <= threshold for name in ("z1", "z2")}
    assert masks["z1"].any(1).all() and not masks["z1"].all()
    for replica, model in enumerate(load_trained(run, data).models):
        units = {name: mask[replica] for name, mask in masks.items()}
        assert all(found[f"n_removed/{name}"][replica] == mask.sum() for name, mask in units.items())
        x = data.test[torch.as_tensor(index)]
        whole, less = (
            log_likelihood_curve(stack, x, (30,), seed=0).estimate.log_px.mean()
            for stack in (model, without_units(model, units, 0))
        )
        assert abs(whole - less) > 1e-4
        assert found["lost_nats"][replica, 1] == pytest.approx(whole - less, abs=1e-6)


def test_what_cannot_lose_a_unit_says_so() -> None:
    ladder = build_hvae(ModelConfig(latents=(4, 3), hidden=((6,), (5,)), order="top-down"), toy(), seed=0)
    with pytest.raises(ValueError, match="ladder"):
        without_units(ladder, GONE, 0)
    with pytest.raises(ValueError, match="FullGaussian cannot be removed"):
        Removed(FullGaussian(3), torch.zeros(3, dtype=torch.bool), torch.zeros(3))
