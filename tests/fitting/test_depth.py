"""Residual stacks of 24 layers in training: what is not finite is named by its layer, free bits, memory, precision."""

import re
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hvae import HVAE, BlockStyle, ConfigError, Elbo, fit
from hvae.errors import TrainingError
from hvae.evidence import Evidence
from hvae.fitting import Fit, Step
from hvae.nets.frugal import Frugal, save_memory
from hvae.rng import noise
from tests.fitting.models import make
from tests.topdown.stacks import stack

BLOCKS = "1x2,2m1,2x3,4m2,4x7,8m4,8x9"
"""24 layers, z24 at 1x1 to z1 at 8x8"""
N_LAYERS = 24
STYLE = BlockStyle(width=8, channels=2)
X = (torch.rand(6, 64, generator=torch.Generator().manual_seed(0)) < 0.4).double()


def deep(seed: int = 0, blocks: str = BLOCKS, style: BlockStyle = STYLE) -> HVAE:
    return stack(blocks, seed=seed, spread=0.02, style=style).double()


def trained(models: list[HVAE], **knobs: Any) -> tuple[Fit, list[str]]:
    x = X.to(next(models[0].parameters()).dtype)
    training = fit(models, Elbo(), [x], **({"n_steps": 2, "learning_rate": 0.01} | knobs))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for _ in training:
            pass
    return training, [str(one.message) for one in said]


def part(model: HVAE, path: str) -> nn.Parameter:
    found = dict(model.named_parameters())[path]
    assert isinstance(found, nn.Parameter)
    return found


# What is not finite is named by its layer


PARTS = {
    "prior": "decoder.blocks.z12.prior.1.weight",
    "project": "decoder.blocks.z12.project.weight",
    "residual": "decoder.blocks.z12.residual.5.bias",
    "posterior": "posterior.nets.z12.3.weight",
    "where h begins": "decoder.blocks.z10.start",
    "lowest": "decoder.blocks.z1.residual.7.weight",
    "top": "decoder.blocks.z24.prior.7.weight",
    "upward": "posterior.upward.blocks.5.net.1.weight",
    "gain": "decoder.gain",
}


@pytest.mark.parametrize("kind", PARTS)
def test_a_weight_that_is_no_number_is_named(kind: str) -> None:
    models, path = [deep(0), deep(1)], PARTS[kind]
    with torch.no_grad():
        part(models[1], path).view(-1)[0] = torch.nan
    _, (sentence,) = trained(models, n_steps=1)
    assert sentence.startswith("seed 1 became non-finite at step 1 in ")
    assert sentence.endswith(f", first in the weight {path} and was stopped; the other seeds go on.")


@pytest.mark.parametrize("kind", ["prior", "residual", "posterior", "upward"])
def test_a_net_that_overflows_is_named(kind: str) -> None:
    """Its weights are finite, in float32; their products are not."""
    models, net = [deep(seed).float() for seed in (0, 1)], PARTS[kind].rsplit(".", 2)[0]
    with torch.no_grad():
        for weights in models[1].get_submodule(net).parameters():
            weights.fill_(3e38)
    _, (sentence,) = trained(models, n_steps=1)
    assert f", first in the net {net}." in sentence, sentence


def test_one_replica_that_stops_alone_names_its_layer() -> None:
    model = deep(0).float()
    with torch.no_grad():
        part(model, PARTS["prior"]).fill_(3e38)
    with pytest.raises(TrainingError, match=r"first in the net decoder\.blocks\.z12\.prior\."):
        trained([model], n_steps=1)


def test_without_an_origin_the_first_layer_in_the_order_of_the_walk_is_named() -> None:
    training, _ = trained([deep(0), deep(1)], n_steps=1)
    health = training.health
    assert health.visited == (*(f"z{layer}" for layer in range(N_LAYERS, 0, -1)), "x")
    terms = {f"rate_nats/z{layer}": torch.tensor([1.0, float("nan") if layer <= 12 else 1.0]) for layer in range(1, 25)}
    terms["distortion_nats"] = torch.tensor([1.0, float("nan")])
    health.check(7, terms["distortion_nats"], terms, torch.ones(len(health.parameters), 2))
    assert health.news((3, 4)) == [
        "seed 4 became non-finite at step 8 in the rate of z12 and was stopped; the other seeds go on."
    ]


