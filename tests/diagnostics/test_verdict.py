"""Every verdict on a stack that deserves it, through the evaluation as it is run."""

import math

import numpy as np
import pytest

from hvae.diagnostics.verdict import Found
from hvae.evidence import HVAE
from hvae.measuring import Sizes, measure_layers
from hvae.network import BeliefNetwork
from hvae.numerics import FloatArray
from hvae.posterior import NetworkPosterior
from hvae.vocabulary import ACTIVE, NOISE_ONLY, TO_ANOTHER, TO_PRIOR, TO_STANDARD, TOO_FEW, UNDECIDED, UNREAD, WEAK
from tests.diagnostics.chains import Stack, images, link, root

SIZES = Sizes(max_paths=256)
READING = [root(1.0), link(1, 0.3), link(1, 0.1)]
"""a decoder that reads both layers"""

X_AND_NOISE = [link([[1], [0]], [0.01, 1]), link([[0, 1]], 0.3)]
"""an encoder whose z1 = (x, noise), and whose z2 reads the noise only"""


def verdicts(model: HVAE, *, n: int = 160, width: int = 1, sizes: Sizes = SIZES) -> dict[str, list[str]]:
    """Layer -> verdicts at epsilon 0.03, 0.1, 0.3."""
    found = measure_layers(model, images(n, width=width), sizes)
    return {layer.name: layer.verdict[0].tolist() for layer in found}


@pytest.mark.parametrize(
    ("stack", "expected"),
    [
        (Stack([link(1, 0.05), link(1, 0.3)], READING), (ACTIVE, ACTIVE)),
        (Stack([link(1, 0.05), link(0, 1)], READING), (ACTIVE, TO_STANDARD)),
        (Stack([link(1, 0.05), link(0, 0.1, 3)], READING), (ACTIVE, TO_ANOTHER)),
        (Stack([link(1, 0.05), link(0, 1, 2)], READING), (ACTIVE, TO_ANOTHER)),
        (Stack([link(0, 1), link(0, 1)], READING), (TO_STANDARD, TO_STANDARD)),
        (
            Stack(X_AND_NOISE, [root(1), link([[1], [1]], 1), link([[1, 1]], 1)]),
            (ACTIVE, NOISE_ONLY),
        ),
        (Stack([link(1, 0.05), link(1, 0.3)], [root(1), link(1, 0.3), link(0, 1)]), (UNREAD, UNREAD)),
        (Stack([link(1, 0.05), link(1, 0.3)], [root(1), link(0, 1), link(1, 0.1)]), (ACTIVE, UNREAD)),
    ],
    ids=["active", "to N(0, I)", "narrow", "shifted", "all", "noise only", "z1 unread, so z2 too", "z2 unread"],
)  # fmt: skip
def test_bottom_up(stack: Stack, expected: tuple[str, str]) -> None:
    found = verdicts(stack.bottom_up())
    assert (found["z1"][1], found["z2"][1]) == expected


def test_a_layer_near_the_threshold_moves_with_epsilon() -> None:
    """z1 = x + noise of variance 4, read by a decoder of that scale: I_1 = 0.11 nats, of images and at large."""
    stack = Stack([link(1, 4), link(0, 1)], [root(1), link(0, 5), link(0.2, 0.8)])
    found = verdicts(stack.bottom_up(), n=2048, sizes=Sizes(n_images=2048, max_paths=64))
    assert found["z1"][0] == ACTIVE and found["z1"][2] == WEAK and found["z1"][1] != ACTIVE


def test_too_few_paths_leave_noise_undecided() -> None:
    stack = Stack(X_AND_NOISE, [root(1), link([[1], [1]], 1), link([[1, 1]], 1)])
    assert verdicts(stack.bottom_up(), sizes=Sizes(max_paths=4))["z2"][1] == UNDECIDED


def test_a_dead_lower_ladder_layer_has_collapsed() -> None:
    """z1 follows its prior p(z1 | z2): it moves with x, but adds nothing to what z2 says."""
    stack = Stack([link(1, math.exp(19)), link(1, 0.1)], READING)
    z1, z2 = measure_layers(stack.ladder(), images(128), SIZES)
    assert z1.verdict[0].tolist() == [TO_PRIOR] * 3
    assert z2.verdict[0].tolist() == [ACTIVE] * 3
    assert z1.interval("kl_prior_nats")[0, 2] < 1e-6


def test_prior_mismatch_only_is_a_collapse_to_a_constant() -> None:
    """q(z1 | z2) ignores x and disagrees with p(z1 | z2): a rate of nats, information none."""
    q = BeliefNetwork([link(1, 0.1).conditional("z2", ["x"]), link(1, 0.05, 1).conditional("z1", ["z2"])])
    z1, _ = measure_layers(HVAE(Stack([link(1, 1)] * 2, READING).decoder(), NetworkPosterior(q)), images(128), SIZES)
    assert z1.verdict[0].tolist() == [TO_ANOTHER] * 3
    assert z1.interval("kl_prior_nats")[0, 0] > 1 and z1.interval("rate_nats")[0, 0] > 1


