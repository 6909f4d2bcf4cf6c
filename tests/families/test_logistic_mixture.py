"""Pixels as mixtures of logistic distributions: against sums over all pixels, high precision, and loops by hand."""

import itertools
import math

import mpmath
import pytest
import torch
from torch import Tensor
from torch.func import grad, vmap

from hvae import ConfigError
from hvae.families import DiscretisedLogisticMixture
from hvae.numerics import clipped_logistic_mean, logistic_bin
from tests.statistics import assert_mean

EXACT = {"atol": 1e-10, "rtol": 1e-10}
SHAPES = {"grey": (2, 3), "colours first": (3, 2, 2), "colours last": (2, 2, 3)}
each_shape = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)


def levels(n: int) -> Tensor:
    return torch.arange(n, dtype=torch.float64) / (n - 1)


def outputs_for(family: DiscretisedLogisticMixture, *shape: int, seed: int = 0, spread: float = 1.0) -> Tensor:
    source = torch.Generator().manual_seed(seed)
    return spread * torch.randn(*shape, family.n_outputs, generator=source, dtype=torch.float64)


def images_for(family: DiscretisedLogisticMixture, *shape: int) -> Tensor:
    source = torch.Generator().manual_seed(5)
    return torch.randint(family.n_levels, (*shape, family.width), generator=source).double() / (family.n_levels - 1)


def bin_by_hand(mean: mpmath.mpf, log_scale: float, level: int, n_levels: int) -> mpmath.mpf:
    """P(level), from the nearer tail."""
    scale, v = mpmath.exp(log_scale), mpmath.mpf(2 * level) / (n_levels - 1) - 1
    half, side = mpmath.mpf(1) / (n_levels - 1), -1 if v > mean else 1

    def tail(edge: mpmath.mpf) -> mpmath.mpf:
        return 1 / (1 + mpmath.exp(-side * (edge - mean) / scale))

    below, above = (0, 1) if side == 1 else (1, 0)
    low = below if level == 0 else tail(v - half)
    high = above if level == n_levels - 1 else tail(v + half)
    return abs(high - low)


def pixel_by_hand(numbers: list[float], colours: list[int], n_components: int, n_levels: int) -> float:
    """log P of one pixel of these levels: its numbers are K logits, then for each colour K means, K log-scales and, in
    colour, K couplings. Sixty digits."""
    k, n = n_components, len(colours)
    parts = 3 if n == 3 else 2
    with mpmath.workdps(60):
        v = [mpmath.mpf(2 * level) / (n_levels - 1) - 1 for level in colours]
        total, shares = mpmath.mpf(0), mpmath.fsum(mpmath.exp(logit) for logit in numbers[:k])
        for component in range(k):

            def number(colour: int, part: int, component: int = component) -> mpmath.mpf:
                return mpmath.mpf(numbers[k + (colour * parts + part) * k + component])

            means = [number(colour, 0) for colour in range(n)]
            if n == 3:
                a, b, c = (mpmath.tanh(number(colour, 2)) for colour in range(3))
                means[1] += a * v[0]
                means[2] += b * v[0] + c * v[1]
            product = mpmath.exp(numbers[component]) / shares
            for colour, mean in enumerate(means):
                log_scale = min(max(float(number(colour, 1)), -7.0), 10.0)
                product *= bin_by_hand(mean, log_scale, colours[colour], n_levels)
            total += product
        return float(mpmath.log(total))


def pixels_of(flat: Tensor, shape: tuple[int, ...]) -> Tensor:
    """``[D]`` as one row of colours for each pixel, by the shape alone."""
    image = flat.reshape(shape)
    if len(shape) == 2:
        return image.reshape(-1, 1)
    return image.reshape(-1, 3) if shape[2] == 3 else image.reshape(3, -1).T


@pytest.mark.parametrize(("shape", "n_levels"), [((1, 1), 256), ((3, 1, 1), 9), ((1, 1, 3), 9)])
def test_probabilities_of_all_pixels_sum_to_one(shape: tuple[int, ...], n_levels: int) -> None:
    family = DiscretisedLogisticMixture(shape, n_components=3, n_levels=n_levels).double()
    every = torch.tensor(list(itertools.product(levels(n_levels).tolist(), repeat=family.width)), dtype=torch.float64)
    for seed in range(3):
        distribution = family.distribution(outputs_for(family, seed=seed))
        total = family.log_prob(distribution, every).exp().sum()
        torch.testing.assert_close(total, torch.ones_like(total), **EXACT)


