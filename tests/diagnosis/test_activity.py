"""The one rule from intervals of shares to whose collapse it is, and the words on the page."""

from itertools import product

import numpy as np
import pytest

from hvae.diagnosis.activity import CAUSES, cause
from hvae.diagnosis.layer import read_layer
from hvae.vocabulary import (
    ACTIVE_SHARE,
    ADDS,
    ENCODER_ALONE,
    ENCODER_COLLAPSE,
    IN_USE,
    LOSES,
    MODEL_COLLAPSE,
    UNDECIDED,
)

ON, OFF, OPEN, DOUBTED = (0.02, 0.1, 0.2), (-0.01, 0.0, 0.009), (0.005, 0.02, 0.03), (0.0, 0.5, 1.0)


@pytest.mark.parametrize(
    ("posterior", "encoder", "expected"),
    [
        ((ON, OFF), (OFF, OFF), ENCODER_COLLAPSE),
        ((ON, OPEN), (OFF, OFF), ENCODER_COLLAPSE),
        ((OFF, OFF), (OFF, OFF), MODEL_COLLAPSE),
        ((OFF, OFF), (OFF, ON), ENCODER_ALONE),
        ((ON, OFF), (ON, OFF), IN_USE),
        ((ON, OPEN), (ON, OFF), IN_USE),
        ((ON, OFF), (ON, OPEN), IN_USE),
        ((ON, ON), (ON, OFF), LOSES),
        ((ON, OFF), (ON, ON), ADDS),
        ((ON, ON, OFF), (ON, OFF, ON), LOSES),
        ((OPEN, OFF), (OFF, OFF), UNDECIDED),
        ((OFF, OFF), (OPEN, OFF), UNDECIDED),
        ((OPEN, OFF), (ON, OFF), UNDECIDED),
        ((ON, OFF), (OPEN, OFF), UNDECIDED),
    ],
)
def test_only_what_is_sure_is_said(posterior: object, encoder: object, expected: str) -> None:
    assert cause(np.array(posterior), np.array(encoder)) == expected
    assert expected in CAUSES


def test_doubted_chains_say_nothing_whatever_the_encoder_does() -> None:
    for pair in product((ON, OFF, OPEN), repeat=2):
        assert cause(np.array([DOUBTED, DOUBTED]), np.array(pair)) == UNDECIDED
    assert "chains are doubted" in CAUSES[UNDECIDED]


def test_an_interval_that_touches_the_threshold_is_open() -> None:
    above, below = np.array([[ACTIVE_SHARE, 0.1, 0.2]]), np.array([[0.0, 0.005, ACTIVE_SHARE]])
    on, off = np.array([ON]), np.array([OFF])
    for posterior, encoder in ((above, off), (below, off), (on, below), (off, above)):
        assert cause(posterior, encoder) == UNDECIDED


def test_what_was_not_measured_has_no_word() -> None:
    nothing = np.full((1, 3), np.nan)
    assert cause(nothing, np.array([ON])) == cause(np.array([ON]), nothing) == ""
    assert cause(np.array([ON, nothing[0]]), np.array([ON, ON])) == ""
    assert cause(np.zeros((0, 3)), np.zeros((0, 3))) == ""


def test_the_words_claim_no_more_than_was_seen() -> None:
    """Of the posterior its mean and its variance; nothing of what the decoder would need."""
    words = CAUSES[MODEL_COLLAPSE]
    assert "neither its mean nor its variance" in words and "decoder" not in words
    assert f"share of {ACTIVE_SHARE:g}" in CAUSES[UNDECIDED]


@pytest.mark.parametrize(("bottom_up", "n_mixture"), [(False, 64), (True, 0)])
def test_the_mixture_of_images_is_that_of_a_visit_from_the_top(bottom_up: bool, n_mixture: int) -> None:
    stored = {"n_paths/z1": np.array([32, 64])}
    assert read_layer(stored, "z1", 2, np.ones(2, dtype=bool), 3, bottom_up=bottom_up).n_mixture == n_mixture
