"""Colour images in levels under a residual stack: both orders of colours are one model, and what does not fit."""

import pytest
import torch

from hvae import BlockStyle, ConfigError, DiagonalGaussian, DiscretisedLogisticMixture, Family, ResidualDecoder, rng

STYLE = BlockStyle(width=8, channels=2)
FIRST, LAST = (3, 4, 4), (4, 4, 3)


def decoder(shape: tuple[int, ...], family: Family) -> ResidualDecoder:
    source = torch.Generator().manual_seed(0)
    found = ResidualDecoder(shape, "1x1,4m1", family, STYLE, source=source).double()
    with torch.no_grad():
        for weight in found.parameters():
            weight += 0.3 * torch.randn(weight.shape, generator=source, dtype=torch.float64)
    return found


@pytest.mark.parametrize("n_components", [2, 3])
def test_colours_first_and_last_are_one_model(n_components: int) -> None:
    """Three components have 30 planes, a multiple of the colours, which must not be taken for ten images."""
    first, last = (
        decoder(shape, DiscretisedLogisticMixture(shape, n_components=n_components)) for shape in (FIRST, LAST)
    )
    noise = rng.noise(first.noise_specs(), 2, 5, seed=0, purpose="test", dtype=torch.float64)
    drawn, again = first.walk({}, noise), last.walk({}, noise)
    image = drawn["x"].value.unflatten(-1, FIRST).movedim(-3, -1).flatten(-3)
    torch.testing.assert_close(again["x"].value, image, rtol=0, atol=1e-12)
    torch.testing.assert_close(again["x"].log_prob, drawn["x"].log_prob, rtol=1e-10, atol=1e-10)
    mean = drawn["x"].mean.unflatten(-1, FIRST).movedim(-3, -1).flatten(-3)
    torch.testing.assert_close(again["x"].mean, mean, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ("image_shape", "family", "why"),
    [
        (
            FIRST,
            DiscretisedLogisticMixture((4, 4)),
            "x has 16 numbers, and an image of 4 x 4 pixels in 3 colours 48",
        ),
        (
            (4, 4),
            DiscretisedLogisticMixture(FIRST),
            "x has 48 numbers, and an image of 4 x 4 pixels in 1 colours 16",
        ),
        (FIRST, DiscretisedLogisticMixture(LAST), r"images of shape \(4, 4, 3\), and image_shape is \(3, 4, 4\); give"),
        (FIRST, DiagonalGaussian(16), "has 16 numbers, and an image of 4 x 4 pixels in 3 colours 48; give it as many"),
    ],
    ids=["colour data, grey mixture", "grey data, colour mixture", "another order", "grey Gaussian"],
)
def test_a_distribution_of_other_images_is_refused(image_shape: tuple[int, ...], family: Family, why: str) -> None:
    with pytest.raises(ConfigError, match=why) as refusal:
        ResidualDecoder(image_shape, "1x1,4m1", family, STYLE, source=torch.Generator())
    assert "\n" not in str(refusal.value) and str(refusal.value).endswith(".")
