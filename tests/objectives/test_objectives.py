"""What is minimised: bounds against numpy on the evidence's own terms, games against all states of data and dreams."""

import math
from collections.abc import Callable, Mapping

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Normal
from torch.func import vmap

from hvae import rng
from hvae.errors import ConfigError
from hvae.evidence import HVAE, Evidence
from hvae.families import Bernoulli, Categorical, DiagonalGaussian, Family, FullGaussian
from hvae.gradients import asleep, awake, estimate, fill_in, players
from hvae.lab.assembly import build_objective
from hvae.lab.config import ObjectiveConfig, RunConfig
from hvae.nets import Root
from hvae.network import BeliefNetwork, Conditional
from hvae.objectives import (
    Bound,
    Covariance,
    DoublyReparametrised,
    Elbo,
    Game,
    Iwae,
    Objective,
    ReweightedWakeSleep,
    StickingTheLanding,
    SymmetricEquilibrium,
    Tvo,
    WakeSleep,
    discrete_log_q,
)
from hvae.objectives.bounds import at_least
from hvae.posterior import Ladder, NetworkPosterior
from hvae.schedules import Constant, LinearWarmup
from tests.test_gradients import DISCRETE, EXACT, ORDERS, axis, bernoulli, normal, product_over_samples, stack, states

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
    share = np.exp(0.3 * f) / np.exp(0.3 * f).sum(0)
    expected = -(0.3 * f.mean(0) + 0.7 * (share * f).sum(0)).mean()
    assert Tvo((0.0, 0.3), schedule, layers)(found, 25).item() == pytest.approx(expected, abs=1e-12)
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


def test_a_rate_of_exactly_its_free_nats_feels_nothing() -> None:
    rate = torch.tensor([[0.25, 0.75]], dtype=torch.float64, requires_grad=True)
    for free, slope in ((0.5, 0.0), (0.5 - 1e-12, 1.0)):
        (found,) = torch.autograd.grad(at_least(rate, free).sum(), rate)
        assert found.tolist() == [[slope, slope]]


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


@pytest.mark.parametrize("order", ORDERS)
def test_free_nats_of_units_are_those_of_layers_of_one_unit(order: str) -> None:
    """Each unit's mean rate over the batch against the price, by numpy; a unit below feels nothing of its rate."""
    model = stack(order, [bernoulli(3), lambda: DiagonalGaussian(2), normal])
    found = evidence(model)
    units = {name: (found.q[name].unit_log_prob - found.p[name].unit_log_prob) for name in model.latents}
    means = {name: terms.detach().numpy().mean((0, 1)) for name, terms in units.items()}
    free = {name: float(np.abs(mean).max()) * 0.9 for name, mean in means.items()}
    weights = {"z1": 0.6 * 0.5, "z2": 0.6 * 3, "z3": 0.6}
    objective = Elbo(Constant(0.6), {"z1": 0.5, "z2": 3.0}, unit_free_nats=free)
    expected = found.distortion.mean().item()
    felt = found.distortion
    for name, mean in means.items():
        above = mean > free[name]
        expected += weights[name] * np.where(above, mean, free[name]).sum()
        felt = felt + weights[name] * (units[name] * torch.from_numpy(above)).sum(-1)
    assert any((mean > free[name]).any() for name, mean in means.items())
    assert any((mean <= free[name]).any() for name, mean in means.items())
    assert objective(found, 0).item() == pytest.approx(expected, abs=1e-12)
    plain = -estimate(-felt, lambda f: f.mean(0), discrete_log_q(found)).mean()
    torch.testing.assert_close(gradient(model, objective(found, 0)), gradient(model, plain), atol=1e-12, rtol=0)
    layer = Elbo(free_nats={"z3": free["z3"]})(found, 0)  # of one unit
    torch.testing.assert_close(Elbo(unit_free_nats={"z3": free["z3"]})(found, 0), layer, atol=1e-12, rtol=0)


