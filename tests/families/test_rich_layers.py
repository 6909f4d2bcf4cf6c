"""Rich distributions as layers: replicas trained together, exact posteriors in reach, whole stacks that weigh as they
should."""

import copy
import itertools
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from hvae.data import Dataset
from hvae.evidence import HVAE
from hvae.families import Autoregressive, Bernoulli, Family
from hvae.lab.assembly import build_hvae
from hvae.lab.config import DataConfig, LatentFamily, ModelConfig, ObjectiveConfig, RunConfig, TrainingConfig
from hvae.lab.runs.checkpoints import latest_checkpoint
from hvae.lab.runs.run import Run
from hvae.lab.training.loop import load_trained, train
from hvae.rng import noise
from hvae.schedules import Constant

RICH: tuple[LatentFamily, ...] = (
    "autoregressive-bernoulli", "autoregressive-categorical", "autoregressive-gaussian", "mixture", "maf", "nsf",
)  # fmt: skip


def images(kind: str = "binary") -> Dataset:
    source = torch.Generator().manual_seed(0)
    p = torch.rand(4, 16, generator=source)[torch.arange(80) % 4]
    values = (torch.rand(80, 16, generator=source) < p).float() if kind == "binary" else (p * 16).round() / 16
    return Dataset("toy", values[:64], values[64:], (4, 4), kind, False)  # type: ignore[arg-type]


def stack(family: LatentFamily, **knobs: object) -> ModelConfig:
    small = {"latents": (3, 2), "hidden": ((6,), (4,)), "n_masked": 4, "n_components": 2, "n_classes": 3}
    return ModelConfig(**{**small, "families": (family,), "prior": "learned", **knobs})  # type: ignore[arg-type]


def trained(root: Path, model: ModelConfig, data: Dataset, seeds: tuple[int, ...], label: str) -> Run:
    steps = TrainingConfig(seeds, n_steps=6, batch_size=16, log_every_steps=6, learning_rate=Constant(1e-2))
    config = RunConfig(DataConfig("digits-threshold"), model, ObjectiveConfig(n_samples=3), steps)
    run = Run.create_or_open(root, "trial", label, config)
    train(run, data, progress=False)
    return run


@pytest.mark.parametrize("family", RICH)
def test_two_replicas_of_a_stack_train_together_as_if_alone(family: LatentFamily, tmp_path: Path) -> None:
    """Rich in encoder, decoder and prior. Alone and together differ by float32 rounding of numbers around 1, 6e-8 each:
    1e-6 after six steps of 1e-2."""
    model, data = stack(family), images()
    run = trained(tmp_path, model, data, (3, 5), "together")
    alone = load_trained(trained(tmp_path, model, data, (5,), "alone"), data).models[0]
    both = load_trained(run, data)
    assert both.alive == [True, True]
    own, others = (dict(m.named_parameters()) for m in (both.models[1], both.models[0]))
    start = dict(build_hvae(model, data, seed=5).named_parameters())
    for name, weight in alone.named_parameters():
        torch.testing.assert_close(own[name], weight, atol=1e-6, rtol=0)
        assert not torch.equal(own[name], others[name])
    inner = [name for name in own if ".family." in name]
    assert inner or family == "mixture"
    for name in inner:  # every weight of a family's own learns
        assert not torch.equal(own[name], start[name]), name
    found = latest_checkpoint(run)
    assert found is not None and found[0] == 6


@pytest.mark.parametrize("family", RICH)
def test_a_distribution_keeps_the_weights_that_it_was_made_with(family: LatentFamily) -> None:
    """Frozen evidence moves with the draws alone, as if scored by a model whose weights are constants."""
    model = shaken(family)
    constants = copy.deepcopy(model).requires_grad_(False)
    x = images().test[:5].double().unsqueeze(0)
    evidence = model(x, noise(model.noise_specs(), 4, 5, seed=0, purpose="test", dtype=torch.float64))
    frozen = evidence.frozen.log_weight
    expected = constants(x, {}, {name: site.value for name, site in evidence.q.items()}).log_weight
    torch.testing.assert_close(frozen, expected, atol=1e-10, rtol=1e-10)
    weights = [weight for name, weight in model.named_parameters() if name.startswith("posterior")]
    assert frozen.requires_grad == (not model.posterior.network["z1"].family.noise == "uniform")
    if frozen.requires_grad:
        found, right = (torch.autograd.grad(f.sum(), weights, retain_graph=True) for f in (frozen, expected))
        for slope, other in zip(found, right, strict=True):
            torch.testing.assert_close(slope, other, atol=1e-10, rtol=1e-10)


