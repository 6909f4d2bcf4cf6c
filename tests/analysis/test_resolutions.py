"""Layers of several resolutions: their order, their counts, their sums, and what L^{>l} loses."""

from types import SimpleNamespace
from typing import Any

import numpy as np

from hvae.analysis.figures.above import ABOVE, lost
from hvae.analysis.sections import resolutions as section
from hvae.analysis.tables.verdict import BY_PLACE, overview_within


def layer(name: str, place: str, words: tuple[str, str], rate: float, above: float) -> Any:
    values = {"rate_nats": np.array([rate, rate + 1.0]), ABOVE: np.array([above, above])}
    verdict = np.array([[words[0]], [words[1]]])
    return SimpleNamespace(
        name=name, place=place, verdict=verdict, interval=lambda key: np.stack([values[key]] * 3, axis=1)
    )


def study() -> Any:
    layers = (
        layer("z1", "16x16", ("active", "active"), 5.0, -10.0),
        layer("z2", "8x8", ("active", "failed"), 1.0, -12.0),
        layer("z3", "8x8", ("collapsed to its prior", "failed"), 2.0, -15.0),
    )
    run = SimpleNamespace(label="deep", layers=layers, evaluated=True, epsilon_index=0, seeds=(0, 1))
    flat = SimpleNamespace(label="flat", layers=layers[:1], evaluated=True, epsilon_index=0, seeds=(0, 1))
    return SimpleNamespace(runs=[run, flat])


def test_the_coarsest_resolution_stands_first_by_number_not_by_letter() -> None:
    assert section.resolutions(study().runs) == ["8x8", "16x16"]


def test_layers_are_counted_over_seeds_that_did_not_fail_and_rates_are_summed() -> None:
    active, collapsed, rates = section.tables(study()).values()
    assert [[cell.text for cell in row] for row in active.rows] == [["deep", "1 of 2", "2 of 2"]]
    assert [[cell.text for cell in row] for row in collapsed.rows] == [["deep", "1 of 2", "0 of 2"]]
    assert rates.rows[0][1].text.startswith("4.0 [") and rates.rows[0][2].text.startswith("5.5 [")


def test_every_layer_and_seed_has_a_row() -> None:
    lines = section.csv(study())["resolutions.csv"].splitlines()
    assert len(lines) == 1 + 3 * 2 and lines[3].startswith("deep,z2,8x8,0,active,1,")


def test_what_is_lost_is_counted_from_the_bound_without_z1() -> None:
    assert lost(study().runs[0]).tolist() == [[0.0, 2.0, 5.0]] * 2


def tall(n_layers: int, place: str) -> Any:
    """A run of which the lower half of the layers stands at 16x16, or all where there is no place."""
    half = n_layers // 2
    words = [("active", "collapsed to its prior")] * half + [("active", "active")] * (n_layers - half)
    layers = tuple(
        layer(f"z{n + 1}", place and ("16x16" if n < half else place), words[n], 1.0, 0.0) for n in range(n_layers)
    )
    return SimpleNamespace(
        label=f"{n_layers} layers", title=f"{n_layers} layers", layers=layers, depth=n_layers, evaluated=True,
        epsilon_index=0, seeds=(0, 1), likelihood=None, gained_nats=np.zeros(0),
    )  # fmt: skip


def test_a_stack_that_has_no_room_is_counted_by_resolution() -> None:
    table, level = overview_within([tall(24, "1x1"), tall(4, "8x8"), tall(1, "")], 80)
    assert level == BY_PLACE and table.width <= 80
    assert [column.name for column in table.columns] == ["run", "1x1", "8x8", "16x16", "dense"]
    assert [[cell.text for cell in row] for row in table.rows] == [
        ["24 layers", "A24", "", "A12 C12", ""],
        ["4 layers", "", "A4", "A2 C2", ""],
        ["1 layers", "", "", "", "A2"],
    ]
    table, level = overview_within([tall(4, "8x8")], 80)
    assert level < BY_PLACE and [column.name for column in table.columns] == ["run", "z1", "z2", "z3", "z4"]
    table, level = overview_within([tall(24, "")], 80)  # of one resolution: each layer stays
    assert level < BY_PLACE and len(table.columns) == 25