def test_free_nats_of_units_need_units_and_no_others() -> None:
    model = stack("bottom-up", [lambda: FullGaussian(2).double()])
    with pytest.raises(TypeError):
        Elbo(unit_free_nats={"z1": 0.1})(evidence(model), 0)
    with pytest.raises(ValueError, match="z1 has free nats as a layer and for each unit"):
        Elbo(free_nats={"z1": 0.1}, unit_free_nats={"z1": 0.1})
    with pytest.raises(ValueError, match=r"unit_free_nats is \{'z1': 0.1\}"):
        StickingTheLanding(Elbo(unit_free_nats={"z1": 0.1}))


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
        Elbo(), Iwae(), Elbo(LinearWarmup(10), {"z1": 2.0}), Iwae(baseline=fill_in), Tvo((0.0, 0.3), LinearWarmup(10)),
        Covariance(Tvo((0.0, 0.3))),
        StickingTheLanding(Elbo(LinearWarmup(10), {"z1": 2.0})), DoublyReparametrised(Iwae(LinearWarmup(10))),
    ],
)  # fmt: skip
def test_the_order_of_data_and_samples_does_not_matter(model: HVAE, objective: Bound) -> None:
    other = [normal, normal] if isinstance(objective, DoublyReparametrised) else [normal, bernoulli(2)]
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


def test_vimco_subtracts_the_baseline_that_it_is_given() -> None:
    """Draw for draw, as no expectation tells baselines apart."""
    made = stack("bottom-up", [bernoulli(2), bernoulli(1)])
    found = evidence(made)
    f, log_q = found.log_weight, sum(site.log_prob for site in found.q.values())
    weights = f.detach().exp().numpy()
    losses = {}
    for objective, mean_of in (
        (Iwae(), np.mean),
        (Iwae(baseline=fill_in), lambda w, axis: np.exp(np.log(w).mean(axis))),
    ):
        filled = [np.delete(weights, k, 0) for k in range(4)]
        baseline = np.stack([np.log((others.sum(0) + mean_of(others, 0)) / 4) for others in filled])
        signal = f.detach().exp().mean(0).log() - torch.from_numpy(baseline)
        expected = gradient(made, -(f.exp().mean(0).log() + (signal * log_q).sum(0)).mean())
        losses[objective.baseline] = gradient(made, objective(found, 0))
        torch.testing.assert_close(losses[objective.baseline], expected, atol=1e-12, rtol=0)
    first, second = losses.values()
    assert (first - second).abs().max() > 1e-3


def test_only_discrete_draws_are_scored() -> None:
    mixed = evidence(stack("bottom-up", [normal, bernoulli(2), normal]))
    found = discrete_log_q(mixed)
    assert found is not None
    torch.testing.assert_close(found, mixed.q["z2"].log_prob, atol=0, rtol=0)
    assert discrete_log_q(evidence(stack("bottom-up", [normal, normal]))) is None
    both = evidence(stack("top-down", [bernoulli(1), bernoulli(2)]))
    expected = both.q["z1"].log_prob + both.q["z2"].log_prob
    torch.testing.assert_close(discrete_log_q(both), expected, atol=1e-12, rtol=0)
    assert all(isinstance(mixed.q[name].family, DiagonalGaussian) for name in ("z1", "z3"))


@pytest.mark.parametrize("partition", [(), (0.1,), (0.0, 0.0), (0.0, 0.5, 0.2), (0.0, 1.0)])
def test_a_partition_rises_from_0_and_stays_below_1(partition: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match=r"give 0 and then rising numbers below 1"):
        Tvo(partition)


# Games: both distributions by hand, from the outputs of the nets alone


def hand_log(family: Family, outputs: Tensor, value: Tensor) -> Tensor:
    if isinstance(family, Bernoulli):
        p = 1 / (1 + (-outputs).exp())
        return (p * value + (1 - p) * (1 - value)).log().sum(-1)
    if isinstance(family, Categorical):
        return ((outputs.exp() / outputs.exp().sum(-1, keepdim=True)) * value).sum(-1).log()
    return Normal(outputs[..., :1], (outputs[..., 1:] / 2).exp()).log_prob(value).sum(-1)


def hand_merge(family: Family, a: Tensor, b: Tensor) -> Tensor:
    """The outputs of the product of two distributions."""
    if not isinstance(family, DiagonalGaussian):
        return a + b
    precisions = (-a[..., 1:]).exp(), (-b[..., 1:]).exp()
    both = precisions[0] + precisions[1]
    return torch.cat([(precisions[0] * a[..., :1] + precisions[1] * b[..., :1]) / both, -both.log()], -1)


