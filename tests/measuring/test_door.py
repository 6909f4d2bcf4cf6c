"""What `diagnose` refuses of its arguments: one sentence each, before the model is called."""

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Normal

import hvae
from hvae.diagnosis.sizes import Budget, Sizes
from hvae.errors import ConfigError
from hvae.exact.known_stacks import linear_stack

SMALL = Sizes(
    n_images=16, max_paths=16, n_mixture=1, n_paths=2, n_paths_use=2, n_paths_knockout=2, n_likelihood=16, n_samples=10,
)  # fmt: skip
X = torch.randn(40, 2, generator=torch.Generator().manual_seed(0))


def model(name: str = "z", width: int = 2, law: Callable[..., Any] = Normal) -> hvae.Model:
    def infer(visit: hvae.Visit) -> None:
        visit(name, Normal(visit.code[:, :width], 1.0))

    def generate(visit: hvae.Visit) -> None:
        z = visit(name, Normal(torch.zeros(width), 1.0))
        visit("x", law(z.mean(-1, keepdim=True).expand(-1, 2), 1.0))

    return hvae.Model(infer, generate)


def anything(*values: Any) -> tuple[Any, ...]:
    return values


def uncalled() -> hvae.Model:
    def never(visit: hvae.Visit) -> None:
        raise AssertionError("the model was called")

    return hvae.Model(never, never)


def diagnose(of: Any, x: Any = X, context: Any = None, **asked: Any) -> hvae.Diagnosis:
    return hvae.diagnose(of, x, context, progress=False, **{"sizes": SMALL, **asked})


@pytest.mark.parametrize(
    ("asked", "value", "sentence"),
    [
        *(("further", value, "further") for value in anything(["nope"], 5, [5], "nope", ["gap", "nope"])),
        *(("budget", value, "give a hvae.Budget") for value in anything(5, "a", {})),
        *(("sizes", value, "give one of quick, usual, thorough") for value in anything(5, True, [], {}, "Quick", "")),
        *(("max_rows", value, "max_rows is") for value in (-1, 0, 1.5, "a", float("nan"), True)),
        *(("seed", value, "seed is") for value in (1.5, float("inf"), None, "a", -1, 2**64)),
        *(("budget_seconds", value, "budget_seconds is") for value in ("a", [1], float("nan"), 0, -1)),
        *(("label", value, "label is") for value in (5, None)),
        *(("parents", value, "dict of lists") for value in (5, "z", ["z"], {"z": 5}, {"x": "z"})),
        ("own_elbo", 5, "own_elbo is 5; give a function"),
    ],
)
def test_arguments_are_checked_before_the_model_is_called(asked: str, value: Any, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        diagnose(uncalled(), **{asked: value})


def test_one_word_is_a_list_of_one() -> None:
    assert diagnose(model(), further="exact", budget=Budget(images=4)).exact is not None
    assert diagnose(model(), further=None).exact is None


@pytest.mark.parametrize(
    "given", [nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 2)), lambda visit: None, 5, None, {}, {"z": 1}, "abc", [5]]
)
def test_what_is_no_model(given: Any) -> None:
    with pytest.raises(ConfigError, match=r"diagnose was given .*make a hvae.Model"):
        diagnose(given)


@pytest.mark.parametrize(
    ("x", "sentence"),
    [
        ([[1.0], [1.0, 2.0]], "pad them"),
        (torch.zeros(40, 0), "no number a datum"),
        (X + 0j, "real numbers"),
        (X.to("meta"), "on meta"),
    ],
)
def test_what_are_no_data(x: Any, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        diagnose(uncalled(), x)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_rows_of_many_lengths() -> None:
    with pytest.raises(ConfigError, match=r"nested tensor .* pad them"):
        diagnose(uncalled(), torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)]))


@pytest.mark.parametrize(
    ("items", "sentence"),
    [([torch.zeros(1), torch.zeros(2)], "pad them"), (["a", "b"], "an item of the data set is a str")],
)
def test_items_of_a_data_set(items: list[Any], sentence: str) -> None:
    class Items(torch.utils.data.Dataset[Any]):
        def __len__(self) -> int:
            return len(items)

        def __getitem__(self, place: int) -> Any:
            return items[place]

    with pytest.raises(ConfigError, match=sentence):
        diagnose(uncalled(), Items())


def test_a_sparse_tensor_is_that_tensor() -> None:
    sparse, dense = diagnose(model(), X.to_sparse()), diagnose(model(), X)
    assert sparse.likelihood is not None and dense.likelihood is not None
    assert (sparse.likelihood.bound_nats == dense.likelihood.bound_nats).all()


def test_an_empty_context() -> None:
    with pytest.raises(ConfigError, match="the context is empty"):
        diagnose(uncalled(), context={})


def test_x_of_another_width_than_the_house_s_own_model_has() -> None:
    with pytest.raises(ConfigError, match="x has 99 numbers a datum"):
        diagnose(linear_stack(1.0, "best", seed=0).model, torch.randn(40, 99))


def test_a_latent_called_x() -> None:
    with pytest.raises(ConfigError, match="give the latent another name"):
        diagnose(model("x"))


def test_replicas_of_other_models() -> None:
    others = {
        "the order of p is w, x, there z, x": model("w"),
        "the shape of z under p is .1,., there .2,.": model(width=1),
        "the distribution of x under p is Laplace": model(law=torch.distributions.Laplace),
    }
    for sentence, other in others.items():
        with pytest.raises(ConfigError, match=f"model 1 is no replica of model 0: {sentence}"):
            diagnose([model(), other])
    assert len(diagnose([model(), model()]).seeds) == 2


@pytest.mark.parametrize("value", [lambda x: x.sum(1).to("meta"), lambda x: x.sum(1) + 0j])
def test_an_own_elbo_without_real_numbers(value: Callable[[Tensor], Tensor]) -> None:
    with pytest.raises(ConfigError, match=r"own_elbo gave .* return real numbers"):
        diagnose(model(), own_elbo=value)


def test_sizes_and_budget_are_whole_numbers() -> None:
    for make in (lambda: Sizes(n_images=1.5), lambda: Budget(images="a")):  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match="whole number"):
            make()


@pytest.mark.parametrize("kind", [Sizes, Budget])
def test_every_size_has_a_least_and_a_most(kind: type[Sizes] | type[Budget]) -> None:
    for knob in dataclasses.fields(kind):
        several = knob.name == "gradients"
        for number in (-(10**400), -(10**5000), 10**23, 10**5000, float("inf"), float("nan")):
            with pytest.raises(ConfigError, match=f"{knob.name} is") as refusal:
                kind(**{knob.name: (number,) if several else number})
            assert len(str(refusal.value)) < 200
        most = {"seed": 2**63 - 1, "until_se": 1e6, "epsilon_nats": 1e6}.get(knob.name, 10**7)
        kind(**{knob.name: (most,) if several else most})
    if kind is Sizes:
        for name in ("until_se", "epsilon_nats"):
            with pytest.raises(ConfigError, match=f"{name} is 1e-300; give 1e-09 to 1e[+]06 nats"):
                Sizes(**{name: 1e-300})  # type: ignore[arg-type]
