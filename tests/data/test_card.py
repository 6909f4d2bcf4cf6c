"""What is refused before training, and what a data set's card says."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from hvae.data import Dataset, card_of, load
from hvae.data.card import Facts
from hvae.errors import ConfigError
from hvae.lab.config import ModelConfig, RunConfig
from hvae.lab.runs.remarks import remarks

G = np.random.default_rng(0)
GREY = G.random((60, 4, 5))
COUNTS = G.poisson(0.5, (80, 23))
DIGITS = G.integers(0, 17, (60, 8, 8))
MASKS = 255 * (GREY > 0.5)
Z = G.standard_normal((60, 5))
LOGNORMAL = np.exp(3 * G.standard_normal((60, 5)))


def save(tmp_path: Path, **arrays: np.ndarray) -> str:
    np.savez(tmp_path / "my.npz", **arrays)
    return str(tmp_path / "my.npz")


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int64, np.uint16, np.float32, np.float64])
@pytest.mark.parametrize("values", [COUNTS, DIGITS], ids=["counts", "digits"])
@pytest.mark.parametrize("way", [":threshold", ":dynamic"])
def test_whole_numbers_are_never_binarised_whatever_their_dtype(
    tmp_path: Path, values: np.ndarray, dtype: type, way: str
) -> None:
    message = f"holds whole numbers from 0 to {values.max()}, which may be grey levels, counts or measurements; "
    with pytest.raises(
        ConfigError, match=f"{message}give counts .*write grey levels .*, x / {values.max()}, "
    ) as found:
        load(save(tmp_path, train=values.astype(dtype)) + way)
    said = str(found.value).replace(str(tmp_path), "")
    assert "\n" not in said and len(said) < 400


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int64, np.uint16, np.float32, np.float64])
@pytest.mark.parametrize("values", [COUNTS, DIGITS], ids=["counts", "digits"])
def test_whole_numbers_from_0_on_are_counts_whatever_their_dtype(
    tmp_path: Path, values: np.ndarray, dtype: type
) -> None:
    found = load(save(tmp_path, train=values.astype(dtype), test=values[:20].astype(dtype)))
    assert found.kind == "counts" and torch.equal(found.train, torch.tensor(values.reshape(len(values), -1)).float())
    assert f", counts, {len(np.unique(values))} different ones from 0 to {values.max()}" in str(card_of(found))


def test_whole_numbers_below_0_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"holds whole numbers from -1 to .*; write columns of a table") as found:
        load(save(tmp_path, train=COUNTS - 1))
    assert "poisson" not in str(found.value) and "\n" not in str(found.value)


def test_the_remedies_are_taken(tmp_path: Path) -> None:
    """Grey levels divided by the largest, z-scores, bytes that reach 128, masks as 0 and 1."""
    threshold = load(save(tmp_path, train=(DIGITS / 16).astype(np.float32)) + ":threshold")
    assert 0.3 < threshold.train.mean() < 0.7
    assert load(save(tmp_path, train=((DIGITS - DIGITS.mean(0)) / DIGITS.std(0)).astype(np.float32))).kind == "real"
    assert load(save(tmp_path, train=(DIGITS * 15).astype(np.uint8))).kind == "grey"
    assert load(save(tmp_path, train=MASKS > 0)).kind == "binary"
    assert load(save(tmp_path, train=MASKS.astype(np.uint8))).kind == "binary"


@pytest.mark.parametrize(
    ("values", "a", "b"),
    [
        (MASKS, "0", "255"),
        (MASKS.astype(np.float32), "0", "255"),
        (2 * (GREY > 0.5) - 1, "-1", "1"),
        (0.5 * (GREY > 0.5), "0", "0.5"),
        ((GREY > 0.5).astype(np.uint8) * np.uint8(9), "0", "9"),
    ],
)
def test_two_values_under_a_density_are_refused(tmp_path: Path, values: np.ndarray, a: str, b: str) -> None:
    with pytest.raises(ConfigError, match=rf"holds two values only, {a} and {b}, .* train=\(x > {a}\)"):
        load(save(tmp_path, train=values))


def test_two_grey_values_can_be_binarised(tmp_path: Path) -> None:
    name = save(tmp_path, train=np.where(GREY > 0.5, 0.75, 0.25))
    assert torch.equal(load(f"{name}:threshold").train, (load(f"{name}:threshold").train > 0).float())
    assert load(f"{name}:dynamic").dynamic


@pytest.mark.parametrize(
    ("train", "test", "times"),
    [
        (GREY, np.round(255 * GREY[:20]) + 0.5, "2[0-9]{2} times as large"),
        (np.round(255 * GREY) + 0.5, GREY[:20], "2[0-9]{2} times as small"),
        (Z, 1000 * Z[:10], "1[0-9]{3} times as large"),
        (LOGNORMAL, 1e4 * LOGNORMAL[:40], ""),
        (GREY > 0.7, 30 * GREY[:20], ""),
    ],
)
def test_a_test_array_of_another_scale_is_refused(
    tmp_path: Path, train: np.ndarray, test: np.ndarray, times: str
) -> None:
    with pytest.raises(ConfigError, match=f"tests on numbers about {times}.*; scale both alike"):
        load(save(tmp_path, train=train, test=test))


@pytest.mark.parametrize(
    ("train", "test"),
    [(GREY, GREY[:2] / 5), (Z, Z[:2] + 5), (GREY, np.zeros((3, 4, 5))), (np.vstack([Z, np.full((1, 5), 1e6)]), Z[:20])],
    ids=["dark", "moved", "blank", "outlier"],
)
def test_what_only_looks_like_another_scale(tmp_path: Path, train: np.ndarray, test: np.ndarray) -> None:
    assert len(load(save(tmp_path, train=train, test=test)).train) == len(train)


def test_few_items_with_long_tails_are_no_other_scale(tmp_path: Path) -> None:
    """Both parts from one law: none of 200 files is refused, where one in a million is expected at five errors."""
    for seed in range(200):
        source = np.random.default_rng(seed)
        train, test = (np.exp(3 * source.standard_normal((n, 2))) for n in (100, 5))
        load(save(tmp_path, train=train, test=test))


def test_facts_are_those_of_all_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hvae.data.card.N_AT_ONCE", 10)
    values = np.zeros((50, 4))
    values[30, 2], values[44, 1], values[20, 3] = 3, -2, 0.5
    assert Facts.of(values) == Facts("float64", -2.0, 3.0, (0.0, 0.5, 3.0), False, 0, ())
    values[41, 3] = values[48, 0] = np.inf
    assert (Facts.of(values).n_bad, Facts.of(values).bad) == (2, (41, 3))


@pytest.mark.parametrize(
    ("shape", "place", "where"),
    [((9, 5), (3, 2), "row 3, column 2"), ((9, 4, 5), (3, 2, 1), r"item 3, at \(2, 1\)")],
)
@pytest.mark.parametrize("part", ["train", "test"])
def test_the_place_of_the_first_number_that_is_not_finite(
    tmp_path: Path, shape: tuple[int, ...], place: tuple[int, ...], where: str, part: str
) -> None:
    arrays = {"train": G.random(shape), "test": G.random(shape)}
    arrays[part][place] = arrays[part][(8, *place[1:])] = np.nan
    name = "training" if part == "train" else "test"
    with pytest.raises(ConfigError, match=f"holds 2 values .* the first in {where} of its {name} array"):
        load(save(tmp_path, **arrays))


def test_card_of_colour_images(tmp_path: Path) -> None:
    values = G.integers(0, 256, (30, 3, 6, 4), dtype=np.uint8)
    values[:, 1, 2, 3] = 7
    values[0, 0, 0, :2] = 0, 255
    found = card_of(load(save(tmp_path, train=values, test=values[:3], y=np.eye(30), ids=np.arange(30))))
    assert (found.shape, found.n_in_both, found.constant) == ((3, 6, 4), 3, (35,))
    assert (found.n_distinct, found.train_range) == (len(np.unique(values)), (0.0, 1.0))
    sentences = str(found).partition("npz: ")[2]
    assert sentences.startswith("30 training and 3 test colour images of 6 x 4, colour values, ")
    assert (
        "Bytes are divided by 255. Colours and pixels of an item stand in one row of 72 numbers. The labels y are left "
        "out, as they are no integers [N]. Of its arrays ids is not used."
    ) in sentences
    assert sentences.endswith("1 of 72 columns is constant in training: 35. 3 of 3 test items stand in training too.")


def test_card_of_real_and_dynamic_data(tmp_path: Path) -> None:
    real = card_of(load(save(tmp_path, train=np.linspace(-2, 3, 3000).reshape(1000, 3), test=np.ones((2, 3)))))
    assert (
        "1000 training and 2 test rows of 3 numbers, real values, more than 256 different ones from -2 to 3 (test 1"
        in (str(real))
    )
    dynamic = card_of(load(save(tmp_path, train=GREY) + ":dynamic"))
    assert "images of 4 x 5, 0/1, drawn at every presentation, " in str(dynamic)
    assert dynamic.share_of_ones == pytest.approx(GREY.mean(), abs=0.05)


def test_card_counts_repeated_test_items() -> None:
    rows = torch.tensor([[0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    data = Dataset("toy", train=rows[:2], test=rows[[0, 0, 2]], image_shape=(2,), kind="binary", dynamic=False)
    assert card_of(data).n_in_both == 2


def _real(values: np.ndarray) -> Dataset:
    rows = torch.tensor(values, dtype=torch.float32)
    return Dataset("toy", rows, rows[:3], (rows.shape[1],), "real", dynamic=False)


@pytest.mark.parametrize("scale", [1.0, 1e-6, 1e6])
@pytest.mark.parametrize(
    ("column", "two_valued", "dependent"),
    [
        (lambda z: np.where(z[:, 0] > 0, 1.0, -2.0), (5,), ()),
        (lambda z: z[:, 1], (), (1, 5)),
        (lambda z: 7 - 3 * z[:, 1], (), (1, 5)),
        (lambda z: z[:, 0] + z[:, 3], (), (0, 3, 5)),
        (lambda z: z @ [1, 2, 3, 4, 5], (), (0, 1, 2, 3, 4, 5)),
        (lambda z: z[:, 0] + z[:, 3] + 1e-3 * z[::-1, 0], (), ()),
        (lambda z: np.round(z[:, 0]), (), ()),
        (lambda z: z[:, 2] ** 2, (), ()),
    ],
    ids=["indicator", "repeated", "other units", "sum", "all", "nearly a sum", "whole", "square"],
)
def test_columns_whose_density_has_no_upper_bound_are_seen(
    column: Callable[[np.ndarray], np.ndarray], two_valued: tuple[int, ...], dependent: tuple[int, ...], scale: float
) -> None:
    z = np.random.default_rng(2).standard_normal((300, 5)) + np.array([0, 0, 0, 40, 0])
    card = card_of(_real(scale * np.column_stack([z, column(z)])))
    assert (card.two_valued, card.dependent) == (two_valued, dependent)
    config = RunConfig(model=ModelConfig(observation="gaussian"))
    said = [doubt.sentence for doubt in remarks(config, [card])]
    assert len(said) == bool(two_valued or dependent)
    assert all("a density there has no upper bound" in sentence for sentence in said)
    assert not remarks(RunConfig(model=ModelConfig(observation="gaussian", observation_variance="fixed")), [card])


@pytest.mark.parametrize("n_columns", [2, 30, 200])
def test_independent_columns_are_not_taken_for_dependent_ones(n_columns: int) -> None:
    """Of 60 tables none, also where rows are hardly more than columns."""
    for seed in range(20):
        source = np.random.default_rng(seed)
        for values in (
            source.standard_normal((n_columns + 21, n_columns)),
            np.exp(3 * source.standard_normal((n_columns + 21, n_columns))),
            1000 + source.random((2 * n_columns + 30, n_columns)),
        ):
            card = card_of(_real(values))
            assert card.two_valued == card.dependent == (), seed
