"""R_l against closed forms: linear-Gaussian layers of which the decoder reads noise, content, or both."""

import numpy as np
import pytest
import torch
from numpy.typing import ArrayLike

from hvae.diagnostics import usage
from hvae.diagnostics.draws import Sampler
from hvae.diagnostics.redrawn import redrawn_information
from tests.diagnostics.chains import Array, Stack, images, link, root
from tests.statistics import assert_mean


def terms(up: ArrayLike, variance: ArrayLike, reads: ArrayLike, n: int = 400) -> tuple[Array, float]:
    """One layer z1 = (a, b): R_1, and U_1, of ``x ~ N(reads z1, 0.1)``."""
    stack = Stack([link(up, variance)], [root([1.0, 1.0]), link(reads, 0.1)])
    x = images(2 * n)
    sampler = Sampler(stack.bottom_up(), x[:n], 0)
    with torch.no_grad():
        evidence = sampler.evidence(8, "use")
        terms = redrawn_information(sampler, evidence, ["z1"], x[n:])
        return terms["z1"], float(usage.use(sampler, evidence)["z1"].mean())


def test_noise_that_is_read_brings_nothing_of_the_image_back() -> None:
    """a = x + noise is not read, b ~ N(0, 1) is: U = 10 nats, I(x; x~) = 0."""
    found, used = terms([[1], [0]], [0.01, 1.0], [[0, 1]])
    assert used > 5
    assert -0.02 < found.mean() < 0.1


@pytest.mark.parametrize("noise", [0.01, 1.0])
def test_an_upper_bound_that_is_near(noise: float) -> None:
    """x~ = a + N(0, 0.1), a = x + N(0, noise): 1/2 log (1 + 1 / (noise + 0.1)) for x of variance 1."""
    found, _ = terms([[1], [0]], [noise, 1.0], [[1, 0]], n=1700)
    right = np.log1p(1 / (noise + 0.1)) / 2
    assert_mean(found - right, 0.0, detect=0.25)
    assert found.mean() > right - 2 * found.std() / 1700**0.5


def test_top_down_what_the_layers_above_tell_is_no_news() -> None:
    """A ladder whose z1 follows z2 whatever x: nothing comes back beyond z2, though x~ tells of x."""
    stack = Stack([link([[0.0]], np.exp(19)), link([[0.0]], 0.1)], [root(1.0), link(1, 0.5), link(1, 0.1)])
    model = stack.ladder()
    with torch.no_grad():
        model.posterior.upward["z1"].net.weight[0, 0] = 1.0  # type: ignore[index, union-attr]
        model.posterior.upward["z2"].net.weight[0, 0] = 1.0  # type: ignore[index, union-attr]
    x = images(400)
    sampler = Sampler(model, x[:200], 0)
    with torch.no_grad():
        evidence = sampler.evidence(1, "use")
        terms = redrawn_information(sampler, evidence, ["z1", "z2"], x[200:])
        found = {name: values.mean() for name, values in terms.items()}
    assert -0.05 < found["z1"] < 0.1 < 0.3 < found["z2"]