def test_a_step_that_is_skipped_names_the_layer_with_the_largest_gradient() -> None:
    models = [deep(0)]
    with torch.no_grad():
        part(models[0], "posterior.nets.z7.7.bias").add_(3.0)  # q of z7 is narrow or far from p
    training, said = trained(models, skip_norm=1e-3, n_steps=3)
    drawn = noise(models[0].noise_specs(), 1, len(X), seed=0, purpose="train", step=2, dtype=X.dtype)
    loss, _ = Step(models[0].train(), Elbo())(X.unsqueeze(0), drawn, 2)
    squares: dict[str, float] = {}
    names, weights = zip(*models[0].named_parameters(), strict=True)
    for name, found in zip(names, torch.autograd.grad(loss, weights), strict=True):
        owner = next((p for p in name.split(".") if re.fullmatch(r"z\d+", p)), ".".join(name.split(".")[:2]))
        squares[owner] = squares.get(owner, 0.0) + float(found.square().sum())
    assert training.health.skipped.tolist() == [3]
    assert said[0].endswith(f"was largest in {max(squares, key=squares.__getitem__)}.")


# Free bits


def evidence_of(model: HVAE, n_samples: int = 3) -> Evidence:
    drawn = noise(model.noise_specs(), n_samples, len(X), seed=0, purpose="test", dtype=X.dtype)
    found = model(X.unsqueeze(0), drawn)
    assert isinstance(found, Evidence)
    return found


def normal_log_prob(distribution: Any, value: Tensor) -> Tensor:
    return torch.distributions.Normal(distribution.mean, distribution.variance.sqrt()).log_prob(value)


@pytest.mark.parametrize("free", [0.05, 0.5, 5.0])
@pytest.mark.parametrize("per_unit", [False, True])
def test_free_bits_of_24_spatial_layers_by_channel(free: float, per_unit: bool) -> None:
    """One value for all layers: a layer, or a channel of it, pays at least that, by torch's own densities."""
    evidence = evidence_of(stack(BLOCKS, style=STYLE, spread=0.1).double())
    names = {f"z{layer}": free for layer in range(1, N_LAYERS + 1)}
    loss = (Elbo(unit_free_nats=names) if per_unit else Elbo(free_nats=names))(evidence, 0)
    expected, paid_free = evidence.distortion.mean(), 0
    for name in names:
        q, p, z = evidence.q[name].distribution, evidence.p[name].distribution, evidence.q[name].value
        terms = (normal_log_prob(q, z) - normal_log_prob(p, z)).mean((0, 1)).view(STYLE.channels, -1).sum(-1)
        rates = terms if per_unit else terms.sum(0, keepdim=True)
        paid_free += int((rates <= free).sum())
        expected = expected + rates.clamp(min=free).sum()
    assert abs(float((loss - expected).detach())) < 1e-10
    n = N_LAYERS * (STYLE.channels if per_unit else 1)
    assert 0 < paid_free < n


@pytest.mark.parametrize("per_unit", [False, True])
def test_free_bits_keep_layers_of_a_deep_stack_alive_in_training(per_unit: bool) -> None:
    names = {f"z{layer}": 0.05 for layer in range(1, N_LAYERS + 1)}
    objective = Elbo(unit_free_nats=names) if per_unit else Elbo(free_nats=names)
    rows = list(fit([deep(0), deep(1)], objective, [X], n_steps=3, learning_rate=1e-3))
    assert all(bool(record.alive.all()) and bool(record.loss_nats.isfinite().all()) for record in rows)


# Memory


@pytest.mark.parametrize(("n_replicas", "skips"), [(1, False), (2, True)])
def test_gradients_that_are_computed_again_are_the_same(n_replicas: int, skips: bool) -> None:
    style = BlockStyle(width=8, channels=2, skips=skips)
    usual, _ = trained([deep(seed, style=style) for seed in range(n_replicas)])
    again, _ = trained([deep(seed, style=style) for seed in range(n_replicas)], checkpoint_gradients=True)
    found = again.state()["parameters"]
    for name, value in usual.state()["parameters"].items():
        torch.testing.assert_close(found[name], value, atol=1e-10, rtol=0)
    assert "computed again" in again.one_by_one and "computed again" not in usual.one_by_one


def test_what_is_computed_again_has_the_weights_draws_and_mode_of_its_forward_pass() -> None:
    """Weights that were exchanged for the forward pass, dropout between, and evaluation mode before the backward."""

    def gradients(recompute: bool) -> list[Tensor]:
        torch.manual_seed(0)
        net = Frugal(nn.Conv2d(2, 3, 1), nn.Dropout(0.5), nn.GELU(), nn.Conv2d(3, 1, 1)).double()
        net.recompute = recompute
        others = {name: (value.detach() + 1.0).requires_grad_() for name, value in net.named_parameters()}
        x = torch.randn(1, 5, 2, 4, 4, dtype=torch.float64).squeeze(0).requires_grad_()
        torch.manual_seed(1)
        loss = torch.func.functional_call(net, others, (x,)).square().sum()
        net.eval()
        torch.manual_seed(2)
        return list(torch.autograd.grad(loss, [x, *others.values()]))

    for a, b in zip(gradients(False), gradients(True), strict=True):
        assert torch.equal(a, b) and a.any()


