"""What is minimised, against numpy on the evidence's own terms: weights, schedules, free nats."""

import numpy as np
import pytest
import torch
from torch import Tensor

from hvae.evidence import HVAE, Evidence
from hvae.families import DiagonalGaussian
from hvae.objectives import DoublyReparametrised, Elbo, Iwae, Objective, StickingTheLanding, discrete_log_q
from hvae.schedules import Constant, LinearWarmup
from tests.test_gradients import coins, normal, stack

X = torch.tensor([[1.0, 0, 1], [0, 0, 1]], dtype=torch.float64).unsqueeze(0)


def evidence(model: HVAE, n_samples: int = 4) -> Evidence:
    source = torch.Generator().manual_seed(0)
    draw = {"normal": torch.randn, "uniform": torch.rand}
    noise = {
        name: draw[kind](n_samples, 2, width, generator=source, dtype=torch.float64)
        for name, (kind, width) in model.noise_specs().items()
    }
    return model(X, noise)


def gradient(model: HVAE, loss: Tensor) -> Tensor:
    parts = torch.autograd.grad(loss, list(model.parameters()), materialize_grads=True, retain_graph=True)
    return torch.cat([part.flatten() for part in parts])


@pytest.fixture
def model() -> HVAE:
    return stack("bottom-up", [normal, normal, normal])


def test_losses_equal_numpy(model: HVAE) -> None:
    found = evidence(model)
    distortion = found.distortion.detach().numpy()
    rates = {name: found.rate(name).detach().numpy() for name in model.latents}
    weights = {"z1": 0.25 * 0.5, "z2": 0.25 * 3, "z3": 0.25}
    f = -distortion - sum(weights[name] * rates[name] for name in rates)
    schedule, layers = LinearWarmup(100), {"z1": 0.5, "z2": 3.0}
    assert Elbo(schedule, layers)(found, 25).item() == pytest.approx(-f.mean(), abs=1e-12)
    expected = -np.log(np.exp(f).mean(0)).mean()
    assert Iwae(schedule, layers)(found, 25).item() == pytest.approx(expected, abs=1e-12)
    assert Elbo(schedule, layers)(found, 0).item() == pytest.approx(distortion.mean(), abs=1e-12)
    assert Elbo()(found, 0).item() == pytest.approx(-found.log_weight.mean().item(), abs=1e-12)


@pytest.mark.parametrize("beta", [1.0, 0.4])
def test_free_nats_gate_the_mean_rate_and_are_paid(model: HVAE, beta: float) -> None:
    """A layer below its free nats pays their price and feels nothing; above, it pays its rate as if there were none."""
    found = evidence(model)
    rates = {name: found.rate(name).mean().item() for name in model.latents}
    assert min(abs(rate) for rate in rates.values()) > 1e-3
    poor = max(rates, key=lambda name: rates[name])  # a positive rate, so that the other side can be tried too
    assert rates[poor] > 0
    free = {name: rates[name] + 0.5 for name in rates if name != poor} | {poor: 0.9 * rates[poor]}
    free = {name: value for name, value in free.items() if value > 0}
    objective = Elbo(Constant(beta), free_nats=free)
    gated = [name for name, value in free.items() if name != poor]
    assert gated
    expected = found.distortion.mean().item() + beta * sum(
        free[name] if name in gated else rate for name, rate in rates.items()
    )
    assert objective(found, 0).item() == pytest.approx(expected, abs=1e-12)
    without = Elbo(Constant(beta), layer_beta={name: 0.0 for name in gated})
    assert without(found, 0).item() != pytest.approx(expected, abs=1e-3)
    torch.testing.assert_close(
        gradient(model, objective(found, 0)), gradient(model, without(found, 0)), atol=1e-12, rtol=0
    )
    full = Elbo(Constant(beta), free_nats={name: 10.0 for name in rates})
    assert full(found, 0).item() == pytest.approx(found.distortion.mean().item() + beta * 30, abs=1e-12)
    torch.testing.assert_close(
        gradient(model, full(found, 0)), gradient(model, found.distortion.mean()), atol=1e-12, rtol=0
    )


