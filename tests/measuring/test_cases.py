"""Cases in which an earlier rule gave the wrong verdict, with the right answers, and neighbours of their kinds.

Linear-Gaussian stacks with weights set by hand (`tests.diagnostics.chains`): what is right follows from the weights.
"""

import math

import numpy as np
import pytest
import torch

from hvae.diagnosis.layer import Layer
from hvae.evidence import HVAE
from hvae.exact.linear_gaussian import LinearGaussian
from hvae.measuring import Sizes, measure_layers
from hvae.network import BeliefNetwork
from hvae.posterior import NetworkPosterior
from hvae.vocabulary import ACTIVE, COLLAPSED, TO_PRIOR, TO_STANDARD, TOO_FEW, UNDECIDED, UNREAD
from tests.diagnostics.chains import Stack, images, link, root

SIZES = Sizes(max_paths=128, n_pictures=0)


def layers(model: HVAE, n: int = 400, sizes: Sizes = SIZES, width: int = 1) -> dict[str, Layer]:
    x = images(2 * n, width=width)
    return {layer.name: layer for layer in measure_layers(model, x[:n], sizes, x[n:])}


def word(layer: Layer) -> str:
    return str(layer.verdict[0, 1])


@pytest.mark.parametrize("n_units", [1, 16])
def test_a_code_that_is_not_read_beside_noise_that_is(n_units: int) -> None:
    """z1 = (x + noise, noise), and the decoder reads the noise: U is 10 nats, nothing of the image comes back."""
    up = link([[1]] + [[0]] * n_units, [0.01] + [1.0] * n_units)
    down = link([[0] + [1 / math.sqrt(n_units)] * n_units], 0.1)
    z1 = layers(Stack([up], [root([1.0] * (n_units + 1)), down]).bottom_up())["z1"]
    assert z1.interval("reading_nats")[0, 0] > 5 and abs(z1.interval("used_nats")[0, 1]) < 0.05
    assert word(z1) == UNREAD


def test_a_code_that_the_layer_below_reads_for_noise_alone() -> None:
    """z2 = (copy of z1's code, z1's noise); p(z1 | z2) reads the noise, p(x | z1) the code."""
    stack = Stack(
        [link([[1], [0]], [0.01, 1.0]), link(np.eye(2), [0.1, 0.1])],
        [root([1.0, 1.0]), link([[0, 0], [0, 1]], [1.0, 0.1]), link([[1, 0]], 0.1)],
    )
    found = layers(stack.bottom_up())
    assert word(found["z1"]) == ACTIVE and word(found["z2"]) == UNREAD


@pytest.mark.parametrize(("n", "expected"), [(2, UNDECIDED), (3, UNDECIDED), (19, UNDECIDED), (71, UNDECIDED)])
def test_few_images_collapse_nothing(n: int, expected: str) -> None:
    """A dead layer on few images is marked, and J is never below I."""
    found = layers(Stack([link(1, 0.05), link(0, 1)], [root(1.0), link(1, 0.3), link(1, 0.1)]).bottom_up(), n=n)
    assert word(found["z2"]) == expected and found["z2"].marks == (TOO_FEW,)
    for layer in found.values():
        carried, about = (layer.interval(f"{key}_nats")[0] for key in ("parent_information", "information"))
        assert (carried >= about - 1e-12).all()


def test_codes_of_few_images_are_not_called_collapsed() -> None:
    """Mean 0.12 nats, borne by 8 % of the images: an interval of the mean would lie below 0.1 for many samples."""
    n_falsely = 0
    for seed in range(20):
        x = torch.tensor(np.where(np.random.default_rng(seed).random((100, 1)) < 0.08, 1.75, 0.0))
        model = Stack([link(1, 1.0)], [root(1.0), link(0.3, 0.1)]).bottom_up()
        (z1,) = measure_layers(model, x, SIZES)
        n_falsely += word(z1) in COLLAPSED
    assert n_falsely <= 3  # at 2.5 % each the chance of 4 or more is 1e-3


def test_a_ladder_below_a_top_that_knows_every_image_is_active() -> None:
    """16 nats are busy below: "which of the n images?" has a lower end of 0 there, V has none."""
    up = [link(np.eye(8), 0.01), link(np.eye(8) * 3, 0.05)]
    down = [root([1.0] * 8), link(np.eye(8) * 0.3, [1.0] * 8), link(np.eye(8), 0.01)]
    z1 = layers(Stack(up, down).ladder(), n=128, width=8)["z1"]
    assert z1.interval("information_nats")[0, 0] < 0.5 and z1.interval("used_nats")[0, 0] > 1
    assert word(z1) == ACTIVE


def test_three_healthy_layers_of_which_two_have_no_rate() -> None:
    """The exact posterior of a chain, bottom-up: each layer holds 2.3 nats, rates of the lower two are about 0."""
    p = Stack([link(1, 1)] * 3, [root(1.0), link(1, 0.01), link(1, 0.01), link(1, 0.01)])
    decoder = p.decoder()
    exact = HVAE(decoder, LinearGaussian.of(decoder).exact_posterior("bottom-up"))
    x = images(400, scale=math.sqrt(1.03))
    found = {layer.name: layer for layer in measure_layers(exact, x[:200], SIZES, x[200:])}
    for name in ("z1", "z2"):
        rate, prior = found[name].interval("rate_nats")[0, 1], found[name].interval("kl_prior_nats")[0]
        assert abs(rate) < 0.2 and prior[0] > 1.5 and prior[2] < 3
    assert [word(found[name]) for name in ("z1", "z2", "z3")] == [ACTIVE] * 3


def test_bottom_up_a_layer_that_follows_the_marginal_of_the_decoder_has_collapsed_to_its_prior() -> None:
    """q(z2 | z1) = N(0, 100) is the decoder's p(z2); z3 codes the noise of z2, so rate_2 is negative."""
    up = [link(1, 0.05), link(0, 100.0), link(0.0999, 0.01)]
    down = [root(1.0), link(9.95, 1.0), link(0.1, 0.3), link(1, 0.1)]
    found = layers(Stack(up, down).bottom_up())
    z2 = found["z2"]
    assert z2.interval("rate_nats")[0, 1] < -1 and z2.interval("kl_standard_nats")[0, 1] > 40
    assert word(z2) == TO_PRIOR and z2.interval("kl_prior_nats")[0, 2] < 0.1


def test_the_words_of_a_dead_top() -> None:
    """A top with a learned prior N(3, 0.01) that q follows is at its prior; one at N(0, I) is called that."""
    for variance, mean, expected in ((0.01, 3.0, TO_PRIOR), (1.0, 0.0, TO_STANDARD)):
        up = [link(1, 0.05), link(0, variance, mean)]
        model = Stack(up, [root(variance, mean), link(0, 1), link(1, 0.1)]).bottom_up()
        assert word(layers(model)["z2"]) == expected


def test_a_law_that_x_does_not_move_but_that_helps_is_no_use() -> None:
    """q(z1 | z2) = N(z2, .01) for every x, p(z1 | z2) = N(z2, 1): V against the prior is 1.4, against images 0."""
    q = BeliefNetwork([link(1, 0.1).conditional("z2", ["x"]), link(1, 0.01).conditional("z1", ["z2"])])
    model = HVAE(Stack([link(1, 1)] * 2, [root(1.0), link(1, 1.0), link(1, 0.05)]).decoder(), NetworkPosterior(q))
    z1 = layers(model)["z1"]
    assert abs(z1.interval("used_nats")[0, 1]) < 0.05 and word(z1) != ACTIVE
    assert z1.interval("kl_prior_nats")[0, 0] > 1
