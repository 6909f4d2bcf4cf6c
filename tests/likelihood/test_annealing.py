"""Annealing and its sandwich against exact log p(x) of linear-Gaussian stacks, by tests of two error rates."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from hvae import rng
from hvae.diagnostics.rest import Rest
from hvae.evidence import HVAE
from hvae.exact import LinearGaussian
from hvae.families import Bernoulli
from hvae.likelihood import Annealed, Annealing, NotWhitenedError, Target, anneal, from_encoder, from_prior, sandwich
from hvae.likelihood import annealing as module
from hvae.likelihood.annealing import Path, run_backward, run_forward, tune
from hvae.likelihood.hmc import JITTER, QUARTER_TURN, State, move
from hvae.likelihood.sandwich import noise_at, simulate
from hvae.posterior import NetworkPosterior
from tests.exact.stacks import decoder
from tests.statistics import assert_mean
from tests.test_gradients import bernoulli, normal, stack

WIDTHS = (5, 3, 2, 2)
DETECT = 0.02
"""nats that a wrong log p(x) would be off by, and be seen"""
LIKE = torch.zeros(1, WIDTHS[0], dtype=torch.float64)


@pytest.fixture(scope="module")
def model() -> HVAE:
    """A decoder of depth 3; its exact posterior, shifted and narrowed in every layer, is the encoder."""
    network = decoder(WIDTHS, scale=0.8)
    posterior = LinearGaussian.of(network).exact_posterior("bottom-up")
    assert isinstance(posterior, NetworkPosterior)
    with torch.no_grad():
        for name in posterior.order:
            scale = posterior.network[name].family.scale
            assert isinstance(scale, Tensor)
            scale[-WIDTHS[int(name[1])] :] -= 0.15
            posterior.network[name].net.bias.add_(0.2)
    return HVAE(network, posterior)


@pytest.fixture(scope="module")
def exact(model: HVAE) -> LinearGaussian:
    return LinearGaussian.of(model.decoder)


@pytest.fixture(scope="module")
def x(model: HVAE) -> Tensor:
    return simulate(model, 50, 3, LIKE)[0]


def target(model: HVAE, x: Tensor, start: str) -> Target:
    return from_encoder(model, x) if start == "encoder" else from_prior(model.decoder, x)


@pytest.mark.parametrize("start", [pytest.param("encoder", marks=pytest.mark.slow), "prior"])
def test_the_mean_weight_is_p_of_x(model: HVAE, exact: LinearGaussian, x: Tensor, start: str) -> None:
    """E W / p(x) = 1, pooled over data: false alarm 1e-6, and a bias of 0.02 nats would be seen."""
    annealing = Annealing(n_temperatures=60, n_chains=1200, n_leapfrog=1 if start == "encoder" else 2)
    found = anneal(target(model, x, start), annealing, seed=0)
    ratio = (found.log_weight - exact.log_px(x)).exp().numpy()
    # chains of one datum are as independent as those of different data
    assert_mean(ratio.ravel(), 1.0, detect=DETECT)
    assert 0.5 < found.acceptance < 1


def test_the_mean_inverse_weight_of_backward_chains_is_one_over_p_of_x(model: HVAE, exact: LinearGaussian) -> None:
    """One chain per simulated datum, as chains of one datum share their start."""
    x, z = simulate(model, 40_000, 1, LIKE)
    whitened = from_encoder(model, x)
    path = Path(tuple(np.linspace(0, 1, 61)), torch.full((60, len(x)), 0.7).double())
    found = run_backward(whitened, path, noise_at(model, whitened, x, z), Annealing(60, 1, 2), 0)
    assert found.direction == "upper"
    assert_mean(np.exp(exact.log_px(x).numpy() - found.log_px), 1.0, detect=DETECT)


@pytest.mark.slow
def test_a_sandwich_holds_the_exact_value(model: HVAE, exact: LinearGaussian) -> None:
    """lower mean <= exact <= upper mean by one-sided tests of false alarm 1e-6, and closer with more temperatures."""
    gaps = []
    for n_temperatures in (2, 8, 40):
        found = sandwich(model, 400, Annealing(n_temperatures, 4, 2), seed=2, like=LIKE)
        truth = exact.log_px(found.x).numpy()
        for excess in (found.lower.log_px - truth, truth - found.upper.log_px):
            assert excess.mean() <= 4.9 * excess.std(ddof=1) / math.sqrt(len(excess))
        gaps.append(found.gap_datum_nats.mean())
    assert gaps[0] > gaps[1] > gaps[2] > -0.01
    assert gaps[0] > 0.1, "the shortest run should leave a gap to be closed"
    assert gaps[2] < 0.05


@torch.no_grad()
def test_moves_leave_the_posterior_where_it_is(model: HVAE) -> None:
    """Exact draws, moved: joint moments of noise and residual stay, at a step near the limit and at a small one."""
    x, z = simulate(model, 20_000, 4, LIKE)
    whitened = from_encoder(model, x)
    start = noise_at(model, whitened, x, z)
    for step_size, n_leapfrog in ((0.1, 3), (1.5, 1)):
        state = State.at(whitened, start)
        chances = []
        for t in range(2):
            momentum = whitened.noise(1, seed=5, purpose="momentum", step=t)
            uniform = torch.rand(1, len(x), 2, generator=torch.Generator().manual_seed(t), dtype=torch.float64)
            state, chance = move(
                whitened, state, 1.0, torch.full((len(x),), step_size).double(), n_leapfrog, momentum, uniform
            )
            chances.append(chance.mean())
        if step_size == 1.5:
            assert min(chances) < 0.9, "a step that is always accepted does not test the accept step"
        latents = {
            site: value.value for site, value in model.infer(x.unsqueeze(0), whitened.split(state.noise)).items()
        }
        before, after = np.stack([moments(model, x, values) for values in (z, latents)])
        assert_mean(after - before, 0.0, detect=0.2)


def moments(model: HVAE, x: Tensor, z: dict[str, Tensor]) -> np.ndarray:
    """[n, M]: squares of the standardised residuals of every conditional, which are 1 on average in the joint
    distribution."""
    trace = model.decoder.walk({**z, "x": x.unsqueeze(0)}, {})
    white = [site.family.noise_of(site.distribution, site.value)[0] for site in trace.values()]
    return torch.cat([*white, *(w.square() for w in white)], -1).numpy()


def test_with_the_exact_posterior_every_weight_is_p_of_x(exact: LinearGaussian, model: HVAE, x: Tensor) -> None:
    perfect = HVAE(model.decoder, exact.exact_posterior("top-down"))
    found = anneal(from_encoder(perfect, x), Annealing(3, 4, 2), seed=0)
    np.testing.assert_allclose(found.log_weight.numpy(), exact.log_px(x).expand(4, -1).numpy(), atol=1e-10)
    assert found.acceptance == pytest.approx(1)


def test_one_temperature_is_importance_sampling(model: HVAE, x: Tensor) -> None:
    whitened = from_encoder(model, x)
    path = Path((0.0, 1.0), torch.full((1, len(x)), 0.1))
    found = run_forward(whitened, path, Annealing(1, 8, 1), seed=0)
    start = whitened.noise(8, seed=0, purpose="annealing/forward/start")
    torch.testing.assert_close(found.log_weight, whitened.log_weight(start).double(), atol=1e-12, rtol=0)


def test_a_path_starts_at_0_ends_at_1_and_is_frozen(model: HVAE, x: Tensor) -> None:
    whitened = from_encoder(model, x)
    annealing = Annealing(30, 4, 2)
    path = tune(whitened, annealing, seed=0)
    assert path.betas[0] == 0 and path.betas[-1] == 1 and len(path.betas) == 31
    assert np.all(np.diff(path.betas) > 0)
    assert path.step_sizes.shape == (30, len(x)) and (path.step_sizes <= QUARTER_TURN / 2 + 1e-12).all()
    before = path.step_sizes.clone()
    one, other = (run_forward(whitened, path, annealing, seed) for seed in (0, 1))
    assert torch.equal(path.step_sizes, before)
    assert not torch.equal(one.log_weight, other.log_weight)
    again = run_forward(whitened, path, annealing, 0)
    assert torch.equal(one.log_weight, again.log_weight)


def test_gradients_of_the_target_are_those_of_finite_differences(model: HVAE, x: Tensor) -> None:
    whitened = from_encoder(model, x[:3])
    at = whitened.noise(2, seed=0, purpose="here")
    state = State.at(whitened, at)
    for i in range(whitened.width):
        nudge = torch.zeros(whitened.width, dtype=torch.float64)
        nudge[i] = 1e-6
        slope = (whitened.log_weight(at + nudge) - whitened.log_weight(at - nudge)) / 2e-6
        torch.testing.assert_close(state.gradient[..., i], slope, atol=1e-6, rtol=1e-6)


@pytest.mark.slow
def test_a_moved_target_has_the_same_evidence(model: HVAE, exact: LinearGaussian, x: Tensor) -> None:
    """With shift and scale the mean weight stays p(x): the exact posterior's own affine map makes it constant."""
    whitened = from_encoder(model, x)
    source = torch.Generator().manual_seed(0)
    shift = 0.3 * torch.randn(len(x), whitened.width, generator=source, dtype=torch.float64)
    tril = torch.tril(0.1 * torch.randn(len(x), 7, 7, generator=source, dtype=torch.float64), -1)
    tril = tril + torch.diag_embed(torch.full((len(x), 7), 1.1, dtype=torch.float64))
    moved = whitened.moved(shift, tril)
    found = anneal(moved, Annealing(60, 800, 2), seed=0)
    assert_mean((found.log_weight - exact.log_px(x)).exp().numpy().ravel(), 1.0, detect=DETECT)


