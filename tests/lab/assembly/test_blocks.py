"""From settings to a residual stack: the one that Python makes, a start at the data's mean, data that do not fit."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hvae import Bernoulli, BlockStyle, DiagonalGaussian, ResidualDecoder, ResidualPosterior, rng
from hvae.data import Dataset
from hvae.errors import ConfigError
from hvae.lab.assembly import build_hvae, latent_names
from hvae.lab.config import BlocksConfig, ModelConfig
from hvae.lab.config.blocks import BlockMerge
from hvae.nets import LogCounts
from hvae.posterior import Merge, alone, shared
from hvae.rng import generator
from hvae.topdown import Body

TEXT = "1x1,2m1,4m2"


def images(shape: tuple[int, ...] = (4, 4), kind: str = "binary", n: int = 40) -> Dataset:
    """Colours differ in their means."""
    source = torch.Generator().manual_seed(0)
    train = torch.rand(n, int(np.prod(shape)), generator=source)
    if 3 in shape:
        levels = torch.tensor([0.2, 0.5, 0.9])
        by_pixel = levels[:, None, None] if shape[0] == 3 else levels
        train = train * by_pixel.expand(shape).flatten()
    if kind == "binary":
        train = (train > 0.15).float()
    if kind == "counts":
        train = (9 * train).round()
    return Dataset("toy", train, train[:9], shape, kind, False)  # type: ignore[arg-type]


def model(data: Dataset, observation: str = "bernoulli", variance: str = "learned", **blocks: Any) -> Any:
    config = ModelConfig(
        blocks=BlocksConfig(**{"decoder": TEXT, "width": 8, "channels": 2} | blocks),
        observation=observation, observation_variance=variance,  # type: ignore[arg-type]
    )  # fmt: skip
    made = build_hvae(config, data, seed=3)
    assert latent_names(config) == made.latents and config.units == tuple(
        made.decoder.family(name).units for name in made.latents
    )
    assert config.widths == tuple(made.decoder.family(name).width for name in made.latents)
    return made


MERGES: dict[BlockMerge, tuple[Merge, Merge]] = {
    "alone": (alone, alone), "ladder": (shared, alone), "shared": (shared, shared)
}  # fmt: skip


@pytest.mark.parametrize("merge", MERGES)
@pytest.mark.parametrize("skips", [True, False], ids=["skips", "no skips"])
@pytest.mark.parametrize("reads", [True, False], ids=["reads h", "x alone"])
def test_it_is_the_stack_that_python_makes(merge: BlockMerge, skips: bool, reads: bool) -> None:
    """Bit for bit, but for the bias that starts at the data's mean."""
    knobs: dict[str, Any] = {"skips": skips, "merge": merge, "reads_state": reads, "encoder": "4x2,4d2,2d2,1x1"}
    found = model(images(), bottleneck=0.5, widths=((1, 12),), **knobs)
    source, half = generator(3, "init"), Body(bottleneck=0.5)
    style = BlockStyle(8, 2, {1: 12}, half, half, half, half, skips=skips)
    decoder = ResidualDecoder((4, 4), TEXT, Bernoulli(16), style, source=source)
    below, top = MERGES[merge]
    posterior = ResidualPosterior(
        decoder, "4x2,4d2,2d2,1x1", source=source, merge=below, top=top, reads_state=reads
    )  # fmt: skip
    for mine, theirs in ((found.decoder, decoder), (found.posterior, posterior)):
        expected = theirs.state_dict()
        assert mine.state_dict().keys() == expected.keys()
        for name, weight in mine.state_dict().items():
            assert torch.equal(weight, expected[name]) == (name != "to_x.bias"), name
    assert found.posterior.merges == {"z3": top, "z2": below, "z1": below}
    assert found.decoder.style == style and found.posterior.reads_state == reads


def mean_of_x(found: Any) -> Tensor:
    """The outputs of the last convolution at a state of zeros: its bias at every pixel, as the family reads it."""
    decoder = found.decoder
    with torch.no_grad():
        outputs = decoder.fold(decoder.to_x(torch.zeros(1, 1, 8, *(2 * [decoder.pixels.rows]))))
        mean: Tensor = decoder.family("x").mean(decoder.family("x").distribution(outputs))
    return mean[0, 0]


COLOURS = [(4, 4), (3, 4, 4), (4, 4, 3)]


