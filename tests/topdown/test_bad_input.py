"""The grammar of blocks, and what does not fit: one sentence before anything is built."""

from collections.abc import Callable
from typing import Any, get_args

import pytest
import torch

import hvae
from hvae import Bernoulli, BlockStyle, ConfigError, DiagonalGaussian, DiscretisedLogistic, Family, FullGaussian
from hvae.diagnosis.sizes import Budget
from hvae.grammar import Kind, Place, after
from hvae.measuring import door, further
from hvae.measuring.gap import OF_BLOCKS
from hvae.topdown import Body, ResidualDecoder, ResidualPosterior, mirrored, parse
from tests.topdown.stacks import stack

PUBLISHED = {
    "CIFAR-10": (
        "1x1,4m1,4x2,8m4,8x5,16m8,16x10,32m16,32x21", "32x11,32d2,16x6,16d2,8x6,8d2,4x3,4d4,1x3", 32, 43, 33,
    ),
    "ImageNet-32": (
        "1x2,4m1,4x4,8m4,8x9,16m8,16x19,32m16,32x40", "32x15,32d2,16x9,16d2,8x8,8d2,4x6,4d4,1x6", 32, 78, 48,
    ),
    "ImageNet-64": (
        "1x2,4m1,4x3,8m4,8x7,16m8,16x15,32m16,32x31,64m32,64x12",
        "64x11,64d2,32x20,32d2,16x9,16d2,8x8,8d2,4x7,4d4,1x5", 64, 75, 65,
    ),
}  # fmt: skip
"""lists of blocks of the public VDVAEs, the rows of their images, and how many blocks they are, counted by hand"""


@pytest.mark.parametrize(("decoder", "encoder", "side", "n_down", "n_up"), PUBLISHED.values(), ids=PUBLISHED)
def test_published_lists_are_read(decoder: str, encoder: str, side: int, n_down: int, n_up: int) -> None:
    down, up = parse("decoder", decoder, side), parse("encoder", encoder, side)
    assert (len(down), len(up)) == (n_down, n_up)
    assert [place for place in down if place.other] == [
        Place(below, above) for above, below in ((1, 4), (4, 8), (8, 16), (16, 32), (32, 64)) if below <= side
    ]
    assert after(up[-1]) == 1 and parse("decoder", decoder.replace(",", " , "), side) == down


def test_what_is_read() -> None:
    assert parse("decoder", "1,2m1,2x2", 2) == (Place(1), Place(2, 1), Place(2), Place(2))
    assert parse("encoder", "28d2,14x2,14d2,7,7d7", 28) == (
        Place(28, 2), Place(14), Place(14), Place(14, 2), Place(7), Place(7, 7),
    )  # fmt: skip


@pytest.mark.parametrize("blocks", ["1x1,2m1", "7x2,14m7,28m14,28x3", "4x1", "1x1,4m1,4x2,8m4,8x5"])
def test_the_mirrored_encoder_reaches_every_resolution_with_as_many_blocks(blocks: str) -> None:
    side = int(blocks.rpartition(",")[2].replace("m", "x").split("x")[0])
    down = parse("decoder", blocks, side)
    up = parse("encoder", mirrored(down), side)
    assert sorted(place.resolution for place in up) == sorted(place.resolution for place in down)
    assert {side, *map(after, up)} == {place.resolution for place in down}


TYPOS = ["", ",", "1x1,", "x2", "4y2", "4m", "4x0", "0x1", "-1x1", "1x1;4m1", "1.5x1", "4 x 1", "one", "1x1x1", "²x1"]
DECODERS = {
    "1x1,3m1,9m3": "resolution 3 does not divide the 8 rows",
    "1x1,16m1": "the image of 8 rows is too small for resolution 16",
    "1x1,4m1": "it ends at resolution 4; end at the 8 rows",
    "1x1,8x1": "nothing leads from resolution 1 to 8; write 8m1",
    "1x1,8m1,4x1": "resolution 4 stands after 8; write coarser blocks first",
    "4m1,8m4": "the first block takes over from 1, where nothing is yet",
    "1x1,4m2,8m4": "4m2 stands at resolution 1; take over from 1",
    "4x1,8m4,4m8,8m4": "4m8 stands at resolution 8",
    "1x1,8m1,8m8": "8m8 stands at resolution 8",
    "8d2,4x1": "'8d2' is no part of the grammar; write RxN, RmS or R",
}
ENCODERS = {
    "4x1": "resolution 4 stands where 8 is reached; begin at the image, and go down by 8dF",
    "8d2,8x1": "resolution 8 stands where 4 is reached",
    "8d3": "3 does not divide resolution 8",
    "8m4": "'8m4' is no part of the grammar; write RxN, RdF or R",
}
CASES: list[tuple[Kind, str, str]] = [
    *((kind, text, "is no part of the grammar; write RxN") for kind in get_args(Kind) for text in TYPOS),
    *(("decoder", text, why) for text, why in DECODERS.items()),
    *(("encoder", text, why) for text, why in ENCODERS.items()),
]


