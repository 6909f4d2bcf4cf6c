"""Every verdict on a stack that deserves it, through the evaluation as it is run."""

import math

import numpy as np
import pytest

from hvae.diagnostics.verdict import ACTIVE, COLLAPSED, CONSTANT, NOISE_ONLY, UNDECIDED, UNREAD, verdict
from hvae.evidence import HVAE
from hvae.measuring import Sizes, measure_layers
from hvae.network import BeliefNetwork
from hvae.posterior import NetworkPosterior
from tests.diagnostics.chains import Stack, images, link, root

SIZES = Sizes(max_paths=256, n_bootstrap=100)
READING = [root(1.0), link(1, 0.3), link(1, 0.1)]
"""a decoder that reads both layers"""

X_AND_NOISE = [link([[1], [0]], [0.01, 1]), link([[0, 1]], 0.3)]
"""an encoder whose z1 = (x, noise), and whose z2 reads the noise only"""


def verdicts(model: HVAE, *, n: int = 128, width: int = 1, sizes: Sizes = SIZES) -> dict[str, list[str]]:
    """Layer -> verdicts at epsilon 0.03, 0.1, 0.3."""
    found = measure_layers(model, images(n, width=width), sizes)
    return {layer.name: layer.verdict[0].tolist() for layer in found}


@pytest.mark.parametrize(
    ("stack", "expected"),
    [
        (Stack([link(1, 0.05), link(1, 0.3)], READING), (ACTIVE, ACTIVE)),
        (Stack([link(1, 0.05), link(0, 1)], READING), (ACTIVE, COLLAPSED)),
        (Stack([link(1, 0.05), link(0, 0.1, 3)], READING), (ACTIVE, CONSTANT)),
        (Stack([link(1, 0.05), link(0, 1, 2)], READING), (ACTIVE, CONSTANT)),
        (Stack([link(0, 1), link(0, 1)], READING), (COLLAPSED, COLLAPSED)),
        (
            Stack(X_AND_NOISE, [root(1), link([[1], [1]], 1), link([[1, 1]], 1)]),
            (ACTIVE, NOISE_ONLY),
        ),
        (Stack([link(1, 0.05), link(1, 0.3)], [root(1), link(1, 0.3), link(0, 1)]), (UNREAD, ACTIVE)),
        (Stack([link(1, 0.05), link(1, 0.3)], [root(1), link(0, 1), link(1, 0.1)]), (ACTIVE, UNREAD)),
    ],
    ids=["active", "to N(0, I)", "to a narrow one", "to a shifted one", "all", "noise only", "z1 unread", "z2 unread"],
)  # fmt: skip
def test_bottom_up(stack: Stack, expected: tuple[str, str]) -> None:
    found = verdicts(stack.bottom_up())
    assert (found["z1"][1], found["z2"][1]) == expected


def test_a_layer_at_the_threshold_is_undecided_and_moves_with_epsilon() -> None:
    """I_2 = 0.1 nats of x and hardly any noise: more than 0.03, less than 0.3."""
    variance = 1.01 / math.expm1(0.2)
    found = verdicts(
        Stack([link(1, 0.01), link(1, variance)], [root(1), link(1, 0.3), link(1, 0.1)]).bottom_up(), n=256
    )
    assert found["z2"] == [ACTIVE, UNDECIDED, CONSTANT]


def test_too_few_paths_leave_noise_undecided() -> None:
    stack = Stack(X_AND_NOISE, [root(1), link([[1], [1]], 1), link([[1, 1]], 1)])
    assert verdicts(stack.bottom_up(), sizes=Sizes(max_paths=4, n_bootstrap=100))["z2"][1] == UNDECIDED


def test_a_dead_lower_ladder_layer_has_collapsed() -> None:
    """z1 follows its prior p(z1 | z2): it moves with x, but adds nothing to what z2 says."""
    stack = Stack([link(3, math.exp(19)), link(1, 0.1)], READING)
    z1, z2 = measure_layers(stack.ladder(), images(128), SIZES)
    assert z1.verdict[0].tolist() == [CONSTANT] * 3  # p(z1 | z2) is no N(0, I)
    assert z2.verdict[0].tolist() == [ACTIVE] * 3
    assert z1.interval("kl_prior_nats")[0, 2] < 1e-6


def test_prior_mismatch_only_is_a_collapse_to_a_constant() -> None:
    """q(z1 | z2) ignores x and disagrees with p(z1 | z2): a rate of nats, information none."""
    q = BeliefNetwork([link(1, 0.1).conditional("z2", ["x"]), link(1, 0.05, 1).conditional("z1", ["z2"])])
    z1, _ = measure_layers(HVAE(Stack([link(1, 1)] * 2, READING).decoder(), NetworkPosterior(q)), images(128), SIZES)
    assert z1.verdict[0].tolist() == [CONSTANT] * 3
    assert z1.interval("kl_prior_nats")[0, 0] > 1 and z1.interval("rate_nats")[0, 0] > 1


def test_upper_layers_that_know_every_image_leave_the_lower_one_undecided() -> None:
    q = BeliefNetwork([link(1000, 0.01).conditional("z2", ["x"]), link(1, 0.1).conditional("z1", ["x"])])
    z1, _ = measure_layers(HVAE(Stack([link(1, 1)] * 2, READING).decoder(), NetworkPosterior(q)), images(64), SIZES)
    assert z1.interval("parent_information_nats")[0, 0] < 0.1
    assert z1.verdict[0, 1] == UNDECIDED


def test_noise_only_needs_a_layer_that_surely_carries_something() -> None:
    """I_l surely below epsilon, J_l perhaps below: it may as well have collapsed."""
    perhaps, nothing, sure = np.array([0.05, 0.1, 0.2]), np.array([0.0, 0.01, 0.02]), np.ones(3)
    assert verdict(perhaps, nothing, sure, sure, 0.1) == UNDECIDED
    assert verdict(sure, nothing, sure, sure, 0.1) == NOISE_ONLY
    assert verdict(sure, sure, perhaps, sure, 0.1) == UNDECIDED


def test_a_number_that_is_not_one_decides_nothing() -> None:
    nan, sure = np.full(3, np.nan), np.ones(3)
    assert verdict(nan, nan, nan, nan, 0.1) == UNDECIDED
    assert verdict(sure, sure, nan, sure, 0.1) == UNDECIDED