@pytest.mark.slow
def test_given_latents_turn_the_evidence_into_a_joint_one(model: HVAE, exact: LinearGaussian) -> None:
    """With z1 given the mean weight is p(x, z1), by the dense covariance."""
    x, z = simulate(model, 30, 9, LIKE)
    found = anneal(Rest.of(model, x, {"z1": z["z1"]}).target(), Annealing(40, 600, 3), seed=0)
    truth = exact.log_prob({"x": x, "z1": z["z1"][0]})
    assert_mean((found.log_weight - truth).exp().numpy().ravel(), 1.0, detect=DETECT)
    everything = Rest.of(model, x, {"z1": z["z1"], "z2": z["z2"]}).target()
    assert everything.width == WIDTHS[3]


def test_discrete_latents_and_numbers_below_one_are_refused(x: Tensor) -> None:
    mixed = stack("bottom-up", [normal, bernoulli(2)])
    with pytest.raises(NotWhitenedError, match="z2 is discrete"):
        sandwich(mixed, 3, Annealing(2, 2, 1), seed=0, like=torch.zeros(1, 3).double())
    with pytest.raises(NotWhitenedError, match="z2 and z1 are discrete"):
        from_prior(stack("bottom-up", [bernoulli(1), bernoulli(2)]).decoder, torch.zeros(2, 3).double())
    for knobs in ((0, 2, 1), (2, 0, 1), (2, 2, 0)):
        with pytest.raises(ValueError, match="give at least 1"):
            Annealing(*knobs)
    with pytest.raises(ValueError, match="give at least 1"):
        simulate(mixed, 0, 0, torch.zeros(1, 3))
    with pytest.raises(TypeError, match="does not tell the noise"):
        Bernoulli(1).noise_of(Bernoulli(1).distribution(torch.zeros(1)), torch.ones(1))