def test_colours_of_8_bits_sum_to_one_one_after_another() -> None:
    """All 2^24 pixels are too many: for a red level, P(r) is the sum over 256 x 256 greens and blues; a row of them."""
    family = DiscretisedLogisticMixture((3, 1, 1), n_components=2).double()
    distribution = family.distribution(outputs_for(family, seed=1))
    grey = DiscretisedLogisticMixture((1, 1), n_components=2).double()
    first = outputs_for(family, seed=1)[:6]  # logits, means and log-scales of red
    rest = torch.cartesian_prod(levels(256), levels(256))
    for level in (0, 100, 255):
        red = levels(256)[level].expand(len(rest), 1)
        found = family.log_prob(distribution, torch.cat([red, rest], dim=-1)).logsumexp(0)
        expected = grey.log_prob(grey.distribution(first), levels(256)[level : level + 1])
        torch.testing.assert_close(found, expected, **EXACT)


@each_shape
@pytest.mark.parametrize("n_components", [1, 3])
def test_log_probabilities_equal_a_loop_of_high_precision(shape: tuple[int, ...], n_components: int) -> None:
    """And so the layout of the outputs: planes of all pixels, whatever the order of colours in a value."""
    family = DiscretisedLogisticMixture(shape, n_components=n_components).double()
    outputs, x = outputs_for(family, 2, spread=2.0), images_for(family, 2)
    x[0, 0], x[1, -1] = 0.0, 1.0
    found = family.log_prob(family.distribution(outputs), x)
    for row in range(2):
        numbers, pixels = outputs[row].reshape(-1, family.n_pixels).T.tolist(), pixels_of(x[row], shape)
        expected = math.fsum(
            pixel_by_hand(its, [round(v * 255) for v in colours.tolist()], n_components, 256)
            for its, colours in zip(numbers, pixels, strict=True)
        )
        assert found[row].item() == pytest.approx(expected, abs=1e-10, rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("mean", [-1e3, -1.0, 0.2, 1e3])
@pytest.mark.parametrize("log_scale", [-1e4, -7.0, 3.0, 1e4])
@pytest.mark.parametrize("logit", [0.0, 1e4])
def test_extremes_are_finite_with_finite_gradients(
    mean: float, log_scale: float, logit: float, dtype: torch.dtype
) -> None:
    family = DiscretisedLogisticMixture((3, 1, 1), n_components=2)
    numbers = [logit, 0.0] + [mean, -mean, log_scale, log_scale, 1e4, -1e4] * 3
    for colours in ([0, 0, 0], [255, 255, 255], [0, 128, 255], [255, 1, 254]):
        outputs = torch.tensor(numbers, dtype=dtype, requires_grad=True)
        distribution = family.distribution(outputs)
        found = family.log_prob(distribution, torch.tensor(colours, dtype=dtype) / 255)
        (slope,) = torch.autograd.grad(found + family.mean(distribution).sum(), outputs)
        assert slope.isfinite().all()
        expected = pixel_by_hand(numbers, colours, 2, 256)
        scales_away = 1 + (abs(mean) + 3) * math.exp(-min(max(log_scale, -7.0), 10.0))
        error = 64 * torch.finfo(dtype).eps * scales_away
        assert found.item() == pytest.approx(expected, rel=1e-5, abs=error)


@each_shape
def test_draws_are_the_quantiles_of_the_chosen_component(shape: tuple[int, ...]) -> None:
    """Against a loop over pixels: the component by the running sum of shares, then levels by their running sums."""
    family = DiscretisedLogisticMixture(shape, n_components=3, n_levels=9).double()
    outputs = outputs_for(family)
    noise = torch.rand(40, family.noise_width, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    drawn = family.draw(family.distribution(outputs), noise)
    numbers, grid = outputs.reshape(-1, family.n_pixels).T, levels(9)
    n, parts = family.pixels.channels, 3 if family.pixels.channels == 3 else 2
    for row in range(40):
        uniform = noise[row].reshape(1 + n, family.n_pixels)
        for pixel, colours in enumerate(pixels_of(drawn[row], shape)):
            shares = torch.softmax(numbers[pixel][:3], 0).cumsum(0)
            component = int((uniform[0, pixel] >= shares[:-1]).sum())
            its = numbers[pixel][3:].reshape(n, parts, 3)[:, :, component]
            v: list[float] = []
            for colour in range(n):
                mean = its[colour, 0].item()
                if n == 3:
                    a, b, c = (math.tanh(its[at, 2].item()) for at in range(3))
                    mean += (0.0, a * v[0] if v else 0.0, b * v[0] + c * v[1] if colour == 2 else 0.0)[colour]
                chances = [float(bin_by_hand(mpmath.mpf(mean), its[colour, 1].item(), at, 9)) for at in range(9)]
                level = sum(total < uniform[1 + colour, pixel].item() for total in itertools.accumulate(chances))
                assert colours[colour].item() == pytest.approx(grid[min(level, 8)].item(), abs=1e-12)
                v.append(2 * colours[colour].item() - 1)


@each_shape
def test_draws_fall_with_their_probabilities(shape: tuple[int, ...]) -> None:
    """Whole pixels at three levels, 3 or 27 of them; `assert_mean` says its false alarms and the error that it sees."""
    family = DiscretisedLogisticMixture(shape, n_components=2, n_levels=3).double()
    distribution = family.distribution(outputs_for(family, seed=2))
    noise = torch.rand(20_000, family.noise_width, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    drawn = torch.stack([pixels_of(row, shape)[0] for row in family.draw(distribution, noise)])
    every = torch.tensor(list(itertools.product([0.0, 0.5, 1.0], repeat=family.pixels.channels)), dtype=torch.float64)
    numbers = outputs_for(family, seed=2).reshape(-1, family.n_pixels)[:, 0].tolist()
    expected = [math.exp(pixel_by_hand(numbers, (2 * row).int().tolist(), 2, 3)) for row in every]
    hits = (drawn.unsqueeze(1) == every).all(-1)
    assert_mean(hits, torch.tensor(expected, dtype=torch.float64), detect=0.04)


def test_noise_at_its_ends_gives_values() -> None:
    family = DiscretisedLogisticMixture((3, 1, 1))
    for noise in (torch.zeros(4), torch.ones(4)):
        drawn = family.draw(family.distribution(torch.zeros(family.n_outputs)), noise)
        assert drawn.tolist() == [noise[0].item()] * 3


def test_the_mean_is_that_of_numbers_before_they_are_rounded() -> None:
    """Grey in closed form, against quadrature; colours exact where nothing is cut off, and within 0.02 elsewhere."""
    grey = DiscretisedLogisticMixture((1, 1), n_components=2).double()
    numbers = torch.tensor([0.3, -0.4, -0.9, 0.6, -1.0, 0.5], dtype=torch.float64)
    shares = torch.softmax(numbers[:2], 0).tolist()

    def above(t: float, k: int) -> float:
        return 1 / (1 + mpmath.exp(-(numbers[2 + k].item() - t) / mpmath.exp(numbers[4 + k].item())))

    expected = math.fsum(shares[k] * float(mpmath.quad(lambda t, k=k: above(t, k), [-1, 1])) / 2 for k in range(2))
    assert grey.mean(grey.distribution(numbers)).item() == pytest.approx(expected, abs=1e-10)

    family = DiscretisedLogisticMixture((3, 1, 1), n_components=1).double()
    inner = torch.tensor([0.0, 0.1, -6.0, 0.3, -0.2, -6.0, -0.4, 0.05, -6.0, 0.8], dtype=torch.float64)
    a, b, c = (math.tanh(number) for number in (0.3, -0.4, 0.8))
    red, green = 0.1, -0.2 + a * 0.1
    linear = torch.tensor([red, green, 0.05 + b * red + c * green], dtype=torch.float64)
    torch.testing.assert_close(family.mean(family.distribution(inner)), (linear + 1) / 2, atol=1e-10, rtol=0)

    family = DiscretisedLogisticMixture((3, 1, 1), n_components=3, n_levels=33).double()
    every = torch.cartesian_prod(*[levels(33)] * 3)
    for seed in range(4):
        distribution = family.distribution(outputs_for(family, seed=seed))
        summed = family.log_prob(distribution, every).exp() @ every
        torch.testing.assert_close(family.mean(distribution), summed, atol=0.02, rtol=0)


@each_shape
def test_it_starts_near_a_mean_with_components_apart(shape: tuple[int, ...]) -> None:
    family = DiscretisedLogisticMixture(shape).double()
    mean = torch.linspace(0.4, 0.6, family.width, dtype=torch.float64)
    distribution = family.distribution(family.outputs_at(mean))
    torch.testing.assert_close(family.mean(distribution), mean, atol=0.03, rtol=0)
    assert (distribution.means.diff(dim=-2) > 0.05).all()  # type: ignore[attr-defined]
    torch.testing.assert_close(family.standard_outputs().double(), family.outputs_at(torch.full_like(mean, 0.5)))


@each_shape
def test_gradients_and_vmap(shape: tuple[int, ...]) -> None:
    family = DiscretisedLogisticMixture(shape, n_components=2, n_levels=9).double()
    outputs, value = outputs_for(family, 3), images_for(family, 1)[0]

    def score(outputs: Tensor) -> Tensor:
        distribution = family.distribution(outputs)
        return family.log_prob(distribution, value) + family.mean(distribution).sum(-1)

    found = vmap(grad(score), randomness="error")(outputs)
    torch.testing.assert_close(found, torch.stack([grad(score)(row) for row in outputs]), **EXACT)
    assert torch.autograd.gradcheck(score, (outputs.requires_grad_(),), eps=1e-6, atol=1e-6)


@pytest.mark.parametrize("mean", [-1e4, -3.0, 0.0, 0.7, 40.0])
@pytest.mark.parametrize("log_scale", [-7.0, 0.0, 6.0])
def test_the_numerics_against_high_precision(mean: float, log_scale: float) -> None:
    m, s = torch.tensor(mean, dtype=torch.float64), torch.tensor(log_scale, dtype=torch.float64).exp()
    with mpmath.workdps(60):
        scale = mpmath.mpf(s.item())
        soft = [mpmath.log1p(mpmath.exp((mpmath.mpf(mean) + end) / scale)) for end in (1, -1)]
        assert clipped_logistic_mean(m, s).item() == pytest.approx(float(scale * (soft[0] - soft[1]) - 1), abs=1e-10)
        below, above = mpmath.mpf(mean) / scale, (mpmath.mpf(mean) + 1) / scale
        side = -1 if mean > 0 else 1
        inner = mpmath.log(abs(1 / (1 + mpmath.exp(-side * above)) - 1 / (1 + mpmath.exp(-side * below))))
    no, yes = torch.tensor(False), torch.tensor(True)
    found = logistic_bin(m / s, (m + 1) / s, 1 / s, no, no).item()
    assert found == pytest.approx(float(inner), rel=1e-12, abs=1e-10)
    assert logistic_bin(m / s, (m + 1) / s, 1 / s, yes, no).item() == pytest.approx(
        float(-mpmath.log1p(mpmath.exp(-above))), rel=1e-12, abs=1e-10
    )
    assert logistic_bin(m / s, (m + 1) / s, 1 / s, no, yes).item() == pytest.approx(
        float(-mpmath.log1p(mpmath.exp(below))), rel=1e-12, abs=1e-10
    )


@pytest.mark.parametrize(
    ("shape", "named", "why"),
    [
        ((20,), {}, r"image_shape is \(20,\), but a mixture of logistics is for images; give \(rows, columns\)"),
        ((4, 8, 8), {}, r"image_shape is \(4, 8, 8\)"),
        ((8, 8), {"n_components": 0}, "n_components is 0; a mixture has at least 1"),
        ((8, 8), {"n_levels": 1}, "n_levels is 1; images have at least 2, and 256 in 8 bits"),
    ],
)
def test_what_makes_no_mixture_is_refused(shape: tuple[int, ...], named: dict[str, int], why: str) -> None:
    with pytest.raises(ConfigError, match=why) as refusal:
        DiscretisedLogisticMixture(shape, **named)
    assert "\n" not in str(refusal.value)


def test_what_it_cannot_do_is_refused() -> None:
    family = DiscretisedLogisticMixture((3, 2, 2))
    distribution = family.distribution(torch.zeros(family.n_outputs))
    for ask in (
        lambda: family.natural(distribution),
        lambda: family.statistic(torch.zeros(12)),
        lambda: family.standard(torch.zeros(12)),
        lambda: family.unit_log_prob(distribution, torch.zeros(12)),
    ):
        with pytest.raises(TypeError, match="DiscretisedLogistic"):
            ask()
