"""Whose collapse it is, on stacks where the exact posterior is known."""

import numpy as np
import pytest
import torch
from torch import Tensor

from hvae.diagnostics.collapse import INVENTED, MISSED, OPEN, UNUSED, USED, UnitActivity, activity
from hvae.evidence import HVAE
from hvae.likelihood.annealing import Annealing, anneal
from hvae.likelihood.target import from_encoder
from hvae.numerics import FloatArray
from hvae.posterior import NetworkPosterior
from hvae.reference import LinearGaussian
from tests.diagnostics.chains import Stack, holds, images, link, root
from tests.statistics import assert_mean

N = 300
DOWN_USED = [root(1.0), link(1, 0.3), link([[1], [0.5]], 0.3)]
DOWN_UNUSED = [root(1.0), link(0, 1), link([[1], [0.5]], 0.3)]
STUCK = link(0, 1)
"""q(z2|z1) = N(0, 1) whatever z1"""


def data(model: HVAE, n: int = N) -> Tensor:
    mean, covariance = LinearGaussian.of(model.decoder).marginal(["x"])
    return mean + images(n, width=len(mean)) @ torch.linalg.cholesky(covariance).mT


def exact_variance(model: HVAE, x: Tensor, name: str) -> FloatArray:
    """Var_x E[z|x] over these data, by numpy from the conditional's weight: `diag(W cov(x) Wᵀ)`."""
    weight = LinearGaussian.of(model.decoder).conditional([name], ["x"]).weight.numpy()
    return np.diag(weight @ np.cov(x.numpy().T) @ weight.T)


def annealed(model: HVAE, x: Tensor, n_chains: int = 64) -> dict[str, UnitActivity]:
    target = from_encoder(model, x)
    found = anneal(target, Annealing(15, n_chains, 2), 0)
    return activity(model, x, target.split(found.noise), found.log_weight, n_paths=16, seed=0, level=0.999)


def stack(up: list[object], down: list[object]) -> HVAE:
    return Stack(up, down).bottom_up()  # type: ignore[arg-type]


def test_an_encoder_that_is_stuck_is_told_from_a_model_that_does_not_care() -> None:
    """The same encoder, q(z2|z1) = N(0, 1); one decoder uses z2, the other does not."""
    up = [link([[0.7, 0.3]], 0.2), STUCK]
    for down, reading, n_active in ((DOWN_USED, MISSED, (1, 0)), (DOWN_UNUSED, UNUSED, (0, 0))):
        model = stack(up, down)
        x = data(model)
        found = annealed(model, x)
        assert found["z1"].readings == (USED,)
        assert found["z2"].readings == (reading,) and found["z2"].n_active == n_active
        for name in ("z1", "z2"):
            assert holds(found[name].posterior[0], exact_variance(model, x, name)[0])
        # E_q[z1|x] = 0.7 x1 + 0.3 x2 and E_q[z2|x] = 0, in closed form: no chance in q's means here
        assert found["z1"].encoder[0, 1] == pytest.approx(np.cov(x.numpy() @ [0.7, 0.3]), rel=1e-10)
        assert found["z2"].encoder[0] == pytest.approx([0, 0, 0], abs=1e-12)


def test_units_are_told_apart_within_a_layer() -> None:
    """z1 has a unit that both use, one that q misses, one that neither uses and one that only q uses."""
    down = [root([1, 1, 1, 1]), link([[1, 0, 0, 0], [0, 1, 0, 0]], 0.2)]
    up = [link([[0.8, 0], [0, 0], [0, 0], [0.5, 0]], [0.2, 1, 1, 0.8])]
    found = annealed(stack(up, down), data(stack(up, down)), n_chains=256)["z1"]
    assert found.readings == (USED, MISSED, UNUSED, INVENTED)
    assert found.n_active == (2, 2)


