"""The data card: its sentences, its file, and where it is carried."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.distributions import Bernoulli, Normal

import hvae
from hvae.diagnosis import Card, Diagnosis
from hvae.diagnosis.card import FILE, cards_text, read_cards
from hvae.errors import ConfigError

CARD = Card(
    "wine.csv", (3,), "real", n_test=2, test_range=(-1.0, 2.5), n_distinct=257, n_train=9, train_range=(-3.0, 2.5),
    constant=(1, 2), columns=("ash", "hue", "größe"), n_in_both=1, notes=("The column label is left out.",),
)  # fmt: skip


def test_the_sentences() -> None:
    assert str(CARD) == (
        "wine.csv: 9 training and 2 test rows of 3 numbers, real values, more than 256 different ones from -3 to 2.5 "
        "(test -1 to 2.5). The column label is left out. 2 of 3 columns are constant in training: 1 (hue), 2 (größe). "
        "1 of 2 test items stands in training too."
    )
    drawn = replace(CARD, kind="binary", dynamic=True, share_of_ones=0.125, constant=(), columns=(), n_in_both=2)
    assert ": 9 training and 2 test rows of 3 numbers, 0/1, drawn at every presentation, 12 % of them 1. " in str(drawn)
    assert str(drawn).endswith(" 2 of 2 test items stand in training too.")


def test_it_comes_back_from_its_file_without_torch(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text(cards_text([CARD, replace(CARD, share_of_ones=0.5)]), encoding="utf-8")
    assert read_cards(tmp_path) == (CARD, replace(CARD, share_of_ones=0.5))
    assert read_cards(tmp_path / "a run of before") == ()
    code = (
        "import sys; from pathlib import Path; from hvae.diagnosis.card import read_cards; "
        "print(read_cards(Path(sys.argv[1]))[0]); sys.exit('torch' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False)
    assert (found.returncode, found.stdout.strip()) == (0, str(CARD))


@pytest.mark.parametrize("text", ["", "[", "3", "{}x", '[{"name": 3}]', "[3]", '[{"nme": "a"}]', "\xff"])
def test_a_damaged_file_is_one_sentence(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE).write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError, match=r"data\.json is damaged .*; restore or delete it") as refusal:
        read_cards(tmp_path)
    assert "\n" not in str(refusal.value)


def model_of(n_columns: int) -> hvae.Model:
    torch.manual_seed(0)
    encoder, decoder = nn.Linear(n_columns, 4), nn.Linear(2, n_columns)

    def infer(visit: hvae.Visit) -> None:
        mean, log_scale = visit.code.chunk(2, dim=-1)
        visit("z", Normal(mean, log_scale.exp()))

    def generate(visit: hvae.Visit) -> None:
        z = visit("z", Normal(torch.zeros(2), 1.0))
        visit("x", Bernoulli(logits=decoder(z)))

    return hvae.Model(infer, generate, encode=lambda x: encoder(x.flatten(1)))


def test_the_diagnosis_of_ones_own_model_carries_the_card_of_its_data(tmp_path: Path) -> None:
    x = (torch.rand(200, 6, generator=torch.Generator().manual_seed(0)) < 0.4).float()
    x[:, 4] = 1
    found = hvae.diagnose(model_of(6), x.numpy(), sizes="quick", progress=False)
    [card] = found.cards
    assert str(card).startswith("x: 200 rows of 6 numbers, 0/1, ")
    assert (card.constant, card.share_of_ones) == ((4,), pytest.approx(x.mean().item(), abs=1e-6))
    assert Diagnosis.read(found.save(tmp_path / "saved")).cards == (card,)
    page = found.report(tmp_path / "page.html").read_text()
    assert "x: 200 rows of 6 numbers, 0/1" in page and 'id="data"' in page


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (torch.arange(40.0).reshape(20, 2) / 39, "grey values, 40 different ones from 0 to 1"),
        (torch.arange(40).reshape(20, 2), "whole-number values, 40 different ones from 0 to 39"),
        (torch.arange(40.0).reshape(20, 2) - 0.5, "real values, 40 different ones from -0.5 to 38.5"),
        (torch.arange(40).reshape(20, 2) % 2 == 0, "0/1, 50 % of them 1. 2 of 2 columns are constant: 0, 1"),
        (torch.arange(480).reshape(20, 1, 4, 6), "more than 256 different ones from 0 to 479"),
    ],
)
def test_the_card_of_items_of_any_dtype(values: torch.Tensor, words: str) -> None:
    from hvae.data import card_of_items

    found = card_of_items("x", values)
    assert words in str(found) and found.n_distinct == min(257, len(np.unique(values.numpy())))
    assert ("images of 4 x 6" in str(found)) == (values.ndim == 4)


def test_the_place_of_a_number_that_is_not_finite_in_data_of_ones_own_model() -> None:
    x = torch.ones(2000, 6)
    x[40, 3] = torch.inf  # not among the few that the model is looked at with
    x[41:, 5] = 0
    with pytest.raises(ConfigError, match="x has 1 number that is not finite, the first in column 3; leave such data"):
        hvae.diagnose(model_of(6), x, sizes="quick", progress=False)
