"""Every figure on whole, thin and broken studies: what is drawn is what was measured, and nothing empty is drawn."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.markers import CARETUPBASE

from hvae.analysis import style
from hvae.analysis.exhibits import LAYERS, Exhibit, exhibits
from hvae.analysis.figures import resampling, unit_rates
from hvae.analysis.figures.active_units import active_units
from hvae.analysis.figures.collapse import collapse_curves
from hvae.analysis.figures.information import information
from hvae.analysis.figures.likelihood import likelihood_curves
from hvae.analysis.figures.panels import split
from hvae.analysis.study import Study, open_study
from hvae.diagnosis.pixels import Pixels
from hvae.experiments.depth import configs
from tests.analysis.fabricate import fabricate


def study_of(root: Path, labels: list[str], **settings: object) -> Study:
    wanted = configs("demo")
    fabricate(root, {label: wanted[label] for label in labels}, **settings)  # type: ignore[arg-type]
    return open_study(root)


def panel_of(figure: Figure, panel: str, quantity: int = 0) -> Axes:
    """The axes of one of the quantities in the panel called `panel`."""
    return [axes for axes in figure.axes if axes.get_label() == panel][quantity]


def points(figure: Figure, panel: str, label: str, quantity: int = 0) -> np.ndarray:
    """Heights of the points of one run in a panel."""
    axes = panel_of(figure, panel, quantity)
    (line,) = (line for line in axes.lines if line.get_label() == label)
    return np.asarray(line.get_ydata(), dtype=float)


def check_axes(figure: Figure) -> None:
    """No panel without data, none without labels, and a label for every axis that stands at the edge."""
    for axes in figure.axes:
        head = not axes.axison and axes.get_legend() is not None
        assert head or axes.has_data() or axes.images or axes.collections
        if axes.axison:
            assert axes.get_xlabel()
    first = next((axes for axes in figure.axes if axes.axison), None)
    assert first is None or first.get_ylabel()


def test_points_are_the_measured_middles(depth_study: Study) -> None:
    figure = information(depth_study.panels)
    assert figure is not None
    run = depth_study.deepest["ladder+WU"]
    for place, quantity in enumerate(("used_nats", "information_nats", "kl_prior_nats")):
        measured = np.stack([layer.interval(quantity)[:, 1] for layer in run.layers])
        np.testing.assert_array_equal(points(figure, "ladder+WU", run.label, place), measured.ravel())


def test_use_at_its_cap_is_marked_and_no_other(tmp_path: Path) -> None:
    """V of z1 is at log 65 in all replicas, that of z2 and z3 is far below."""
    figure = information(study_of(tmp_path, ["depth-3 bottom-up"]).panels)
    assert figure is not None
    use, *others = (axes for axes in figure.axes if axes.axison)
    (marked,) = (line for line in use.lines if line.get_marker() == CARETUPBASE)
    np.testing.assert_array_equal(np.asarray(marked.get_ydata()), np.full(4, np.log(65)))
    assert max(marked.get_xdata()) < 0.5
    caps = np.concatenate([bar.get_segments() for bar in use.collections if len(bar.get_segments()) == 3])
    np.testing.assert_allclose(caps[..., 1], np.log(65))
    assert not [line for axes in others for line in axes.lines if line.get_marker() == CARETUPBASE]


def test_use_that_was_not_measured_leaves_the_others(tmp_path: Path) -> None:
    figure = information(study_of(tmp_path, ["depth-3 bottom-up"], drop=("used_nats",)).panels)
    assert figure is not None
    labels = [axes.get_ylabel() for axes in figure.axes if axes.axison]
    assert labels == ["$I(x;\\, z_l)$ (nats)", "KL to prior (nats)"]


def test_two_kinds_of_information_share_no_axes(tmp_path: Path) -> None:
    """What a layer says of x, and what it says given the layers above, in one panel of the experiment."""
    runs = study_of(tmp_path, ["depth-1", "depth-3 bottom-up", "depth-3 ladder+WU"]).runs
    figure = information({"both": runs})
    assert figure is not None
    labels = {axes.get_label(): axes.get_ylabel() for axes in figure.axes if "I(x" in axes.get_ylabel()}
    assert labels == {
        "both: z1 first": "$I(x;\\, z_l)$ (nats)", "both: ladders": "$I(x;\\, z_l\\,|\\,z_{>l})$ (nats)",
    }  # fmt: skip
    assert {line.get_label() for line in panel_of(figure, "both: ladders").lines} & {run.label for run in runs} == {
        "depth-3 ladder+WU"
    }


def test_no_panel_has_more_runs_than_there_are_colours() -> None:
    parts = split({"few": "abc", "many": "abcdefghijklmnopqr"})  # type: ignore[dict-item]
    assert {title: "".join(runs) for title, runs in parts.items()} == {  # type: ignore[arg-type]
        "few": "abc", "many, 1 of 3": "abcdef", "many, 2 of 3": "ghijkl", "many, 3 of 3": "mnopqr",
    }  # fmt: skip
    looks = {(style.color(index), style.marker(index)) for index in range(64)}
    assert len(looks) == 64


def test_active_units_are_shares_of_the_layer(depth_study: Study) -> None:
    figure = active_units(depth_study.panels)
    assert figure is not None
    run = depth_study.deepest["bottom-up"]
    covariance = run.layers[0].unit_intervals["twin_covariance"][..., 1]
    expected = 100 * (covariance > 0.01).sum(axis=1) / 16
    np.testing.assert_allclose(points(figure, "bottom-up", run.label)[:4], expected, rtol=1e-12)


def test_burdas_count_stands_hollow_behind(depth_study: Study) -> None:
    figure = active_units(depth_study.panels)
    assert figure is not None
    run = depth_study.deepest["bottom-up"]
    expected = np.concatenate([100 * layer.active_units("burda_variance") / layer.n_units for layer in run.layers])
    axes = panel_of(figure, "bottom-up")
    hollow = [np.asarray(line.get_ydata()) for line in axes.lines if line.get_markerfacecolor() == "none"]
    assert any(np.array_equal(heights, expected) for heights in hollow)


def test_likelihood_curve_is_the_recorded_bound(depth_study: Study) -> None:
    figure = likelihood_curves(depth_study.panels)
    run = depth_study.deepest["bottom-up"]
    assert figure is not None and run.likelihood is not None
    drawn = [np.asarray(line.get_ydata()) for line in figure.axes[0].lines]
    assert any(np.array_equal(line, run.likelihood.bound_nats[2, :, 1]) for line in drawn)
    assert any(np.array_equal(line, run.likelihood.elbo_nats[2, 1:2]) for line in drawn)
    bars = [bar.get_segments()[0][:, 1] for bar in figure.axes[0].collections]
    assert any(np.array_equal(bar, run.likelihood.best[2, [0, 2]]) for bar in bars)


def test_collapse_curve_is_the_recorded_share(depth_study: Study) -> None:
    figure = collapse_curves(depth_study.deepest)
    fraction = depth_study.deepest["bottom-up"].layers[1].collapsed_fraction
    assert figure is not None and fraction is not None
    assert any(np.allclose(np.asarray(line.get_ydata()), 100 * fraction[3]) for line in figure.axes[0].lines)


def test_heat_map_sorts_units_within_their_layer(depth_study: Study) -> None:
    run = depth_study.deepest["ladder+WU"]
    stack = unit_rates.stacked(run, 1)
    recorded = run.training.rate_unit_nats["z2"][1, -1]
    assert stack.shape == (sum(layer.n_units for layer in run.layers), len(run.metrics))
    np.testing.assert_array_equal(stack[16:24, -1], np.sort(recorded))


def test_resampling_grid_keeps_images_in_place(depth_study: Study) -> None:
    run = depth_study.deepest["bottom-up"]
    assert run.pictures is not None
    blocks = resampling.columns(run)
    kept = [*(f"keep z{k}–z5" for k in range(1, 5)), "keep z5"]
    assert [title for title, _ in blocks] == ["x", "mean", *kept, "samples"]
    np.testing.assert_array_equal(blocks[3][1][4, 2], run.pictures.resampled["z2"][4, 2])
    samples = run.pictures.samples
    n_draws = blocks[-1][1].shape[1]
    assert samples is not None and n_draws == min(3, len(samples) // 6) > 0
    np.testing.assert_array_equal(blocks[-1][1].reshape(6 * n_draws, -1), samples[: 6 * n_draws])


def test_resampling_grid_of_counts_is_as_dark_as_of_their_shares(depth_study: Study) -> None:
    """Images seven times as bright are the same picture, not a black one."""
    run = depth_study.deepest["bottom-up"]
    seen = run.pictures
    assert seen is not None and seen.x is not None and seen.reconstruction is not None and seen.x.max() == 1
    brighter = dataclasses.replace(
        seen, x=7 * seen.x, reconstruction=7 * seen.reconstruction,
        resampled={name: 7 * images for name, images in seen.resampled.items()},
        samples=None if seen.samples is None else 7 * seen.samples,
    )  # fmt: skip
    of_shares, of_counts = (resampling.resampling_grid(each) for each in (run, run.with_measured(pictures=brighter)))
    assert of_shares is not None and of_counts is not None
    shown = [np.asarray(made.axes[0].images[0].get_array()) for made in (of_shares, of_counts)]
    np.testing.assert_allclose(*shown, atol=1e-12)


@pytest.mark.parametrize("shape", [(3, 4, 5), (4, 5, 3)], ids=["planes", "pixels"])
def test_resampling_grid_in_colour(shape: tuple[int, ...]) -> None:
    """The pixel (2, 4) of the image of row 1 is red, in whichever order the file has the colours."""
    red, pixels = np.zeros((6, *shape)), Pixels.of(shape)
    red[(1, 0, 2, 4) if shape[0] == 3 else (1, 2, 4, 0)] = 1
    assert pixels is not None
    figure = resampling._draw([("x", red.reshape(6, 1, 60))], pixels)
    canvas = np.asarray(figure.axes[0].images[0].get_array())
    rows, columns = np.nonzero((canvas == (1, 0, 0)).all(-1))
    enlarge, height, gap = 96 // 5, 4 * (96 // 5) + 2, (5 * (96 // 5) + 2) // 8
    top, left = 2 + (height + gap) + 1 + 2 * enlarge, 2 + 1 + 4 * enlarge
    assert (rows.min(), rows.max()) == (top, top + enlarge - 1)
    assert (columns.min(), columns.max()) == (left, left + enlarge - 1)


@pytest.mark.parametrize("exhibit", LAYERS, ids=lambda exhibit: exhibit.name)
def test_every_figure_of_a_whole_study(depth_study: Study, exhibit: Exhibit) -> None:
    figure = exhibit.make(depth_study)
    assert figure is not None
    check_axes(figure)


@pytest.mark.parametrize(
    "make",
    [
        lambda root: study_of(root, ["depth-1"], n_replicas=1),
        lambda root: study_of(root, ["depth-3 ladder+WU"], failed=0),
        lambda root: study_of(root, ["depth-2 bottom-up", "depth-1"], failed=3),
    ],
    ids=["one replica and layer", "first replica failed", "two runs, last replica failed"],
)
def test_every_figure_of_a_thin_study(tmp_path: Path, make: Callable[[Path], Study]) -> None:
    study = make(tmp_path)
    for exhibit in exhibits(study):
        figure = exhibit.make(study)
        assert figure is not None, exhibit.name
        check_axes(figure)


def test_the_thinnest_study_can_be_written(tmp_path: Path) -> None:
    study = study_of(tmp_path, ["depth-1"], n_replicas=1, failed=None)
    figures = [figure for exhibit in exhibits(study) if (figure := exhibit.make(study)) is not None]
    assert all(style.png(figure, dpi=40).startswith(b"\x89PNG") for figure in figures)


def test_failed_replica_is_not_drawn(tmp_path: Path) -> None:
    study = study_of(tmp_path, ["depth-2 bottom-up"], failed=1)
    figure = information(study.panels)
    assert figure is not None
    assert len(points(figure, "depth-2 bottom-up", "depth-2 bottom-up")) == 2 * 3


def test_all_replicas_failed_leaves_every_measured_figure_out(tmp_path: Path) -> None:
    study = study_of(tmp_path, ["depth-2 bottom-up"], n_replicas=1, failed=0)
    made = {exhibit.name: exhibit.make(study) for exhibit in exhibits(study)}
    assert {name for name, figure in made.items() if figure is not None} == {"resampling-1"}


def test_what_was_not_measured_is_left_out(tmp_path: Path) -> None:
    missing = ("knockout", "collapsed_fraction", "burda", "twin", "resample", "reconstruction", "x", "rate_nats")
    study = study_of(tmp_path, ["depth-3 bottom-up"], drop=missing)
    made = {exhibit.name: exhibit.make(study) for exhibit in exhibits(study)}
    absent = {name for name, figure in made.items() if figure is None}
    assert absent == {"rate", "active-units", "collapse", "knockout-encoder", "knockout-model", "resampling-1"}


def test_svg_is_the_same_every_time(depth_study: Study) -> None:
    first, second = (information(depth_study.panels) for _ in range(2))
    assert first is not None and second is not None
    text = style.svg(first)
    assert text == style.svg(second)
    assert "<metadata>" not in text


def test_prefix_keeps_references_together() -> None:
    svg = '<g id="a"/><use xlink:href="#a" clip-path="url(#b)"/><path id="b"/>'
    expected = '<g id="p-a"/><use xlink:href="#p-a" clip-path="url(#p-b)"/><path id="p-b"/>'
    assert style.with_prefix(svg, "p") == expected