def peak_bytes(call: Callable[[], object]) -> int:
    """The most that the call held of torch's memory at once."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as found:
        call()
    now = most = 0
    for event in found.profiler.kineto_results.events():
        if event.name() == "[memory]":
            now += event.nbytes()
            most = max(most, now)
    return most


def test_less_memory_is_held() -> None:
    """Of 24 layers at one resolution, so that activations are most of it: a quarter, and surely below a third."""
    style = BlockStyle(width=32, channels=2)

    def held(recompute: bool) -> int:
        model = stack("8x24", style=style, spread=0.02).float().train()
        save_memory([model], recompute=recompute, precision=None)
        x = X.float().repeat(8, 1).unsqueeze(0)
        drawn = noise(model.noise_specs(), 1, x.shape[1], seed=0, purpose="test")

        def call() -> None:
            loss, _ = Step(model, Elbo())(x, drawn, 0)
            torch.autograd.grad(loss, list(model.parameters()))

        call()
        return peak_bytes(call)

    whole, less = held(False), held(True)
    assert less < whole / 3


# Precision


def test_bfloat16_agrees_within_its_precision_and_what_is_weighed_is_float32() -> None:
    """A bfloat16 has 8 bits, 0.4 %. The loss of some 50 nats moves by less than 1 % and the gradient's direction by
    less than a cosine of 0.99; both move, so that the nets do have fewer bits."""
    found = {}
    for precision in (None, torch.bfloat16):
        model = deep().float().train()
        save_memory([model], recompute=False, precision=precision)
        drawn = noise(model.noise_specs(), 2, len(X), seed=0, purpose="test")
        loss, evidence = Step(model, Elbo())(X.float().unsqueeze(0), drawn, 0)
        for trace in (evidence.p, evidence.q):
            for site in trace.values():
                assert site.value.dtype == site.log_prob.dtype == site.distribution.mean.dtype == torch.float32
        assert evidence.log_weight.dtype == torch.float64 and evidence.rate("z7").dtype == torch.float32
        flat = torch.cat([gradient.flatten() for gradient in torch.autograd.grad(loss, list(model.parameters()))])
        assert flat.dtype == torch.float32
        found[precision] = loss, flat
    (a, one), (b, other) = found.values()
    assert 0 < abs(float(((a - b) / a).detach())) < 0.01
    assert 0.99 < float(torch.cosine_similarity(one, other, dim=0)) < 1 - 1e-7


@pytest.mark.parametrize(("n_replicas", "again"), [(1, True), (2, False)])
def test_bfloat16_trains_replicas_together_alone_and_computed_again(n_replicas: int, again: bool) -> None:
    knobs: dict[str, Any] = {"n_steps": 3, "learning_rate": 1e-3}
    usual, _ = trained([deep(seed).float() for seed in range(n_replicas)], **knobs)
    less, said = trained(
        [deep(seed).float() for seed in range(n_replicas)],
        precision=torch.bfloat16, checkpoint_gradients=again, **knobs,
    )  # fmt: skip
    assert said == []
    found = less.state()["parameters"]
    moved = [float((found[name] - value).abs().max()) for name, value in usual.state()["parameters"].items()]
    assert 0 < max(moved) < 3 * 2e-3  # Adam moves by 1e-3 a step, in one of two directions
    assert all(value.dtype == torch.float32 for value in found.values())


def test_evaluation_has_all_bits() -> None:
    model = deep().float().eval()
    drawn = noise(model.noise_specs(), 2, len(X), seed=0, purpose="test")
    before = model(X.float().unsqueeze(0), drawn).log_weight
    save_memory([model], recompute=True, precision=torch.bfloat16)
    assert torch.equal(model(X.float().unsqueeze(0), drawn).log_weight, before)


def test_what_cannot_save_memory_is_refused() -> None:
    for knobs, sentence in (
        ({"checkpoint_gradients": True}, "checkpoint_gradients is for stacks of residual blocks"),
        ({"precision": torch.bfloat16}, "precision bfloat16 is for stacks of residual blocks"),
        ({"precision": torch.float16}, "precision is torch.float16; give torch.bfloat16"),
        ({"precision": "bfloat16"}, "precision is bfloat16; give torch.bfloat16"),
    ):
        with pytest.raises(ConfigError) as refused:
            fit([make(0)], Elbo(), [torch.zeros(4, 6)], n_steps=2, **knobs)  # type: ignore[arg-type]
        assert str(refused.value).startswith(sentence)
    with pytest.raises(ConfigError, match=r"weights are float64; make them float32 by \.float\(\)"):
        fit([deep()], Elbo(), [X], n_steps=2, precision=torch.bfloat16)