def test_a_used_layer_is_active_below_one_that_knows_every_image() -> None:
    """ "Which of the n images?" has no lower end there; what the decoder uses has."""
    q = BeliefNetwork([link(1000, 0.01).conditional("z2", ["x"]), link(1, 0.1).conditional("z1", ["x"])])
    z1, _ = measure_layers(HVAE(Stack([link(1, 1)] * 2, READING).decoder(), NetworkPosterior(q)), images(64), SIZES)
    assert z1.interval("parent_information_nats")[0, 0] < 0.1
    assert z1.verdict[0, 1] == ACTIVE


PERHAPS, NOTHING, SURE = np.array([0.05, 0.1, 0.2]), np.array([0.0, 0.01, 0.02]), np.ones(3)


@pytest.mark.parametrize(
    ("used", "from_parent", "about_datum", "read", "expected"),
    [
        (PERHAPS, PERHAPS, NOTHING, SURE, WEAK),
        (PERHAPS, NOTHING, NOTHING, SURE, WEAK),
        (NOTHING, PERHAPS, PERHAPS, SURE, UNDECIDED),
        (NOTHING, SURE, NOTHING, SURE, NOISE_ONLY),
        (NOTHING, SURE, SURE, PERHAPS, UNDECIDED),
        (NOTHING, SURE, SURE, NOTHING, UNREAD),
        (SURE, SURE, SURE, NOTHING, ACTIVE),  # V is a lower bound, so U is wrong here
        (SURE, PERHAPS, PERHAPS, PERHAPS, ACTIVE),  # the layers above tell the images apart
        (np.full(3, np.nan), SURE, SURE, np.full(3, np.nan), UNDECIDED),
        (np.full(3, np.nan), np.full(3, np.nan), np.full(3, np.nan), np.full(3, np.nan), UNDECIDED),
    ],
)
def test_what_follows_from_the_intervals(
    used: FloatArray, from_parent: FloatArray, about_datum: FloatArray, read: FloatArray, expected: str
) -> None:
    found = Found(144, used, from_parent, about_datum, read, divergences={TO_ANOTHER: np.ones(144)})
    assert found.verdict(0.1) == expected


@pytest.mark.parametrize(
    ("n", "moved", "collapsed"), [(71, 0, False), (72, 0, True), (109, 1, False), (110, 1, True), (20, 0, False)]
)
def test_a_collapse_is_said_of_a_share_of_images(n: int, moved: int, collapsed: bool) -> None:
    """Clopper and Pearson: 1 - 0.025^(1/72) < 0.05; the other images may lie as far off as they like."""
    terms = np.where(np.arange(n) < moved, 1000.0, 0.01)
    found = Found(n, NOTHING, divergences={TO_PRIOR: terms})
    assert (found.verdict(0.1) == TO_PRIOR) == collapsed
    assert (found.mark(0.1) == TOO_FEW) == (n < 72)


def test_below_twenty_images_there_is_no_verdict() -> None:
    assert Found(19, SURE).verdict(0.1) == UNDECIDED and Found(19, SURE).mark(0.1) == TOO_FEW
    assert Found(20, SURE).verdict(0.1) == ACTIVE and Found(20, SURE).mark(0.1) == ""


@pytest.mark.parametrize(
    ("prior", "standard", "expected"),
    [
        (0.0, 5.0, TO_PRIOR),
        (0.02, 0.01, TO_STANDARD),
        (0.01, 0.02, TO_PRIOR),
        (0.0, 0.0, TO_STANDARD),
        (5, 5, TO_ANOTHER),
    ],
)
def test_of_two_laws_the_nearer_is_named(prior: float, standard: float, expected: str) -> None:
    ones = np.ones(100)
    laws = {TO_PRIOR: prior * ones, TO_STANDARD: standard * ones, TO_ANOTHER: 0 * ones}
    assert Found(100, NOTHING, divergences=laws).verdict(0.1) == expected


def test_bottom_up_the_prior_is_near_where_its_bound_is() -> None:
    ones = np.ones(100)
    laws = {TO_STANDARD: 47 * ones, TO_ANOTHER: 0 * ones}
    assert Found(100, NOTHING, from_prior=np.array([0, 0.02, 0.04]), divergences=laws).verdict(0.1) == TO_PRIOR
    assert Found(100, NOTHING, from_prior=np.array([0, 1.1, 2.3]), divergences=laws).verdict(0.1) == TO_ANOTHER


@pytest.mark.parametrize(("from_parent", "word"), [(SURE, NOISE_ONLY), (PERHAPS, WEAK)])
def test_what_rests_on_a_small_mean_waits_for_more_images(from_parent: FloatArray, word: str) -> None:
    for n, said, mark in ((143, UNDECIDED, TOO_FEW), (144, word, "")):
        found = Found(n, NOTHING, from_parent, NOTHING, SURE, divergences={TO_ANOTHER: np.ones(n)})
        assert (found.verdict(0.1), found.mark(0.1)) == (said, mark)


@pytest.mark.parametrize(("moved", "word"), [(0, TO_PRIOR), (16, UNDECIDED), (100, WEAK), (512, WEAK)])
def test_a_layer_below_the_threshold_on_average_has_a_word_whatever_its_share(moved: int, word: str) -> None:
    """Of 512 images: only a share that may be 5 % itself leaves it open, and more images decide that."""
    terms = np.where(np.arange(512) < moved, 0.11, 0.01)
    found = Found(512, NOTHING, NOTHING, NOTHING, SURE, divergences={TO_PRIOR: terms})
    assert found.verdict(0.1) == word