def shaken(family: LatentFamily) -> HVAE:
    model = build_hvae(stack(family), images(), seed=0).double()
    for parameter in model.parameters():
        parameter.data.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    return model


@pytest.mark.parametrize("family", RICH)
def test_a_log_weight_is_the_sum_of_its_scores(family: LatentFamily) -> None:
    """log w = log p(x, z) - log q(z|x), with every term scored anew by the conditionals alone."""
    model = shaken(family)
    x = images().test[:5].double().unsqueeze(0)
    draws = noise(model.noise_specs(), 4, 5, seed=0, purpose="test", dtype=torch.float64)
    evidence = model(x, draws)
    z1, z2 = (evidence.q[name].value for name in ("z1", "z2"))
    terms = torch.zeros(4, 5).double()
    for network, sign in ((model.decoder, 1), (model.posterior.network, -1)):
        for name in network.variables:
            conditional, values = network[name], {"x": x, "z1": z1, "z2": z2}
            outputs = conditional.net(*(values[parent] for parent in conditional.parents))
            terms = terms + sign * conditional.family.log_prob(conditional.family.distribution(outputs), values[name])
    assert evidence.log_weight.shape == (4, 5)
    torch.testing.assert_close(evidence.log_weight, terms, atol=1e-10, rtol=1e-10)


def test_grey_levels_train(tmp_path: Path) -> None:
    """A stack over 17 levels, its observation a true probability: the bound is negative and grows."""
    data = images("grey")
    model = stack("gaussian", observation="discretised-logistic", n_levels=17)
    run = trained(tmp_path, model, data, (0, 1), "grey")
    both = load_trained(run, data)
    assert both.alive == [True, True]
    x = data.test.unsqueeze(0)
    for replica, seed in ((0, 0), (1, 1)):
        start = build_hvae(model, data, seed=seed)
        draws = noise(start.noise_specs(), 16, len(data.test), seed=0, purpose="test")
        before, after = (m(x, draws).log_weight.mean() for m in (start, both.models[replica]))
        assert before < after < 0


# The reverse conditional of a small binary teacher

N_LATENT, N_PIXELS = 4, 5


def all_states(n: int) -> Tensor:
    return torch.tensor(list(itertools.product([0.0, 1.0], repeat=n)), dtype=torch.float64)


def teacher(coupling: float) -> tuple[Tensor, Tensor]:
    """log p(x) [X] and log p(z | x) [X, Z] of fair Bernoulli units z under x_i ~ Bernoulli unit(coupling · (W z -
    b)_i), by enumeration."""
    source = torch.Generator().manual_seed(0)
    weight = coupling * torch.randn(N_PIXELS, N_LATENT, generator=source, dtype=torch.float64)
    logits = all_states(N_LATENT) @ weight.T - weight.sum(1) / 2  # [Z, pixels]
    signs = 2 * all_states(N_PIXELS) - 1  # [X, pixels]
    log_joint = nn.functional.logsigmoid(signs[:, None] * logits).sum(-1) - N_LATENT * math.log(2)
    log_px = log_joint.logsumexp(1)
    return log_px, log_joint - log_px[:, None]


def smallest_gap(family: Family, coupling: float, n_steps: int) -> float:
    """``E_p(x) KL(q(z|x) ‖ p(z|x))`` after ``n_steps`` of Adam on the same, exact: a table of outputs for every x."""
    log_px, log_posterior = teacher(coupling)
    family = family.double()
    source = torch.Generator().manual_seed(1)
    table = 0.1 * torch.randn(2**N_PIXELS, family.n_outputs, generator=source, dtype=torch.float64)
    table.requires_grad_()
    optimiser = torch.optim.Adam([table, *family.parameters()], lr=0.05)
    for step in range(n_steps):
        optimiser.param_groups[0]["lr"] = 0.05 * (1 + math.cos(math.pi * step / n_steps)) / 2
        log_q = family.log_prob(family.distribution(table.unsqueeze(1)), all_states(N_LATENT))
        gap = (log_px.exp() * (log_q.exp() * (log_q - log_posterior)).sum(1)).sum()
        optimiser.zero_grad()
        gap.backward()
        optimiser.step()
    return gap.item()


def test_autoregressive_bernoulli_reach_the_exact_reverse_conditional_where_independent_ones_cannot() -> None:
    factorised = smallest_gap(Bernoulli(N_LATENT), 2.0, 300)
    rich = smallest_gap(Autoregressive(Bernoulli(N_LATENT), 24, source=torch.Generator().manual_seed(2)), 2.0, 800)
    assert factorised > 0.05
    assert 0 <= rich < 0.01 * factorised
