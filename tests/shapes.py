"""A pytest plugin, `-p tests.shapes`: every annotated shape of the instrument is checked at every call.

`hvae.shapes` writes shapes as ``Annotated[Tensor, "#K #B _D"]``, which says nothing at run time. Before any module of
the rooms is imported, `check` puts jaxtyping's types in their place, and its import hook has beartype ask them. An axis
has one length within one call, or 1. Inside `vmap` shapes are those of one replica, as annotated.
"""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, get_args, get_origin

import pytest
from torch import Tensor

INSTRUMENT = Path(__file__).parents[1] / "hvae"
BY_ROWS = "families"
"""where the first axes are the caller's: ``[..., D]`` in place of ``[K, B, D]``"""
ROOMS = (
    "rng", "network", "posterior", "evidence", "topdown", "gradients", "objectives", "exact", "likelihood",
    "diagnostics",
)  # fmt: skip
EXEMPT = {
    "hvae.gradients": "`mean` and its kin also take terms per unit",
    "hvae.exact.quadrature": "`Quadrature._observed` is without the axis K",
    "hvae.diagnostics.collapse": "`twins` are without the axis K",
}
"""modules whose annotations say something else than what is there"""


def modules(room: str) -> Iterator[str]:
    """Those of a room that are checked."""
    place = INSTRUMENT / room
    files = sorted(place.rglob("*.py")) if place.is_dir() else [place.with_suffix(".py")]
    for file in files:
        name = ".".join(("hvae", *file.relative_to(INSTRUMENT).with_suffix("").parts))
        if file.name != "__init__.py" and name not in EXEMPT:
            yield name


def check() -> None:
    """From here on, for what is not imported yet. Raises RuntimeError where a module of the rooms is."""
    early = [name for name in sys.modules if name.startswith(tuple(f"hvae.{room}" for room in (BY_ROWS, *ROOMS)))]
    if early:
        raise RuntimeError(f"{early[0]} was imported before its shapes could be checked.")
    from jaxtyping import Float, install_import_hook

    from hvae import shapes

    axes = {name: get_args(alias)[1] for name, alias in vars(shapes).items() if get_origin(alias) is Annotated}
    for rooms, first in (((BY_ROWS,), "*#rows"), (ROOMS, "#K #B")):
        for name, written in axes.items():
            setattr(shapes, name, Float[Tensor, written.replace("#K #B", first)])
        install_import_hook([module for room in rooms for module in modules(room)], "beartype.beartype")
        for room in rooms:
            importlib.import_module(f"hvae.{room}")


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests() -> None:
    check()
