"""Synthetic names hold what their stacks say, by moments and enumeration that share no code with the draw."""

import itertools

import numpy as np
from scipy.stats import binom, chi2, norm

from hvae.data import load
from hvae.data.synthetic import binary_2, linear_2

ALARM = 1e-6


def test_linear_moments() -> None:
    """Squared whitened x, summed over items, is chi-squared in every direction: a variance 20 % off is seen."""
    stack = linear_2()
    z1, x = stack.conditionals["z1"], stack.conditionals["x"]
    assert z1.variance is not None and x.variance is not None
    covariance = x.weight @ (z1.weight @ z1.weight.T + np.diag(z1.variance)) @ x.weight.T + np.diag(x.variance)
    data = load("synthetic-linear-2")
    assert (data.kind, data.image_shape) == ("real", (20,))
    values = np.concatenate([data.train.numpy(), data.test.numpy()]).astype(np.float64)
    centred = values - (x.weight @ z1.bias + x.bias)
    scale, directions = np.linalg.eigh(covariance)
    white = centred @ directions / np.sqrt(scale)
    n, n_units = white.shape
    low, high = chi2.ppf([ALARM / n_units / 2, 1 - ALARM / n_units / 2], n)
    assert chi2.cdf(low / 0.8, n) > 1 - 1e-6 and chi2.cdf(high / 1.25, n) < 1e-6, "too few items to see 20 %"
    assert ((white**2).sum(axis=0) > low).all() and ((white**2).sum(axis=0) < high).all()
    assert n * (white.mean(axis=0) ** 2).sum() < chi2.isf(ALARM, n_units)
    correlations = n * (np.triu(white.T @ white / n, 1) ** 2).sum()
    assert correlations < chi2.isf(ALARM, n_units * (n_units - 1) // 2)


def sigmoid(values: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-values))


def test_binary_frequencies() -> None:
    """Every p(x_i = 1) and p(x_i = x_j = 1), enumerated over the 2^8 latent states; an error of 0.015 is seen."""
    stack = binary_2()
    z1, x = stack.conditionals["z1"], stack.conditionals["x"]
    expected = np.zeros((16, 16))
    for top in itertools.product((0, 1), repeat=3):
        p_z1 = sigmoid(z1.weight @ top + z1.bias)
        for state in itertools.product((0, 1), repeat=5):
            p_state = np.prod(np.where(state, p_z1, 1 - p_z1)) / 8
            p_x = sigmoid(x.weight @ state + x.bias)
            both = np.outer(p_x, p_x)
            np.fill_diagonal(both, p_x)
            expected += p_state * both
    data = load("synthetic-binary-2")
    assert (data.kind, data.image_shape) == ("binary", (16,))
    items = np.concatenate([data.train.numpy(), data.test.numpy()]).astype(np.float64)
    many = stack.draw(200_000, np.random.default_rng(1))["x"]
    assert (norm.isf(ALARM / 256) + norm.isf(1e-6)) / 2 / np.sqrt(len(many)) < 0.015
    for values in (items, many):
        n, counts = len(values), values.T @ values
        low, high = binom.ppf(ALARM / 256, n, expected), binom.isf(ALARM / 256, n, expected)
        assert ((counts >= low) & (counts <= high)).all()
    assert 0.05 < np.diag(expected).min() and np.diag(expected).max() < 0.95
    assert np.abs(expected - np.outer(np.diag(expected), np.diag(expected))).max() > 0.05, "the latents must matter"
