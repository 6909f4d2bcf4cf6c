"""What Bernoulli units are told, against joint tables listed without `hvae`."""

import itertools

import numpy as np
import pytest
import torch

from hvae import rng
from hvae.evidence import HVAE
from hvae.experiments.flach_equilibrium.spectra import spectra
from hvae.experiments.flach_equilibrium.spectrum import bernoulli_information, probabilities
from hvae.families import Bernoulli, Categorical
from hvae.numerics import bernoulli_entropy
from tests.exact import enumerated
from tests.statistics import assert_mean

KINDS = [Bernoulli(4), Bernoulli(3), Bernoulli(2)]


def of_table(joint: np.ndarray) -> float:
    """I of two variables from their joint table, term by term, in nats."""
    rows, columns = joint.sum(1), joint.sum(0)
    cells = itertools.product(range(len(rows)), range(len(columns)))
    return float(sum(joint[i, j] * np.log(joint[i, j] / (rows[i] * columns[j])) for i, j in cells if joint[i, j] > 0))


def tables(pi: np.ndarray, weight: np.ndarray) -> list[np.ndarray]:
    """Joint table of (parents, Bernoulli unit) of every Bernoulli unit: pi [D, S] over states of the parents that
    weigh [S]."""
    return [np.stack([weight * (1 - row), weight * row], axis=1) for row in pi]


def test_over_states_that_weigh_alike_it_is_the_information_of_the_joint_table() -> None:
    source = np.random.default_rng(0)
    pi = np.concatenate([source.random((5, 32)), [np.full(32, 0.3), np.tile([0.0, 1.0], 16), np.zeros(32)]])
    found = bernoulli_information(pi)
    expected = [of_table(table) for table in tables(pi, np.full(32, 1 / 32))]
    np.testing.assert_allclose(found[:, 1], expected, atol=1e-12)
    np.testing.assert_allclose(found[5:, 1], [0, np.log(2), 0], atol=1e-12)
    assert (found[:5, 0] < found[:5, 1]).all() and (found[:5, 1] < found[:5, 2]).all()


@pytest.mark.parametrize("kind", ["bottom-up", "bottom-up sees x", "shared"])
def test_of_a_stack_it_is_the_information_of_its_listed_states(kind: str) -> None:
    """Under p and under q, within what n draws tell: terms KL(pi ‖ E pi) have the information for their mean."""
    model = HVAE(enumerated.decoder(KINDS), enumerated.posterior(kind, KINDS))
    n = 20_000
    images = torch.tensor(enumerated.states(KINDS[0]), dtype=torch.float64)
    x = images[torch.randint(len(images), (n,), generator=torch.Generator().manual_seed(0))]
    found = spectra([model], [True], x, seed=1)
    for key, interval in found.items():
        _, player, name = key.split("/")
        assert interval.shape == (1, model.decoder[name].family.units, 3)
        pi, weight = listed(model, player, name, images)
        exact = np.array([of_table(table) for table in tables(pi, weight)])
        error = (interval[0, :, 2] - interval[0, :, 0]) / 3.92
        assert (np.abs(interval[0, :, 1] - exact) < 6 * error + 1 / (2 * n)).all(), key
        assert (error < 0.01).all() and (player == "p" and name == "z2") == bool((exact < 1e-12).all())


def listed(model: HVAE, player: str, name: str, images: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """pi [D, S] of a layer over all states S of everything else that is drawn before, and how these weigh [S].

    The states are listed here; the conditionals are the model's own nets, asked state by state.
    """
    one, two = (torch.tensor(enumerated.states(kind), dtype=torch.float64) for kind in KINDS[1:])
    if player == "p":
        top = torch.sigmoid(model.decoder["z2"].net().detach()).numpy()
        if name == "z2":
            return top[:, None], np.ones(1)
        return _probability(model.decoder["z1"].net(two)), _of_bernoulli(top[None], two.numpy())[0]
    first, second = ("z2", "z1") if model.posterior.order[0] == "z2" else ("z1", "z2")
    states = {"z1": one, "z2": two}
    columns, weights = [], []
    for image in images:
        x = image[None, None]
        trace = model.infer(x, {}, {first: states[first][:, None], second: states[second][:1, None]})
        own = trace[first].distribution.mean.detach().numpy()[:, 0]
        given = trace[second].distribution.mean.detach().numpy()[:, 0]
        chance = _of_bernoulli(own[:1], states[first].numpy())[0]
        columns.append(own[:1].T if name == first else np.broadcast_to(given.T, (given.shape[1], len(chance))))
        weights.append(np.ones(1) if name == first else chance)
    weight = np.concatenate(weights) / len(images)
    return np.concatenate(columns, axis=1), weight


def _probability(logits: torch.Tensor) -> np.ndarray:
    return np.asarray(1 / (1 + np.exp(-logits.detach().numpy()))).T


def _of_bernoulli(on: np.ndarray, states: np.ndarray) -> np.ndarray:
    """[N, S] chance of every state of independent Bernoulli units."""
    return np.asarray(np.prod(np.where(states[None] == 1, on[:, None], 1 - on[:, None]), axis=-1))


def test_it_is_of_the_probabilities_and_not_of_the_draws() -> None:
    model = HVAE(enumerated.decoder(KINDS), enumerated.posterior("bottom-up", KINDS))
    noise = rng.noise(model.decoder.noise_specs(), 1, 4000, seed=0, purpose="test", dtype=torch.float64)
    with torch.no_grad():
        site = model.decoder.walk({}, noise)["z1"]
    pi = probabilities(site, 4000)
    assert pi.shape == (3, 4000) and ((pi > 0) & (pi < 1)).all()
    assert_mean(site.value[0].numpy() - pi.T, 0.0, detect=0.1)


def test_a_settled_bernoulli_has_no_entropy() -> None:
    np.testing.assert_allclose(bernoulli_entropy(np.array([0.0, 1.0, 0.5, 1e-300])), [0, 0, np.log(2), 0], atol=1e-15)


def test_categorical_are_refused() -> None:
    kinds = [Bernoulli(2), Categorical(1, 3)]
    model = HVAE(enumerated.decoder(kinds), enumerated.posterior("bottom-up", kinds))
    with pytest.raises(TypeError, match="has no Bernoulli units"):
        spectra([model], [True], torch.zeros(5, 2, dtype=torch.float64), seed=0)


def test_a_replica_that_failed_has_no_spectrum() -> None:
    model = HVAE(enumerated.decoder(KINDS), enumerated.posterior("bottom-up", KINDS))
    found = spectra([model, model], [False, True], torch.zeros(50, 4, dtype=torch.float64), seed=0)
    for interval in found.values():
        assert np.isnan(interval[0]).all() and np.isfinite(interval[1]).all()