def test_weights_that_are_no_number_are_marked(model: HVAE, x: Tensor) -> None:
    whitened = from_encoder(model, x[:3])

    def broken(noise: Tensor) -> Tensor:
        log_weight = whitened.log_weight(noise)
        return torch.where(torch.tensor([True, False, False]), log_weight * math.nan, log_weight)

    found = anneal(Target(broken, whitened.specs, whitened.like), Annealing(5, 30, 2), seed=0).estimate
    assert np.isnan(found.log_px[0]) and np.isfinite(found.log_px[1:]).all()
    assert "1 of 3 data have weights that are nan" in found.warning


@pytest.mark.parametrize("n_leapfrog", [1, 3])
def test_a_move_is_what_numpy_says(n_leapfrog: int) -> None:
    """log w = -a ε⁴ / 4: the trajectory and its chance by hand; accepted just below the chance, rejected just above."""
    a, beta, n_data, width = 0.3, 0.7, 5, 2
    made = Target(lambda e: -(a / 4 * e**4).sum(-1), {"z1": ("normal", width)}, torch.zeros(n_data, 1).double())
    source = torch.Generator().manual_seed(0)
    noise, momentum = 1.5 * torch.randn(2, 6, n_data, width, generator=source, dtype=torch.float64)
    uniform = torch.rand(6, n_data, 2, generator=source, dtype=torch.float64)
    step_size = torch.linspace(0.2, 0.9, n_data).double()

    h = step_size.numpy() * (1 + JITTER * (2 * uniform[..., 0].numpy() - 1))
    h = np.minimum(h, QUARTER_TURN / n_leapfrog)[..., None]
    e, p = noise.numpy(), momentum.numpy()
    for _ in range(n_leapfrog):
        p = p - h / 2 * beta * a * e**3
        e, p = e * np.cos(h) + p * np.sin(h), p * np.cos(h) - e * np.sin(h)
        p = p - h / 2 * beta * a * e**3

    def energy(position: np.ndarray, speed: np.ndarray) -> np.ndarray:
        return (beta * a / 4 * position**4 + position**2 / 2 + speed**2 / 2).sum(-1)

    expected = np.exp(np.minimum(energy(noise.numpy(), momentum.numpy()) - energy(e, p), 0))
    assert 0.1 < (expected < 0.999).mean() < 0.9, "some moves should be sure, and some not"
    for share, end in ((1 - 1e-9, e), (1 + 1e-9, noise.numpy())):
        uniform[..., 1] = share * torch.from_numpy(expected)
        state, chance = move(made, State.at(made, noise), beta, step_size, n_leapfrog, momentum, uniform)
        np.testing.assert_allclose(chance.numpy(), expected, atol=1e-10, rtol=0)
        np.testing.assert_allclose(state.noise.numpy(), end, atol=1e-10, rtol=0)
        there = State.at(made, state.noise)
        torch.testing.assert_close((state.log_weight, state.gradient), (there.log_weight, there.gradient))