@pytest.mark.parametrize(("kind", "text", "why"), CASES, ids=[f"{kind} {text}" for kind, text, _ in CASES])
def test_a_list_that_does_not_fit_is_refused(kind: Kind, text: str, why: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        parse(kind, text, 8)
    assert_sentence(refusal, why)
    assert str(refusal.value).startswith(f"the {kind}'s blocks '{text}': ")


def decoder(
    shape: tuple[int, ...] = (8, 8), family: Callable[[], Family] = lambda: Bernoulli(64), **style: Any
) -> ResidualDecoder:
    return ResidualDecoder(
        shape, "1x1,8m1", family(), BlockStyle(**{"width": 6, "channels": 2} | style), source=torch.Generator()
    )


UNFIT: dict[str, tuple[Callable[[], object], str]] = {
    "no image": (lambda: decoder((64,)), r"image_shape is (64,); give a square image"),
    "no square": (lambda: decoder((8, 4), lambda: Bernoulli(32)), "image_shape is (8, 4); give a square image"),
    "a grey family for colours": (
        lambda: decoder((3, 8, 8)), "the Bernoulli of x has 64 numbers, and an image of 8 x 8 pixels in 3 colours 192"
    ),
    "a grey family of levels": (lambda: decoder((8, 8, 3), lambda: DiscretisedLogistic(64)), "in 3 colours 192"),
    "colours for a grey image": (lambda: decoder(family=lambda: DiagonalGaussian(192)), "in 1 colours 64"),
    "numbers that belong to no pixel": (
        lambda: decoder(family=lambda: FullGaussian(64)), "reads 2144 numbers, which the 64 pixels do not share equally"
    ),
    "more channels than the state": (
        lambda: decoder(channels=7), "a latent has 7 channels, and the state at resolution 1 has 6; give the"
    ),
    "at one resolution": (lambda: decoder(widths={8: 1}), "2 channels, and the state at resolution 8 has 1"),
    "no channels": (lambda: decoder(channels=0), "h has 6 channels and a latent 0; give both at least 1"),
    "no kernel": (lambda: Body(kernels=()), "a body has the kernels (); give odd numbers of rows, as (1, 3, 3, 1)"),
    "an even kernel": (lambda: Body(kernels=(3, 2)), "a body has the kernels (3, 2)"),
    "an even kernel of x": (lambda: decoder(out_kernel=2), "out_kernel is 2; give an odd number"),
    "no bottleneck": (lambda: Body(bottleneck=0.0), "bottleneck is 0.0; give a share of the width, more than 0"),
    "no width": (lambda: decoder(widths={8: 0}), "h has 0 channels at resolution 8"),
    "an encoder that stays above": (
        lambda: ResidualPosterior(decoder(), "8x1,8d2,4x1", source=torch.Generator()),
        "do not reach resolution 1, where z2 is; take them down to it, as in '8d8,1x1'",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("made", "why"), UNFIT.values(), ids=UNFIT)
def test_what_does_not_fit_together_is_refused(made: Callable[[], object], why: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        made()
    assert_sentence(refusal, why)


def assert_sentence(refusal: pytest.ExceptionInfo[ConfigError], why: str) -> None:
    said = str(refusal.value)
    assert why in said and "\n" not in said and said.endswith(".") and len(said) < 250, said


def test_the_gap_by_layer_is_refused_before_anything_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it is asked for with a diagnosis; and a replica has no such numbers."""
    model, x = stack(), torch.eye(64)[:30]
    monkeypatch.setattr(door, "measure", None)
    with pytest.raises(hvae.ConfigError, match="takes too long in a stack of blocks; take annealed bounds with a"):
        hvae.diagnose(model, x, further=["annealed", "gap"], progress=False)
    ((_, found),) = further(["gap"], [model], x, Budget(images=2), model.latents)
    assert found.refused == (" ".join(OF_BLOCKS.split()),)