def hand_mean(family: Family, outputs: Tensor) -> Tensor:
    if isinstance(family, Bernoulli):
        return outputs.sigmoid()
    return outputs.softmax(-1) if isinstance(family, Categorical) else outputs[..., :1]


def hand_log_p(model: HVAE, values: Mapping[str, Tensor]) -> Tensor:
    """log p(x, z) of values [..., width]."""
    total = torch.zeros(()).double()
    for name in model.decoder.variables:
        conditional = model.decoder[name]
        outputs = conditional.net(values[conditional.parents[0]]) if conditional.parents else conditional.net()
        total = total + hand_log(conditional.family, outputs, values[name])
    return total


def hand_log_q(model: HVAE, values: Mapping[str, Tensor]) -> Tensor:
    """log q(z|x)."""
    total, names = torch.zeros(()).double(), model.latents
    if isinstance(model.posterior, NetworkPosterior):
        for below, name in zip(("x", *names), names, strict=False):
            made = model.posterior.network[name]
            total = total + hand_log(made.family, made.net(values[below]), values[name])
        return total
    assert isinstance(model.posterior, Ladder)
    mean, up = values["x"], {}
    for name in names:
        made = model.posterior.upward[name]
        up[name] = made.net(mean)
        mean = hand_mean(made.family, up[name])
    for name, above in zip(names, (*names[1:], None), strict=True):
        family, outputs = model.posterior.upward[name].family, up[name]
        if above is not None:
            outputs = hand_merge(family, outputs, model.decoder[name].net(values[above]))
        total = total + hand_log(family, outputs, values[name])
    return total


XS = states(Bernoulli(3))
DISTRIBUTION = torch.tensor([0.2, 0.02, 0.1, 0.08, 0.25, 0.05, 0.17, 0.13]).double()
"""a distribution of the data over `XS`"""


def combined(model: HVAE, decoder: Tensor, encoder: Tensor) -> dict[str, Tensor]:
    """∇ decoder of p's weights and ∇ encoder of q's."""
    found = {}
    for prefix, value in (("decoder.", decoder), ("posterior.", encoder)):
        mine = {name: weight for name, weight in model.named_parameters() if name.startswith(prefix)}
        found |= dict(zip(mine, torch.autograd.grad(value, list(mine.values()), retain_graph=True), strict=True))
    return found


def all_states(model: HVAE, n_samples: int) -> dict[str, Tensor]:
    """x and K draws of every latent in all their states: x [n, 1, 1, 3], z [n, K, 1, width]."""
    choices = {name: states(model.decoder[name].family) for name in model.latents}
    z = product_over_samples(choices, n_samples)
    n = len(z["z1"])
    x = XS.repeat_interleave(n, 0).view(-1, 1, 1, 3)
    return {"x": x} | {name: value.repeat(len(XS), 1, 1, 1) for name, value in z.items()}


def expected_loss(
    model: HVAE, game: Game, wake: dict[str, Tensor], share: Tensor, dream: dict[str, Tensor], chance: Tensor
) -> Tensor:
    """E game(evidence, dreams), evidence and dreams apart: Σ share · game(·, d) + Σ chance · game(e, ·) - game(e, d).

    Holds for a sum of two terms, which the game's loss is checked to be.
    """

    def at(points: dict[str, Tensor], i: int) -> dict[str, Tensor]:
        return {name: value[i] for name, value in points.items()}

    def weigh(point: dict[str, Tensor]) -> Evidence:
        return players(model, point["x"], {name: point[name] for name in model.latents})

    e, d, other_e, other_d = weigh(at(wake, 0)), weigh(at(dream, 0)), weigh(at(wake, -1)), weigh(at(dream, -1))
    mixed = game(e, d) + game(other_e, other_d) - game(e, other_d) - game(other_e, d)
    assert abs(mixed.item()) < 1e-12
    torch.testing.assert_close(share.sum(), torch.tensor(1.0).double(), atol=EXACT, rtol=0)
    torch.testing.assert_close(chance.sum(), torch.tensor(1.0).double(), atol=EXACT, rtol=0)
    awake_part = (share.detach() * vmap(lambda point: game(weigh(point), d))(wake)).sum()
    asleep_part = (chance.detach() * vmap(lambda point: game(e, weigh(point)))(dream)).sum()
    return awake_part + asleep_part - game(e, d)