def test_every_move_is_made_with_the_frozen_step_and_temperature(
    model: HVAE, x: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    whitened, annealing = from_encoder(model, x), Annealing(12, 4, 2)
    path = tune(whitened, annealing, seed=0)
    asked: list[tuple[float, Tensor]] = []

    def watched(target: Target, state: State, beta: float, step_size: Tensor, *others: object) -> object:
        asked.append((beta, step_size.clone()))
        return move(target, state, beta, step_size, *others)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "move", watched)
    frozen = list(zip(path.betas[1:], path.step_sizes.clone(), strict=True))
    start = whitened.noise(1, seed=1, purpose="start")
    for run, expected in (
        (lambda: run_forward(whitened, path, annealing, 0), frozen),
        (lambda: run_backward(whitened, path, start, annealing, 0), frozen[::-1]),
    ):
        asked.clear()
        run()
        assert [beta for beta, _ in asked] == [beta for beta, _ in expected]
        assert all(torch.equal(step, row) for (_, step), (_, row) in zip(asked, expected, strict=True))


@pytest.mark.parametrize("order", ["bottom-up", "top-down"])
def test_the_noise_of_an_exact_draw_becomes_that_draw(model: HVAE, exact: LinearGaussian, order: str) -> None:
    stack = model if order == "bottom-up" else HVAE(model.decoder, exact.exact_posterior("top-down"))
    made, z = simulate(stack, 20, 6, LIKE)
    whitened = from_encoder(stack, made)
    back = stack.infer(made.unsqueeze(0), whitened.split(noise_at(stack, whitened, made, z)))
    for name, value in z.items():
        torch.testing.assert_close(back[name].value, value, atol=1e-10, rtol=0)


