"""`Shelf`: data, contexts and codes by number; encoded once per datum, whatever a code is made of."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Dirichlet, Independent, MultivariateNormal, Normal

from hvae.errors import ConfigError
from hvae.foreign.data import Shelf, joined, rows_of, take

N = 9
X = torch.arange(2.0 * N).reshape(N, 2)


class Counting:
    """An encoder that notes what it was asked for."""

    def __init__(self, made: Any) -> None:
        self.made, self.seen = made, []

    def __call__(self, *given: Any) -> Any:
        self.seen.append(len(given[0]))
        return self.made(*given)


@pytest.mark.parametrize("rows", [4, 9, 100])
def test_a_datum_is_encoded_once(rows: int) -> None:
    encode = Counting(lambda x: x.sum(-1, keepdim=True))
    shelf = Shelf({"x": X}, None, encode, rows=rows)
    for numbers in (torch.tensor([3]), torch.arange(N), torch.tensor([8, 8, 0])):
        assert torch.equal(shelf.code(numbers), X[numbers].sum(-1, keepdim=True))
    assert sum(encode.seen) == N and max(encode.seen) <= rows


def test_drawn_data_are_encoded_when_asked_for_and_forgotten() -> None:
    encode = Counting(lambda x, y: {"code": x + y})
    shelf = Shelf({"x": X}, 10 * X, encode)
    shelf.code(torch.arange(N))
    like = torch.tensor([2, 5])
    numbers = shelf.add({"x": torch.ones(2, 2)}, like)
    assert numbers.tolist() == [N, N + 1] and shelf.n == N + 2
    assert torch.equal(shelf.context(numbers), 10 * X[like])
    assert torch.equal(shelf.code(numbers)["code"], 1 + 10 * X[like])
    assert encode.seen == [N, 2]
    shelf.forget()
    assert shelf.n == N and torch.equal(shelf.code(torch.arange(N))["code"], 11 * X) and encode.seen == [N, 2]
    numbers = shelf.add({"x": torch.full((1, 2), 5.0)}, like[:1])
    assert torch.equal(shelf.code(numbers)["code"], 5 + 10 * X[like[:1]]) and encode.seen == [N, 2, 1]


def test_a_code_is_a_copy() -> None:
    """What a function does to its code changes no later one."""
    shelf = Shelf({"x": X.clone()}, None, lambda x: x)
    shelf.code(torch.arange(N)).zero_()
    assert torch.equal(shelf.code(torch.arange(N)), X) and torch.equal(shelf.values("x", torch.arange(N)), X)


TREES = {
    "a tuple": lambda x: (x, x + 1),
    "a dict of lists": lambda x: {"mean": [x, x * 2], "scale": x.exp()},
    "maps and numbers": lambda x: (x.reshape(-1, 1, 2, 1), 3, None, "name"),
    "a Gaussian": lambda x: Normal(x, 1.0),
    "an Independent one": lambda x: Independent(Normal(x, x.exp()), 1),
    "a full covariance": lambda x: MultivariateNormal(x, torch.eye(2)),
    "a Dirichlet in a dict": lambda x: {"q": Dirichlet(x + 1)},
}


@pytest.mark.parametrize("name", TREES)
@pytest.mark.parametrize("rows", [4, 100])
def test_rows_of_any_code(name: str, rows: int) -> None:
    """Blocks are joined, and rows taken in any order, of tensors and of distributions."""
    shelf = Shelf({"x": X}, None, TREES[name], rows=rows)
    numbers = torch.tensor([7, 0, 7, 4])
    found, expected = shelf.code(numbers), TREES[name](X[numbers])
    assert rows_of(found) == [4] * len(rows_of(expected)) and type(found) is type(expected)
    for one, other in zip(leaves(found), leaves(expected), strict=True):
        assert torch.allclose(one, other) if isinstance(one, Tensor) else one == other
    assert rows_of(joined([found, take(found, torch.tensor([1]))])) == [5] * len(rows_of(found))


def leaves(tree: Any) -> list[Any]:
    """Tensors, and of distributions a log-probability and the mean."""
    if isinstance(tree, torch.distributions.Distribution):
        return [tree.log_prob(torch.full(tree.mean.shape, 0.5)), tree.mean]
    if isinstance(tree, dict):
        tree = list(tree.values())
    if isinstance(tree, tuple | list):
        return [leaf for each in tree for leaf in leaves(each)]
    return [tree]


@pytest.mark.parametrize(
    "made", [lambda x: x[:1], lambda x: (x, x.flatten()), lambda x: x.sum(), lambda x: {"q": Normal(x.T, 1.0)}]
)
def test_a_code_of_other_rows_is_refused(made: Any) -> None:
    with pytest.raises(ConfigError, match="for 9 data; the first axis of all that it returns is the data"):
        Shelf({"x": X}, None, made).code(torch.arange(N))


@pytest.mark.parametrize("made", [lambda x: object(), lambda x: (x, x.numpy())])
def test_a_code_whose_rows_cannot_be_told_is_refused(made: Any) -> None:
    with pytest.raises(ConfigError, match="whose rows cannot be told; return tensors"):
        Shelf({"x": X}, None, made).code(torch.arange(N))


def test_a_dict_of_data_is_handed_over_as_one() -> None:
    shelf = Shelf({"image": X, "text": X.long()}, None, lambda data: data["image"] + data["text"], whole=False)
    assert torch.equal(shelf.code(torch.tensor([1])), 2 * X[1:2])


def test_without_encode_the_code_is_x() -> None:
    assert torch.equal(Shelf({"x": X}, None, None).code(torch.tensor([3, 1])), X[[3, 1]])


def test_an_encoder_that_changes_x_is_refused() -> None:
    def encode(x: Tensor) -> Tensor:
        return x.clamp_(0, 1)

    with pytest.raises(ConfigError, match="encode changed x in place"):
        Shelf({"x": X.clone()}, None, encode).code(torch.arange(N))
