"""The block grammar of VDVAE (Child 2021): which blocks a top-down stack has, and at which resolutions.

Parts, separated by commas. A resolution is the number of rows of a square image, which has as many columns.

    decoder, from the coarsest resolution to the image      "1x1,4m1,4x2,8m4,8x5"
      RxN    N blocks at resolution R
      RmS    one block at R, which first takes over the state of resolution S
    encoder, from the image up                              "8x3,8d2,4x2,4d4,1x1"
      RxN    N blocks at resolution R
      RdF    one block at R, which then averages F x F pixels: R becomes R / F

A bare R is one block. Every block of a decoder is one latent layer.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from typing import Literal

from hvae.errors import ConfigError

Kind = Literal["decoder", "encoder"]
LETTER = {"decoder": "m", "encoder": "d"}
MOST = 1000
"""blocks of a stack"""
HOW = {
    "decoder": "write RxN, RmS or R, as in '1x1,4m1,4x2,8m4,8x5'",
    "encoder": "write RxN, RdF or R, as in '8x3,8d2,4x2,4d4,1x1'",
}


@dataclass(frozen=True)
class Place:
    """Where a block stands: ``other`` is S of "RmS" or F of "RdF", 0 for a block that stays at its resolution.

    >>> parse("decoder", "1x1,2m1", 2)
    (Place(resolution=1, other=0), Place(resolution=2, other=1))
    """

    resolution: int
    other: int = 0


def parse(kind: Kind, text: str, side: int | None = None) -> tuple[Place, ...]:
    """The blocks of a decoder or an encoder for images of ``side`` x ``side`` pixels, in the order of use.

    Without ``side`` the image has as many rows as the finest block. Raises `ConfigError`, one sentence, for a part that
    is not of the grammar, for a resolution that does not divide the image, and for blocks that are not connected.

    >>> parse("encoder", "4x1,4d2,2", 4)
    (Place(resolution=4, other=0), Place(resolution=4, other=2), Place(resolution=2, other=0))
    """
    parts = text.split(",")
    places = tuple(islice((place for part in parts for place in _places(kind, text, part.strip())), MOST + 1))
    if len(places) > MOST:
        raise _refusal(kind, text, f"these are more than {MOST} blocks; give at most {MOST}")
    side = max(place.resolution for place in places) if side is None else side
    for place in places:
        if place.resolution > side:
            raise _refusal(
                kind, text, f"the image of {side} rows is too small for resolution {place.resolution}; end at {side}"
            )
        if side % place.resolution:
            raise _refusal(kind, text, f"resolution {place.resolution} does not divide the {side} rows of the image")
    _check_decoder(places, text, side) if kind == "decoder" else _check_encoder(places, text, side)
    return places


def after(place: Place) -> int:
    """The resolution that a block of an encoder leaves behind.

    >>> after(Place(8, 2)), after(Place(8))
    (4, 8)
    """
    return place.resolution // (place.other or 1)


def mirrored(decoder: Sequence[Place]) -> str:
    """An encoder for a decoder, in the grammar: at every resolution as many blocks as the decoder has.

    >>> mirrored(parse("decoder", "1x1,4m1,4x2,8m4,8x1", 8))
    '8x1,8d2,4x2,4d4,1x1'
    """
    counts = [(resolution, len(list(of))) for resolution, of in groupby(place.resolution for place in decoder)][::-1]
    parts = []
    for (resolution, count), (below, _) in zip(counts, [*counts[1:], (0, 0)], strict=True):
        stay = count - bool(below)
        parts += [f"{resolution}x{stay}"] * bool(stay) + [f"{resolution}d{resolution // (below or 1)}"] * bool(below)
    return ",".join(parts)


def _places(kind: Kind, text: str, part: str) -> Iterator[Place]:
    found = re.fullmatch(rf"([1-9]\d{{0,4}})(?:([x{LETTER[kind]}])([1-9]\d{{0,14}}))?", part, flags=re.ASCII)
    if found is None:
        raise _refusal(kind, text, f"'{_shown(part)}' is no part of the grammar; {HOW[kind]}")
    resolution, letter, number = int(found[1]), found[2], int(found[3] or 1)
    if letter == "x" and number > MOST:
        raise _refusal(kind, text, f"'{part}' is {number} blocks; give at most {MOST}")
    yield from [Place(resolution, number)] if letter == LETTER[kind] else [Place(resolution)] * number


def _check_decoder(places: Sequence[Place], text: str, side: int) -> None:
    if places[0].other:
        raise _refusal("decoder", text, f"the first block takes over from {places[0].other}, where nothing is yet")
    at = places[0].resolution
    for place in places:
        if place.other and (place.other != at or place.resolution <= at or place.resolution % at):
            raise _refusal(
                "decoder", text, f"{place.resolution}m{place.other} stands at resolution {at}; take over from {at}, to "
                "a multiple of it",
            )  # fmt: skip
        if not place.other and place.resolution < at:
            raise _refusal(
                "decoder", text, f"resolution {place.resolution} stands after {at}; write coarser blocks first"
            )  # fmt: skip
        if not place.other and place.resolution != at:
            raise _refusal(
                "decoder", text, f"nothing leads from resolution {at} to {place.resolution}; write "
                f"{place.resolution}m{at} between them",
            )  # fmt: skip
        at = place.resolution
    if at != side:
        raise _refusal("decoder", text, f"it ends at resolution {at}; end at the {side} rows of the image")


def _check_encoder(places: Sequence[Place], text: str, side: int) -> None:
    at = side
    for place in places:
        if place.resolution != at:
            raise _refusal(
                "encoder", text, f"resolution {place.resolution} stands where {at} is reached; begin at the image, and "
                f"go down by {at}dF",
            )  # fmt: skip
        if place.resolution % (place.other or 1):
            raise _refusal("encoder", text, f"{place.other} does not divide resolution {place.resolution}")
        at = after(place)


def _refusal(kind: Kind, text: str, why: str) -> ConfigError:
    return ConfigError(f"the {kind}'s blocks '{_shown(text)}': {why}.")


def _shown(text: str) -> str:
    return text if len(text) <= 100 else f"{text[:99]}…"