@pytest.mark.parametrize("shape", COLOURS, ids=str)
@pytest.mark.parametrize(
    ("observation", "kind", "variance"),
    [("bernoulli", "binary", "learned"), ("gaussian", "grey", "learned"), ("gaussian", "grey", "network"),
     ("poisson", "counts", "learned"), ("negative-binomial", "counts", "network")],
)  # fmt: skip
def test_the_bias_of_x_starts_at_the_mean_of_each_colour(
    shape: tuple[int, ...], observation: str, kind: str, variance: str
) -> None:
    data = images(shape, kind)
    found = mean_of_x(model(data, observation, variance)).reshape(shape).double().numpy()
    x = data.train.reshape(-1, *shape).double().numpy()
    axes = (0, 1, 2) if len(shape) == 2 else (0, 2, 3) if shape[0] == 3 else (0, 1, 2)
    expected = x.mean(axes, keepdims=True)[0] + (0.5 / len(x) if kind == "counts" else 0)
    np.testing.assert_allclose(found, np.broadcast_to(expected, shape), rtol=1e-5)


def test_levels_start_at_their_mean_too() -> None:
    data = images((4, 4), "grey")
    levels = Dataset("toy", (data.train * 16).round() / 16, (data.test * 16).round() / 16, (4, 4), "grey", False)
    config = ModelConfig(blocks=BlocksConfig(TEXT), observation="discretised-logistic", n_levels=17)
    found = build_hvae(config, levels, seed=0)
    assert isinstance(found.decoder, ResidualDecoder)
    torch.testing.assert_close(found.decoder.to_x.bias, levels.train.mean().reshape(1))


def test_nets_see_the_logarithm_of_counts() -> None:
    found = model(images(kind="counts"), "poisson")
    assert isinstance(found.posterior.upward.entry, LogCounts)
    assert isinstance(model(images()).posterior.upward.entry, nn.Identity)


def test_a_shared_variance_and_a_fixed_one() -> None:
    for variance, n in (("shared", 1), ("fixed", 16)):
        family = model(images(kind="grey"), "gaussian", variance).decoder.family("x")
        assert isinstance(family, DiagonalGaussian) and family.log_variance.shape == (n,)


def test_seeds_differ_and_a_seed_is_itself() -> None:
    config, data = ModelConfig(blocks=BlocksConfig(TEXT)), images()
    one, same, other = (build_hvae(config, data, seed=seed) for seed in (1, 1, 2))
    noise = rng.noise(one.noise_specs(), 1, 5, seed=0, purpose="test")
    bounds = [made(data.train[None, :5], noise).log_weight for made in (one, same, other)]
    assert torch.equal(bounds[0], bounds[1]) and not torch.allclose(bounds[0], bounds[2])


UNFIT: dict[str, tuple[Dataset, str, str]] = {
    "a table": (images((16,)), TEXT, "model.blocks are for images, but toy holds rows of 16 numbers; leave"),
    "films": (images((2, 4, 4)), TEXT, "model.blocks are for images, but toy holds rows of 32 numbers"),
    "no squares": (images((4, 6)), TEXT, "model.blocks are for square images, but those of toy have 4 x 6 pixels; pad"),
    "too small": (
        images(),
        "1x1,8m1",
        "the image of 4 rows is too small for resolution 8; end",
    ),
    "too large": (images((8, 8)), TEXT, "it ends at resolution 4; end at the 8 rows of the image."),
    "no divisor": (images((6, 6)), TEXT, "resolution 4 does not divide the 6 rows of the image."),
    "grey values": (images(kind="grey"), TEXT, "model.observation is bernoulli, but toy holds grey values"),
    "colours": (images((3, 4, 4), "grey"), TEXT, "model.observation is bernoulli, but toy holds grey values"),
    "counts": (images(kind="counts"), TEXT, "toy holds whole numbers"),
}


@pytest.mark.parametrize(("data", "blocks", "words"), UNFIT.values(), ids=UNFIT)
def test_data_that_do_not_fit_are_one_sentence(data: Dataset, blocks: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build_hvae(ModelConfig(blocks=BlocksConfig(blocks)), data, seed=0)
    said = str(caught.value)
    assert words in said and "\n" not in said and said.endswith(".") and len(said) < 350


def test_an_encoder_that_stays_above_is_refused() -> None:
    config = ModelConfig(blocks=BlocksConfig(TEXT, encoder="4x1,4d2"))
    with pytest.raises(ConfigError, match="do not reach resolution 1, where z3 is; take them down to it"):
        build_hvae(config, images(), seed=0)
