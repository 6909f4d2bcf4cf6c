"""Every figure of a page as a reader sees it: panels that are large enough, words apart, series that differ.

The studies are as large as they come: many arms with long names, many layers, many seeds, one row far from all others.
"""

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from hvae.analysis import style
from hvae.analysis.exhibits import GAP, LAYERS, Exhibit, exhibits
from hvae.analysis.figures.comparison import comparison
from hvae.analysis.figures.curves import curves
from hvae.analysis.figures.stack import DEEP, stack
from hvae.analysis.papers import Curves, Line
from hvae.analysis.study import Study, open_study
from hvae.experiments.conjecture import section as conjecture
from hvae.experiments.depth import configs
from hvae.experiments.orders import figures as orders
from hvae.experiments.orders import section as orders_section
from hvae.experiments.shared.consistency.figures import SHOWN, distances, samples
from hvae.experiments.truth import section as truth
from tests.analysis.committed import parts, rows
from tests.analysis.fabricate import fabricate, measure_further
from tests.analysis.measured_figures import defects

PAGE = (*LAYERS, *GAP)
N_ARMS, N_FURTHER, FAR = 26, 6, 4


def check(made: Figure | None) -> None:
    assert made is not None
    assert defects(made) == []


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """Two panels of many runs in both directions, six seeds each; one of them is 1400 nats better than its baseline."""
    root, demo, wanted = tmp_path_factory.mktemp("many"), configs("demo"), {}
    for arm in range(N_ARMS):
        config = demo["depth-3 ladder+WU" if arm % 5 == 4 else "depth-5 bottom-up"]
        training = dataclasses.replace(config.training, n_steps=config.training.n_steps + arm)
        label = f"{'binary' if arm % 2 else 'Gaussian'} stack, arm {arm}: ladder wake-sleep (symmetric), equal time"
        wanted[label] = dataclasses.replace(config, training=training)
    runs = fabricate(root, wanted, n_replicas=6)
    for run in runs[:N_FURTHER]:
        measure_further(run)
    arrays = dict(runs[FAR].load_arrays("likelihood"))
    for key in ("bound_nats", "bound_datum_nats", "elbo_nats", "elbo_datum_nats"):
        arrays[key] = arrays[key] + 1400
    runs[FAR].save_arrays("likelihood", arrays)
    study = open_study(root / "depth")
    first, *others = (run.label for run in study.runs)
    panels = {"all arms of one objective": study.runs[:20], "the arms that are left, with a title": study.runs[20:]}
    return dataclasses.replace(study, panels=panels, baselines=dict.fromkeys(others, first))


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """One run of twenty layers."""
    root, config = tmp_path_factory.mktemp("deep"), configs("demo")["depth-2 bottom-up"]
    model = dataclasses.replace(config.model, latents=(16,) * 20, hidden=config.model.hidden[:1])
    (run,) = fabricate(root, {"twenty layers": dataclasses.replace(config, model=model)})
    measure_further(run)
    return open_study(root / "depth")


@pytest.mark.parametrize("exhibit", PAGE, ids=lambda exhibit: exhibit.name)
def test_figures_of_many_runs(many: Study, exhibit: Exhibit) -> None:
    check(exhibit.make(many))


@pytest.mark.parametrize("exhibit", PAGE, ids=lambda exhibit: exhibit.name)
def test_figures_of_many_layers(deep: Study, exhibit: Exhibit) -> None:
    check(exhibit.make(deep))


@pytest.mark.parametrize("exhibit", LAYERS, ids=lambda exhibit: exhibit.name)
def test_figures_of_few_runs_of_each_depth(depth_study: Study, exhibit: Exhibit) -> None:
    check(exhibit.make(depth_study))


def test_grids_of_images(many: Study, deep: Study) -> None:
    for study in (many, deep):
        for exhibit in exhibits(study):
            if exhibit.name.startswith("resampling"):
                check(exhibit.make(study))


