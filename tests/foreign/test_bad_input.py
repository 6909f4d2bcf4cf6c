"""What `Model`, `law`, `pushed` and `masked` refuse when they are made, and a log_prob that is not one number a row."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Normal

import hvae
from hvae.errors import ConfigError
from hvae.foreign.stack import Stack

ONE = Normal(torch.zeros(3, 2), 1.0)


def walk(visit: Any) -> None:
    visit("z", Normal(visit.code, 1.0))


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: hvae.Model(5, 5), "infer of a hvae.Model is 5"),  # type: ignore[arg-type]
        (lambda: hvae.Model(walk, None), "generate of a hvae.Model is None"),  # type: ignore[arg-type]
        (lambda: hvae.Model(walk, walk, encode=5), "encode of a hvae.Model is 5"),  # type: ignore[arg-type]
        (lambda: hvae.Model(walk, walk, module=[nn.Linear(2, 2)]), "nn.ModuleList"),  # type: ignore[arg-type]
        (lambda: hvae.law(5), "log_prob of hvae.law is 5"),  # type: ignore[arg-type]
        (lambda: hvae.law(print, 5), "sample of hvae.law is 5"),  # type: ignore[arg-type]
        (lambda: hvae.pushed(5, print), "hvae.pushed was given a int"),  # type: ignore[arg-type]
        (lambda: hvae.pushed(ONE, 5), "push of hvae.pushed is 5"),  # type: ignore[arg-type]
        (lambda: hvae.masked(5, torch.ones(3)), "hvae.masked was given a int"),  # type: ignore[arg-type]
        (lambda: hvae.masked(ONE, 5), "mask of hvae.masked is a int"),  # type: ignore[arg-type]
        (lambda: hvae.masked(ONE, torch.ones(2, 3)), r"\(2, 3\) does not cover the first axes \(3, 2\)"),
    ],
)
def test_refused_when_made(make: Callable[[], object], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        make()


def stack(log_prob: Callable[[Tensor], Any], sample: Callable[[int], Any] | None = None) -> Stack:
    def infer(visit: Any) -> None:
        own = Normal(visit.code, 1.0)
        visit("z", own if sample is None else hvae.law(lambda z: own.log_prob(z).sum(-1), lambda: sample(visit.rows)))

    def generate(visit: Any) -> None:
        z = visit("z", Normal(torch.zeros(2), 1.0))
        visit("x", hvae.law(lambda x: log_prob((x - z).square())))

    return Stack.of(hvae.Model(infer, generate), {"x": torch.randn(20, 2)})


@pytest.mark.parametrize(
    ("log_prob", "gave"),
    [
        (lambda d: -d.sum(), r"shape \(\)"),
        (lambda d: -d.mean(), r"shape \(\)"),
        (lambda d: -d.sum()[None], r"shape \(1,\)"),
        (lambda d: 1.0, "float"),
        (lambda d: None, "NoneType"),
        (lambda d: d.sum(-1).numpy(), "ndarray"),
    ],
)
def test_log_prob_is_one_number_a_row(log_prob: Callable[[Tensor], Any], gave: str) -> None:
    with pytest.raises(ConfigError, match=f"log_prob of x gave {gave}, the rows are .* one number a row"):
        stack(log_prob)


def test_log_prob_of_independent_elements_is_summed() -> None:
    assert stack(lambda d: -d).latents == stack(lambda d: -d.sum(-1, keepdim=True)).latents == ("z",)


@pytest.mark.parametrize("drawn", [lambda rows: 1.0, lambda rows: torch.zeros(1, 2), lambda rows: torch.tensor(1.0)])
def test_sample_is_one_row_a_datum(drawn: Callable[[int], Any]) -> None:
    with pytest.raises(ConfigError, match=r"sample of z gave .* one row a datum"):
        stack(lambda d: -d.sum(-1), drawn)