def assert_gradients(model: HVAE, loss: Tensor, wanted: Mapping[str, Tensor], tolerance: float = EXACT) -> None:
    names, weights = zip(*model.named_parameters(), strict=True)
    found = torch.autograd.grad(loss, weights, materialize_grads=True)
    for name, part in zip(names, found, strict=True):
        assert wanted[name].abs().max() > 1e-4 or tolerance > EXACT, name
        torch.testing.assert_close(part, wanted[name], atol=tolerance, rtol=0, msg=lambda m, name=name: f"{name}: {m}")


def discrete_game(model: HVAE, game: Game, n_samples: int, distribution: Tensor = DISTRIBUTION) -> Tensor:
    """E of a game over all states, data and dreams."""
    wake, dream = all_states(model, n_samples), all_states(model, 1)
    share = distribution.repeat_interleave(len(wake["x"]) // len(XS)) * hand_log_q(model, wake).sum((1, 2)).exp()
    return expected_loss(model, game, wake, share, dream, hand_log_p(model, dream).exp().flatten())


@pytest.mark.parametrize("game", [WakeSleep(), SymmetricEquilibrium()], ids=lambda game: type(game).__name__)
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("kinds", DISCRETE)
def test_each_player_climbs_its_own_utility(kinds: str, order: str, game: Game) -> None:
    """∇_p E_data E_q log p(x, z) and ∇_q E_p log q(z|x), by enumeration of the joint; in a ladder too, where
    q holds the decoder's weights and neither utility moves them through it. Two samples only average."""
    model = stack(order, DISCRETE[kinds])
    point = {name: value.squeeze((1, 2)) for name, value in all_states(model, 1).items()}
    log_p, log_q = hand_log_p(model, point), hand_log_q(model, point)
    data = DISTRIBUTION.repeat_interleave(len(log_p) // len(XS))
    wanted = combined(model, -(data * log_q.exp().detach() * log_p).sum(), -(log_p.exp().detach() * log_q).sum())
    for n_samples in (1, 2) if kinds == "coins" else (1,):
        assert_gradients(model, discrete_game(model, game, n_samples), wanted)


@pytest.mark.parametrize("sleep", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("kinds", ["die", "coins-coin", "coin-die-coin"])
def test_reweighted_wake_sleep(kinds: str, order: str, sleep: float) -> None:
    """Two samples: p's gradient is that of the exact IWAE bound at a q that stands still, q's by all pairs."""
    model = stack(order, DISCRETE[kinds])
    point = all_states(model, 2)
    log_p, log_q = (distribution(model, point).squeeze(2) for distribution in (hand_log_p, hand_log_q))  # [n, K]
    data = DISTRIBUTION.repeat_interleave(len(log_p) // len(XS))
    chance = (data * log_q.exp().prod(1)).detach()
    bound = (chance * (log_p - log_q.detach()).exp().mean(1).log()).sum()
    weight = (log_p - log_q).exp().detach()
    wake = (chance * (weight * log_q).sum(1) / weight.sum(1)).sum()
    dream = all_states(model, 1)
    dreamt = (hand_log_p(model, dream).exp().detach() * hand_log_q(model, dream)).sum()
    wanted = combined(model, -bound, -(1 - sleep) * wake - sleep * dreamt)
    if sleep == 0:
        assert max(part.abs().max() for name, part in wanted.items() if name.startswith("posterior")) > 1e-3
    assert_gradients(model, discrete_game(model, ReweightedWakeSleep(sleep), 2), wanted)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("depth", [1, 2])
def test_games_of_gaussian_layers(order: str, depth: int) -> None:
    """Utilities by quadrature over clamped values, losses over the noise of draws and dreams; x in all its states.

    The nodes of noise are the limit: 60 leave 3e-7, 80 leave 2e-9, 120 leave 2e-12.
    """
    model = stack(order, [normal] * depth, scale=0.5)
    names = model.latents
    n, reach = 240, 16.0
    grid = torch.cartesian_prod(*[axis(n, reach)] * depth).view(-1, depth)
    cell = depth * math.log(2 * reach / (n - 1))

    def with_x(points: Tensor) -> dict[str, Tensor]:
        z = {name: points[:, i : i + 1].repeat(len(XS), 1) for i, name in enumerate(names)}
        return {"x": XS.repeat_interleave(len(points), 0), **z}

    clampings = with_x(grid)
    log_p, log_q = hand_log_p(model, clampings), hand_log_q(model, clampings)
    data = DISTRIBUTION.repeat_interleave(len(grid))
    utilities = (
        (data * (log_q + cell).exp().detach() * log_p).sum(),
        ((log_p + cell).exp().detach() * log_q).sum(),
    )
    wanted = combined(model, -utilities[0], -utilities[1])

    nodes = torch.cartesian_prod(*[axis(120, 8.5)] * depth).view(-1, depth)
    made = with_x(nodes)
    noise = {name: made[name].view(-1, 1, 1, 1) for name in names}
    x = made["x"].view(-1, 1, 1, 3)
    log_noise = (Normal(0.0, 1.0).log_prob(nodes).sum(-1) + depth * math.log(17 / 119)).repeat(len(XS))

    def wake_of(x: Tensor, noise: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: site.value for name, site in awake(model, x, noise).q.items()}

    def dream_of(x: Tensor, noise: dict[str, Tensor]) -> tuple[dict[str, Tensor], Tensor]:
        trace = model.decoder.walk({"x": x}, noise)
        return {name: trace[name].value.detach() for name in names}, trace["x"].log_prob.flatten()[0]

    wake = {"x": x, **vmap(wake_of)(x, noise)}
    drawn, log_px = vmap(dream_of)(x, noise)
    data = DISTRIBUTION.repeat_interleave(len(nodes))
    loss = expected_loss(
        model, WakeSleep(), wake, data * log_noise.exp(), {"x": x, **drawn}, (log_noise + log_px).exp()
    )
    assert_gradients(model, loss, wanted)


@pytest.mark.parametrize("order", ORDERS)
def test_players_draw_what_the_model_draws_and_no_gradient_passes_through(order: str) -> None:
    model = stack(order, [normal, bernoulli(2), normal])
    x = XS[[5, 1]].unsqueeze(0)
    specs = WakeSleep().noise_specs(model)
    noise = rng.noise(specs, 3, 2, seed=0, purpose="test", dtype=torch.float64)
    assert list(specs) == [*model.noise_specs(), *(f"dream of {name}" for name in ("z3", "z2", "z1", "x"))]
    wake = awake(model, x, noise)
    plain = model(x, {name: noise[name] for name in model.latents})
    dreamt = {name: noise[f"dream of {name}"] for name in ("z3", "z2", "z1", "x")}
    dreams, ancestral = asleep(model, dreamt), model.decoder.walk({}, dreamt)
    for found, expected in ((wake.q, plain.q), (wake.p, plain.p), (dreams.p, ancestral)):
        assert set(found) == set(expected)
        for name, site in expected.items():
            torch.testing.assert_close(found[name].value, site.value, atol=0, rtol=0)
            torch.testing.assert_close(found[name].log_prob, site.log_prob, atol=1e-12, rtol=0)
            assert not found[name].value.requires_grad
    assert {site.value.shape[:2] for site in dreams.p.values()} == {(3, 2)}
    torch.testing.assert_close(wake.log_weight, plain.log_weight, atol=1e-12, rtol=0)
    values = {name: site.value for name, site in dreams.p.items()}
    torch.testing.assert_close(
        sum(site.log_prob for site in dreams.q.values()), hand_log_q(model, values), atol=1e-12, rtol=0
    )
    loss, evidence = WakeSleep().on(model, x, noise, 7)
    assert abs(loss.item() - WakeSleep()(wake, dreams).item()) < 1e-12
    torch.testing.assert_close(evidence.log_weight, wake.log_weight, atol=0, rtol=0)
    for evidence in (wake, dreams):
        for trace, mine in ((evidence.p, "decoder."), (evidence.q, "posterior.")):
            value = sum(site.log_prob.sum() for site in trace.values())
            parts = torch.autograd.grad(value, list(model.parameters()), materialize_grads=True)
            for (name, _), part in zip(model.named_parameters(), parts, strict=True):
                assert (part != 0).any() == name.startswith(mine), name


def test_labelled_pairs_join_both_batches() -> None:
    model = stack("top-down", [bernoulli(2), bernoulli(1)])
    noise = rng.noise(WakeSleep().noise_specs(model), 3, 2, seed=0, purpose="test", dtype=torch.float64)
    wake = awake(model, XS[[5, 1]].unsqueeze(0), noise)
    dreams = asleep(model, {name: noise[f"dream of {name}"] for name in model.decoder.variables})
    labelled = {
        "z1": torch.tensor([[[0.0, 1], [1, 1], [1, 0]]]).double(),
        "z2": torch.tensor([[[1.0], [0], [1]]]).double(),
    }
    x = XS[[0, 6, 7]].unsqueeze(0)
    pairs = players(model, x, labelled)

    def of(evidence: Evidence, distribution: Callable[[HVAE, Mapping[str, Tensor]], Tensor]) -> np.ndarray:
        return distribution(model, {name: site.value for name, site in evidence.p.items()}).detach().numpy().mean(0)

    log_p = np.append(of(wake, hand_log_p), hand_log_p(model, {"x": x, **labelled}).detach().numpy())
    log_q = np.append(of(dreams, hand_log_q), hand_log_q(model, {"x": x, **labelled}).detach().numpy())
    assert len(log_p) == len(log_q) == 5
    found = SymmetricEquilibrium()(wake, dreams, pairs)
    assert found.item() == pytest.approx(-log_p.mean() - log_q.mean(), abs=1e-12)
    alone = SymmetricEquilibrium()(wake, dreams)
    assert alone.item() == pytest.approx(WakeSleep()(wake, dreams).item(), abs=1e-12)
    assert abs(alone.item() - found.item()) > 0.01


# Fixed points


class Tabular(nn.Module):
    """Logits of a die given the distribution of another, ``log(distribution @ table) + bias``: a mean passed up a
    ladder, or a draw."""

    def __init__(self, table: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.table, self.bias = nn.Parameter(table.clone()), nn.Parameter(bias.clone())

    def forward(self, distribution: Tensor) -> Tensor:
        return (distribution @ self.table).log() + self.bias


def exact_categorical(order: str, depth: int) -> HVAE:
    """A chain of categorical units over three Bernoulli units with q its exact posterior, by Bayes' rule on the tables.

    Given one die, Bernoulli units are naive Bayes: log p(x|z1) is linear in x. Going up, likelihoods are mixed by
    p(z_l|z_{l+1}); bottom-up the reverse conditionals are tables.
    """
    source, n = torch.Generator().manual_seed(3), 3

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=source, dtype=torch.float64)

    names = [f"z{layer + 1}" for layer in range(depth)]
    prior = random(n)
    tables = [random(n, n).softmax(-1) for _ in range(depth - 1)]  # p(z_l | z_{l+1}) [z_{l+1}, z_l]
    logits = random(n, 3)  # of x given z1
    zero = torch.zeros(n).double()
    bernoulli_net = nn.Linear(n, 3).double()
    bernoulli_net.weight.data, bernoulli_net.bias.data = logits.T.clone(), torch.zeros(3).double()
    down = [Conditional(names[-1], [], Root(prior.clone(), learned=True), Categorical(1, n))]
    for layer in range(depth - 2, -1, -1):
        down.append(Conditional(names[layer], [names[layer + 1]], Tabular(tables[layer], zero), Categorical(1, n)))
    down.append(Conditional("x", ["z1"], bernoulli_net, Bernoulli(3)))
    marginals = [prior.softmax(-1)]
    for table in reversed(tables):
        marginals.insert(0, marginals[0] @ table)

    first = nn.Linear(3, n).double()
    whole = order == "bottom-up" or depth == 1  # the prior of z1 is in q(z1|x), or comes with p(z1|z2)
    first.weight.data = logits.clone()
    first.bias.data = -(1 + logits.exp()).log().sum(-1) + (marginals[0].log() if whole else zero)
    up = [Conditional("z1", ["x"], first, Categorical(1, n))]
    for layer in range(1, depth):
        bias = marginals[layer].log() if order == "bottom-up" or layer == depth - 1 else zero
        table = tables[layer - 1].T
        up.append(Conditional(names[layer], [names[layer - 1]], Tabular(table, bias), Categorical(1, n)))
    return HVAE(BeliefNetwork(down), ORDERS[order](BeliefNetwork(up)))


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_games_rest_at_the_exact_posterior_of_the_true_distribution(order: str, depth: int) -> None:
    """And elsewhere they do not: with another distribution of the data, or another encoder."""
    model = exact_categorical(order, depth)
    point = {name: value.squeeze((1, 2)) for name, value in all_states(model, 1).items()}
    log_p, log_q = hand_log_p(model, point), hand_log_q(model, point)
    log_px = log_p.view(len(XS), -1).logsumexp(1)
    torch.testing.assert_close(
        log_p.view(len(XS), -1) - log_px.unsqueeze(1), log_q.view(len(XS), -1), atol=1e-12, rtol=0
    )
    distribution = log_px.exp().detach()

    def largest(game: Game, n_samples: int, distribution: Tensor) -> float:
        gradient = torch.autograd.grad(discrete_game(model, game, n_samples, distribution), list(model.parameters()))
        return max(part.abs().max().item() for part in gradient)

    games: list[tuple[Game, int]] = [(WakeSleep(), 1), (SymmetricEquilibrium(), 1)]
    if depth < 3:
        games += [(ReweightedWakeSleep(sleep), 2) for sleep in (0.0, 0.5)]
    for game, n_samples in games:
        assert largest(game, n_samples, distribution) < EXACT
        assert largest(game, n_samples, DISTRIBUTION) > 1e-3
    up = model.posterior.upward if isinstance(model.posterior, Ladder) else model.posterior.network
    up["z1"].net.weight.data += 0.5
    up["z1"].net.weight.data[0] -= 0.7
    for game, n_samples in games:
        assert largest(game, n_samples, distribution) > 1e-3


def test_one_sample_cannot_be_weighed() -> None:
    model = stack("bottom-up", [normal, bernoulli(1)])
    noise = rng.noise(WakeSleep().noise_specs(model), 1, 1, seed=0, purpose="test", dtype=torch.float64)
    with pytest.raises(ValueError, match="at least 2 samples to weigh; got 1"):
        ReweightedWakeSleep().on(model, XS[:1].unsqueeze(0), noise, 0)
    with pytest.raises(ValueError, match="at least 2 samples; got 1"):
        Covariance(Tvo((0.0,))).on(model, XS[:1].unsqueeze(0), noise, 0)
    with pytest.raises(ValueError, match=r"sleep is 1\.5; give a share"):
        ReweightedWakeSleep(1.5)


# Configurations


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (
            ObjectiveConfig("vimco", 3, LinearWarmup(9), (2.0, 1.0)),
            Iwae(LinearWarmup(9), {"z1": 2.0, "z2": 1.0}, fill_in),
        ),
        (ObjectiveConfig("tvo", 2), Tvo((0.0, 0.03, 0.1, 0.3), Constant(1.0), {"z1": 1.0, "z2": 1.0})),
        (
            ObjectiveConfig("tvo", 2, LinearWarmup(9), gradient="covariance", partition=(0.0, 0.5)),
            Covariance(Tvo((0.0, 0.5), LinearWarmup(9), {"z1": 1.0, "z2": 1.0})),
        ),
        (ObjectiveConfig("wake-sleep"), WakeSleep()),
        (ObjectiveConfig("symmetric"), SymmetricEquilibrium()),
        (ObjectiveConfig("reweighted-wake-sleep", 2, sleep=0.25), ReweightedWakeSleep(0.25)),
    ],
)
def test_objectives_are_what_was_asked_for(config: ObjectiveConfig, expected: Objective) -> None:
    assert build_objective(config, ("z1", "z2")) == expected


GAMES = {"wake-sleep": 1, "symmetric": 1, "reweighted-wake-sleep": 2}
BERNOULLI = {"families": ["bernoulli"]}
BAD: list[tuple[dict[str, object], dict[str, object], str]] = [
    *[
        ({"name": n, "n_samples": k, "beta": 0.5}, {}, f"players of {n} pay no rates to weigh")
        for n, k in GAMES.items()
    ],
    *[({"name": n, "n_samples": k, "layer_beta": [1, 2, 1]}, {}, "leave both at 1") for n, k in GAMES.items()],
    *[({"name": n, "n_samples": k}, {"batch_norm": [True]}, f"objective.name is {n}, but") for n, k in GAMES.items()],
    *[({"name": n, "n_samples": 2, "free_nats": [1]}, {}, f"elbo only; {n} has no rate") for n in (*GAMES, "tvo")],
    *[
        (
            {"name": n, "n_samples": 2, "gradient": g},
            {},
            f"objective.gradient is {g}, which is not made for {n}; use path",
        )
        for n in GAMES
        for g in ("sticking-the-landing", "doubly-reparametrised", "covariance")
    ],
    (
        {"name": "iwae", "gradient": "covariance"},
        {},
        "not made for iwae; use pathwise or doubly-reparametrised or relaxed or",
    ),
    ({"name": "tvo", "n_samples": 2, "gradient": "doubly-reparametrised"}, {}, "use pathwise or covariance."),
    (
        {"name": "vimco", "n_samples": 2, "gradient": "doubly-reparametrised"},
        BERNOULLI,
        "not made for vimco; use pathwise.",
    ),
    ({"name": "tvo"}, {}, "weighs samples against each other; give at least 2, or use elbo."),
    ({"name": "reweighted-wake-sleep"}, BERNOULLI, "give at least 2, or use wake-sleep."),
    ({"name": "vimco", "n_samples": 2}, {}, "model.families has none; use iwae."),
    ({"name": "vimco"}, BERNOULLI, "the leave-one-out baseline of bernoulli layers needs at least 2"),
    (
        {"name": "tvo", "n_samples": 2, "gradient": "covariance"},
        {"batch_norm": [True]},
        "objective.gradient is covariance, but with model.batch_norm",
    ),
    ({"name": "tvo", "n_samples": 2, "partition": []}, {}, "objective.partition is []; give 0 and then"),
    ({"name": "tvo", "n_samples": 2, "partition": [0, 0.5, 0.5]}, {}, "objective.partition is [0.0, 0.5, 0.5]; give"),
    ({"name": "tvo", "n_samples": 2, "partition": [0, 1]}, {}, "objective.partition is [0.0, 1.0]; give"),
    ({"partition": [0, 0.5]}, {}, "objective.partition goes with tvo only; objective.name is elbo."),
    ({"name": "wake-sleep", "sleep": 0.1}, {}, "objective.sleep goes with reweighted-wake-sleep only"),
    ({"name": "reweighted-wake-sleep", "n_samples": 2, "sleep": -0.1}, {}, "objective.sleep is -0.1; give 0 to 1"),
    ({"name": "wakesleep"}, {}, "objective.name is 'wakesleep'; did you mean wake-sleep? give elbo or iwae or"),
]


@pytest.mark.parametrize(("objective", "model", "words"), BAD, ids=lambda value: str(value)[:60])
def test_pairs_that_make_no_sense_are_refused(
    objective: dict[str, object], model: dict[str, object], words: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        RunConfig.from_dict({"objective": objective, "model": model})
    message = str(caught.value)
    assert words in message
    assert "\n" not in message and len(message) < 250


@pytest.mark.parametrize(
    "families", [["gaussian"], ["bernoulli"], ["categorical"], ["bernoulli", "gaussian", "gaussian"]]
)
@pytest.mark.parametrize("order", ORDERS)
def test_pairs_that_make_sense_are_not(families: list[str], order: str) -> None:
    for objective in (
        *({"name": name, "n_samples": k} for name, k in GAMES.items()),
        {"name": "tvo", "n_samples": 2, "beta": {"warmup_steps": 9}, "layer_beta": [1, 2, 3]},
        {"name": "tvo", "n_samples": 2, "gradient": "covariance"},
        *([{"name": "vimco", "n_samples": 2}] if "bernoulli" in families else []),
    ):
        RunConfig.from_dict({"objective": objective, "model": {"families": families, "order": order}})