@pytest.mark.parametrize(("depth", "n_replicas"), [(3, 4), (5, 6), (12, 6), (40, 6), (50, 4)])
def test_a_whole_stack(tmp_path: Path, depth: int, n_replicas: int) -> None:
    """Resolutions as in a VDVAE from seven layers on, and none in dense stacks."""
    config = configs("demo")["depth-2 ladder+WU"]
    model = dataclasses.replace(config.model, latents=(16,) * depth, hidden=config.model.hidden[:1])
    fabricate(tmp_path, {"whole": dataclasses.replace(config, model=model)}, n_replicas=n_replicas)
    (run,) = open_study(tmp_path / "depth").runs
    if depth > DEEP:
        sides = [2 ** (4 - 4 * place // (depth - 1)) for place in range(depth)]
        spatial = [
            dataclasses.replace(layer, event=np.array([4, side, side]))
            for layer, side in zip(run.layers, sides, strict=True)
        ]
        run = run.with_measured(layers=tuple(spatial))
    made = stack(run)
    check(made)
    assert made is not None
    names = [label.get_text() for label in made.axes[0].get_yticklabels()]
    assert (names[0], names[-1]) == ((f"z{depth} · 1x1", "z1 · 16x16") if depth > DEEP else (f"z{depth}", "z1"))
    points = [line for line in made.axes[1].lines if line.get_marker() == "o"]
    assert sum(len(line.get_xdata()) for line in points) == depth * n_replicas


# -- rows ----------------------------------------------------------------------------------------------


def test_one_row_far_from_all_others_does_not_press_them_together(many: Study) -> None:
    made = comparison(many)
    check(made)
    assert made is not None
    right = made.axes[1]
    assert max(np.abs(right.get_xlim())) < 100
    arrows = [text.get_text() for text in right.texts]
    assert len(arrows) == 1 and 1390 < float(arrows[0].split()[0]) < 1410


def test_rows_of_distances_and_strips_of_images(many: Study) -> None:
    rng = np.random.default_rng(0)
    found = {}
    for title, runs in {"Gaussian stack": many.runs[:13], "binary stack": many.runs[13:20]}.items():
        beside: list[Any] = []
        for run in runs:
            middle = rng.uniform(1, 100, (len(SHOWN), 6))
            arrays = {key: np.stack([0.8 * m, m, 1.2 * m], 1) for key, m in zip(SHOWN, middle, strict=True)}
            arrays |= {f"images/{name}": rng.uniform(size=(10, 64)) for name in ("shot", "limit")}
            beside.append(dataclasses.replace(run, beside={**arrays, **{f"{key}/plain": np.ones(6) for key in SHOWN}}))
        found[title] = tuple(beside)
    study = dataclasses.replace(many, panels=found, measured={"classifier": {"floor/plain": np.array(2.9)}})
    check(distances(study))
    check(samples(study))


@pytest.mark.parametrize(
    ("exhibit", "measured"),
    [
        *((exhibit, parts("conjecture", "conjecture")) for exhibit in conjecture.FIGURES),
        *((exhibit, parts("truth", "accuracy")) for exhibit in truth.FIGURES),
        (orders_section.FIGURES[-1], {"known": rows("orders", "same-decoder-known")}),
    ],
    ids=lambda value: value.name if isinstance(value, Exhibit) else "",
)
def test_figures_of_committed_tables(exhibit: Exhibit, measured: dict[str, Any]) -> None:
    check(exhibit.make(SimpleNamespace(measured=measured)))  # type: ignore[arg-type]


def test_leads_at_frozen_decoders(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two decoders, of which one has an order that is hundreds of nats behind."""
    names = ("bottom-up", "bottom-up-x", "mean-field", "top-down", "top-down-shared", "unamortised")

    class Decoder:
        layers = ("z1", "z2", "z3")
        encoders = names

        def __init__(self, owner: str, lost: float) -> None:
            self.owner, self.lost, rng = owner, lost, np.random.default_rng(0)
            interval = {f"information_nats/{name}": rng.uniform(0, 5, (4, 3)) for name in self.layers}
            self.orders = dict.fromkeys(names, interval)

        def elbo(self, order: str, *, own_images: bool = False) -> np.ndarray:
            rng = np.random.default_rng(names.index(order))
            return -100 - self.lost * (order == names[-1]) + rng.normal(size=(4, 32))

    decoders = [Decoder("bottom-up", 0.0), Decoder("top-down", 1500.0)]
    monkeypatch.setattr(orders, "frozen", lambda measured: decoders)
    check(orders.leads({}))
    check(orders.informations({}))


# -- lines of papers -----------------------------------------------------------------------------------


def of_lines(n_x: int, names: list[str], panels: list[str], *, closed: bool = False, **settings: Any) -> Figure | None:
    x, rng = np.linspace(0.1, 7, n_x), np.random.default_rng(0)

    def line(index: int) -> Line:
        level = np.exp(-x / (index + 1))
        noise = 0 if closed else 0.1 * rng.normal(size=(n_x, 6))
        return Line(x, level[:, None] + noise + np.zeros(6), expected=(x, level) if closed else None)

    drawn = {title: {name: line(index) for index, name in enumerate(names)} for title in panels}
    wanted = Curves("lines", "Lines", "Caption.", lambda: 0, lambda: 0, lambda runs, measured: drawn)  # type: ignore[arg-type]
    wanted = dataclasses.replace(wanted, **({"x_label": "β", "y_label": "strength"} | settings))
    return curves(wanted, SimpleNamespace(runs=(), measured={}))  # type: ignore[arg-type]


MODES = [f"mode {index}" for index in range(1, 9)]


@pytest.mark.parametrize("closed", [True, False], ids=["closed form", "means"])
def test_many_values_of_x_leave_few_markers(closed: bool) -> None:
    made = of_lines(70, MODES, ["λ, lower layer", "ω, top layer"], closed=closed)
    check(made)
    assert made is not None
    for axes in made.axes:
        marked = [line for line in axes.lines if line.get_marker() not in ("None", "")]
        per_line = [len({round(x, 6) for x in line.get_xdata()[_every(line)]}) for line in marked]
        assert len(marked) == len(MODES) and max(per_line) <= 18


def _every(line: Any) -> slice:
    every = line.get_markevery()
    return slice(*((None,) if every is None else (every[0], None, every[1])))


def test_panels_of_two_quantities_have_axes_of_their_own() -> None:
    labels = {"units": "active units", "nats": "I(x; z1) (nats)"}
    made = of_lines(5, ["from random weights", "from beta 1"], list(labels), y_label=labels)
    check(made)
    assert made is not None
    assert [axes.get_ylabel() for axes in made.axes] == list(labels.values())
    one, other = made.axes
    assert not one.get_shared_y_axes().joined(one, other)


def test_histograms_and_many_panels_of_lines() -> None:
    check(
        of_lines(18, ["K = 1", "VAE K = 20", "IWAE K = 20"], ["1 layer", "2 layers, z1", "2 layers, z2"], mean="steps")
    )
    check(
        of_lines(4, [f"a line with a long name, {n}" for n in range(12)], [f"z{n}" for n in range(1, 8)], x_scale="log")
    )


# -- the measure itself --------------------------------------------------------------------------------


def bad(**changes: Any) -> Figure:
    """A figure of two panels, spoiled in one way."""
    with style.settings():
        made, axes = style.panel_grid(["one", "two"])
        for index, place in enumerate(axes):
            for label, look in (("first", 0), ("second", 0 if "alike" in changes else 1)):
                place.plot([0, 1], [look, index], color=style.color(look), marker=style.marker(look), label=label)
        style.fitted(made, changes.get("height", 3.0))
        for text in changes.get("texts", ()):
            axes[0].text(*text[:3], transform=axes[0].transAxes, **text[3])
    return made


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"height": 1.0}, "inches"),
        ({"texts": [(0.1, 0.5, "some words", {}), (0.15, 0.5, "other words", {})]}, "overlaps"),
        ({"texts": [(0.1, 0.5, "small words", {"fontsize": 6})]}, "has 6 points"),
        ({"texts": [(-0.6, 0.5, "words at the edge", {})]}, "leaves the canvas"),
        ({"alike": True}, "look alike"),
    ],
)
def test_every_kind_of_defect_is_seen(changes: dict[str, Any], words: str) -> None:
    assert defects(bad()) == []
    assert any(words in text for text in defects(bad(**changes)))


def test_figures_before_room_was_made_for_legends_fail() -> None:
    """A legend at the side of a narrow figure, as it was drawn once, leaves the panel half an inch."""
    with style.settings():
        made = style.figure(4.0)
        axes = made.subplots()
        axes.plot([0, 1], [0, 1], label="ladder wake-sleep (symmetric), equal time")
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
    assert any("inches" in text for text in defects(made))