def test_the_gate_reads_the_batch_mean_not_each_datum(model: HVAE) -> None:
    found = evidence(model)
    rate = found.rate("z3").detach()
    name = "z3"
    threshold = float(rate.mean()) - 1e-6
    if threshold <= 0:
        name, rate = next((n, found.rate(n).detach()) for n in model.latents if found.rate(n).mean() > 0)
        threshold = float(rate.mean()) - 1e-6
    assert (rate < threshold).any() and (rate > threshold).any()
    torch.testing.assert_close(Elbo(free_nats={name: threshold})(found, 0), Elbo()(found, 0), atol=1e-12, rtol=0)


def test_iwae_rises_with_the_number_of_samples_and_is_the_elbo_at_one(model: HVAE) -> None:
    found = evidence(model, 1)
    assert Iwae()(found, 0).item() == pytest.approx(Elbo()(found, 0).item(), abs=1e-12)
    many = evidence(model, 64)
    assert Iwae()(many, 0) < Elbo()(many, 0)  # Jensen, on the same draws


@pytest.mark.parametrize("step", [0, 4, 99])
def test_without_the_score_the_loss_is_the_same_number(model: HVAE, step: int) -> None:
    found, layers = evidence(model), {"z1": 0.5, "z2": 3.0}
    elbo, iwae = Elbo(LinearWarmup(10), layers), Iwae(LinearWarmup(10), dict.fromkeys(model.latents, 2.0))
    for plain, other in ((elbo, StickingTheLanding(elbo)), (iwae, DoublyReparametrised(iwae))):
        assert other(found, step).item() == pytest.approx(plain(found, step).item(), abs=1e-12)
        far = (gradient(model, plain(found, step)) - gradient(model, other(found, step))).abs().max()
        assert (far > 1e-3) == (step > 0)  # at beta 0 there is no log q whose score could be left out


def test_doubly_reparametrised_gradients_follow_the_schedule(model: HVAE) -> None:
    found = evidence(model)
    warming, held = (
        gradient(model, DoublyReparametrised(Iwae(b))(found, 4)) for b in (LinearWarmup(10), Constant(0.4))
    )
    torch.testing.assert_close(warming, held, atol=1e-12, rtol=0)


def test_doubly_reparametrised_is_sticking_the_landing_for_one_sample(model: HVAE) -> None:
    found, beta = evidence(model, 1), Constant(0.6)
    losses = [StickingTheLanding(Elbo(beta))(found, 0), DoublyReparametrised(Iwae(beta))(found, 0)]
    a, b = (gradient(model, loss) for loss in losses)
    torch.testing.assert_close(a, b, atol=1e-12, rtol=0)


@pytest.mark.parametrize(
    "objective",
    [
        Elbo(), Iwae(), Elbo(LinearWarmup(10), {"z1": 2.0}),
        StickingTheLanding(Elbo(LinearWarmup(10), {"z1": 2.0})), DoublyReparametrised(Iwae(LinearWarmup(10))),
    ],
)  # fmt: skip
def test_the_order_of_data_and_samples_does_not_matter(model: HVAE, objective: Objective) -> None:
    other = [normal, normal] if isinstance(objective, DoublyReparametrised) else [normal, coins(2)]
    for made in (model, stack("top-down", other)):
        source = torch.Generator().manual_seed(0)
        noise = {
            name: torch.rand(4, 2, width, generator=source, dtype=torch.float64)
            for name, (_, width) in made.noise_specs().items()
        }
        shuffled = {name: value[[2, 0, 3, 1]][:, [1, 0]] for name, value in noise.items()}
        a, b = objective(made(X, noise), 5), objective(made(X[:, [1, 0]], shuffled), 5)
        torch.testing.assert_close(a, b, atol=1e-12, rtol=0)
        torch.testing.assert_close(gradient(made, a), gradient(made, b), atol=1e-11, rtol=0)


def test_only_discrete_draws_are_scored() -> None:
    mixed = evidence(stack("bottom-up", [normal, coins(2), normal]))
    found = discrete_log_q(mixed)
    assert found is not None
    torch.testing.assert_close(found, mixed.q["z2"].log_prob, atol=0, rtol=0)
    assert discrete_log_q(evidence(stack("bottom-up", [normal, normal]))) is None
    both = evidence(stack("top-down", [coins(1), coins(2)]))
    expected = both.q["z1"].log_prob + both.q["z2"].log_prob
    torch.testing.assert_close(discrete_log_q(both), expected, atol=1e-12, rtol=0)
    assert all(isinstance(mixed.q[name].family, DiagonalGaussian) for name in ("z1", "z3"))