def test_no_draw_serves_twice(model: HVAE, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the data's nor the path's draws are those of the chains that are measured."""
    keys, draw = [], rng.noise

    def watched(*shape: Any, seed: int, purpose: str, step: int = 0, **others: Any) -> dict[str, Tensor]:
        keys.append((seed, purpose, step))
        return draw(*shape, seed=seed, purpose=purpose, step=step, **others)

    monkeypatch.setattr(rng, "noise", watched)
    sandwich(model, 3, Annealing(12, 8, 2), seed=0, like=LIKE)
    assert len(set(keys)) == len(keys) > 36


def test_flat_weights_have_a_path_and_the_exact_answer(x: Tensor) -> None:
    """A collapsed decoder: p(x|z) knows nothing of z, every weight from the prior is p(x), no beta is worth more."""
    network = decoder(WIDTHS)
    with torch.no_grad():
        network["x"].net.weight.zero_()  # type: ignore[union-attr, operator]
    found = anneal(from_prior(network, x), Annealing(5, 30, 2), seed=0)
    exact = LinearGaussian.of(network).log_px(x)
    np.testing.assert_allclose(found.log_weight.numpy(), exact.expand(30, -1).numpy(), atol=1e-10)
    np.testing.assert_allclose(found.estimate.ess, 30)
    assert "consistent with an exact posterior" in found.estimate.note


@torch.no_grad()
def test_a_chain_leaves_a_place_of_weight_zero(model: HVAE, x: Tensor) -> None:
    """Where w = 0 any place with a weight is accepted; a trajectory that ends at nan or weight 0 never is."""
    whitened = from_encoder(model, x[:3])
    start = State.at(whitened, whitened.noise(2, seed=0, purpose="start"))
    nowhere = State(start.noise, torch.full_like(start.log_weight, -math.inf), start.gradient)
    steps, momentum = torch.full((3,), 0.1).double(), whitened.noise(2, seed=1, purpose="momentum")
    uniform = torch.full((2, 3, 2), 0.5, dtype=torch.float64)
    moved, chance = move(whitened, nowhere, 1.0, steps, 2, momentum, uniform)
    assert (chance == 1).all() and moved.log_weight.isfinite().all()
    for value in (math.nan, -math.inf):
        dead = Target(lambda noise, v=value: whitened.log_weight(noise) * 0 + v, whitened.specs, whitened.like)
        moved, chance = move(dead, start, 1.0, steps, 2, momentum, uniform)
        assert (chance == 0).all() and torch.equal(moved.noise, start.noise)


def test_chains_differ_in_their_step_by_a_tenth_at_most_and_turn_a_quarter_at_most() -> None:
    """At β = 0 and noise 0 a leap turns the momentum into ``sin h``, and is accepted."""
    target = Target(lambda noise: noise.sum(-1), {"z1": ("normal", 1)}, like=torch.zeros(2, 1).double())
    start, ones = State.at(target, torch.zeros(3, 2, 1).double()), torch.ones(3, 2, 1).double()
    uniform = torch.tensor([0.0, 0.5, 1.0]).double()[:, None, None].expand(3, 2, 2) * torch.tensor([1.0, 0.5])
    sizes = torch.tensor([0.2, 100.0], dtype=torch.float64)
    moved, chance = move(target, start, 0.0, sizes, 1, ones, uniform)
    steps = torch.tensor([[0.18, math.pi / 2], [0.2, math.pi / 2], [0.22, math.pi / 2]], dtype=torch.float64)
    torch.testing.assert_close(moved.noise[..., 0], steps.sin(), atol=1e-10, rtol=0)
    torch.testing.assert_close(chance, torch.ones(3, 2).double(), atol=1e-10, rtol=0)


def test_parts_joined_are_the_records_of_their_data(model: HVAE, x: Tensor) -> None:
    few, more = (anneal(from_prior(model.decoder, x[some]), Annealing(3, 4, 1), seed=0) for some in ([0], [1, 2, 3]))
    joined = Annealed.joined([few, more])
    assert joined.noise.shape == (4, 4, few.noise.shape[-1]) and joined.log_weight.shape == (4, 4)
    for part, at in ((few, [0]), (more, [1, 2, 3])):
        assert torch.equal(joined.noise[:, at], part.noise) and torch.equal(joined.log_weight[:, at], part.log_weight)
        np.testing.assert_array_equal(joined.estimate.log_px[at], part.estimate.log_px)
    assert joined.acceptance == pytest.approx(few.acceptance / 4 + 3 * more.acceptance / 4, abs=1e-12)