def test_twins_of_few_weighted_draws_are_unbiased() -> None:
    """Four exact draws of the posterior a datum: products of twins have mean Var_x E[z|x], squares would have more."""
    model = stack([link([[0.5, 0.2]], 0.5)], [root(1.0), link([[1], [0.5]], 1.0)])
    x = data(model, 4000)
    reference = LinearGaussian.of(model.decoder)
    exact = HVAE(model.decoder, reference.exact_posterior("bottom-up"))
    noise = {"z1": images(4 * 4000, seed=3).reshape(4, 4000, 1)}
    found = activity(exact, x, noise, torch.zeros(4, 4000).double(), n_paths=1, seed=0, level=0.999)["z1"]
    truth = exact_variance(model, x, "z1")[0]
    assert holds(found.posterior[0], truth) and holds(found.encoder[0], truth)
    with torch.no_grad():
        z = exact.infer(x.unsqueeze(0), noise)["z1"].value[..., 0]
    centred = z - reference.conditional(["z1"], ["x"]).mean(x)[:, 0].mean()
    twins = centred[:2].mean(0) * centred[2:].mean(0)
    assert_mean(twins.numpy(), truth, detect=0.16)
    middle = np.cov(z[:2].mean(0).numpy(), z[2:].mean(0).numpy())[0, 1]
    assert found.posterior[0, 1] == pytest.approx(middle, rel=1e-10)


def test_weights_count_within_each_half() -> None:
    """With all weight on one chain of each half the statistic is that of these two chains, whatever their total."""
    model = stack([link([[0.5, 0.2]], 0.5)], [root(1.0), link([[1], [0.5]], 1.0)])
    x = data(model, 50)
    noise = {"z1": images(6 * 50, seed=3).reshape(6, 50, 1)}
    log_weight = torch.full((6, 50), -900.0).double()
    log_weight[1], log_weight[4] = -700, 300
    found = activity(model, x, noise, log_weight, n_paths=1, seed=0)["z1"]
    z = model.infer(x.unsqueeze(0), noise)["z1"].value[..., 0].detach().numpy()
    assert found.posterior[0, 1] == pytest.approx(np.cov(z[1], z[4])[0, 1], rel=1e-10)


def test_readings_need_whole_intervals() -> None:
    sure, unsure, none = [0.02, 0.03, 0.04], [0.005, 0.02, 0.03], [-0.01, 0.0, 0.009]
    cases = {(0, 0): USED, (0, 2): MISSED, (2, 0): INVENTED, (2, 2): UNUSED, (1, 0): OPEN, (0, 1): OPEN, (2, 1): OPEN}
    states = np.array([sure, unsure, none])
    pairs = list(cases)
    found = UnitActivity(states[[p for p, _ in pairs]], states[[q for _, q in pairs]])
    assert found.readings == tuple(cases.values())
    assert found.n_active == (4, 5)


def test_what_cannot_be_twinned_is_refused() -> None:
    model = stack([link([[0.5, 0.2]], 0.5)], [root(1.0), link([[1], [0.5]], 1.0)])
    x, noise = data(model, 3), {"z1": torch.zeros(4, 3, 1).double()}
    weights = torch.zeros(4, 3).double()
    with pytest.raises(ValueError, match="There are 1 chains"):
        activity(model, x, {"z1": noise["z1"][:1]}, weights[:1], n_paths=1, seed=0)
    with pytest.raises(ValueError, match="0 paths"):
        activity(model, x, noise, weights, n_paths=0, seed=0)
    with pytest.raises(ValueError, match="nan, infinite or all zero"):
        activity(model, x, noise, weights - torch.inf, n_paths=1, seed=0)


def test_ladders_too() -> None:
    """Top-down, where z2 is inferred first: the exact posterior of z2 uses x, the ladder's q as well."""
    model = Stack([link([[0.7, 0.3]], 0.2), link(0.8, 0.4)], DOWN_USED).ladder()
    x = data(model)
    found = annealed(model, x)
    assert not isinstance(model.posterior, NetworkPosterior)
    assert found["z2"].readings == (USED,)
    assert holds(found["z2"].posterior[0], exact_variance(model, x, "z2")[0])
