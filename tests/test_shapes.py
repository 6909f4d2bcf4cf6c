"""Annotated shapes are what is there: other tests once more, with every call of the instrument checked."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.shapes import EXEMPT, INSTRUMENT, ROOMS, modules

REPO = Path(__file__).parents[1]
QUICK = ("tests/test_every_stack.py", "tests/diagnostics/test_rates.py")
SLOW = (
    "tests/test_network.py", "tests/test_evidence.py", "tests/test_posterior.py", "tests/families/test_every_family.py",
    "tests/objectives/test_objectives.py", "tests/likelihood/test_importance.py",
    "tests/exact/test_linear_gaussian.py", "tests/exact/test_linear_gaps.py",
)  # fmt: skip

PLANTED = """
import json
from contextlib import contextmanager
from functools import cached_property

from tests.shapes import check
check()

import torch
from beartype import beartype
from jaxtyping import TypeCheckError, jaxtyped
from torch import nn
from torch.func import functional_call, stack_module_state, vmap

from hvae import rng
from hvae.evidence import HVAE, Evidence
from hvae.families import DiagonalGaussian
from hvae.nets import Root
from hvae.network import BeliefNetwork, Conditional, Site
from hvae.objectives import Elbo
from hvae.posterior import NetworkPosterior


def model(seed):
    torch.manual_seed(seed)
    prior = Conditional("z", [], Root(torch.zeros(4), learned=True), DiagonalGaussian(2))
    decoder = BeliefNetwork([prior, Conditional("x", ["z"], nn.Linear(2, 6), DiagonalGaussian(3))])
    encoder = BeliefNetwork([Conditional("z", ["x"], nn.Linear(3, 4), DiagonalGaussian(2))])
    return HVAE(decoder, NetworkPosterior(encoder))


one = model(0)
x, noise = torch.randn(1, 5, 3), rng.noise(one.noise_specs(), 4, 5, seed=0, purpose="test")
stacked, _ = stack_module_state([one, model(1)])


def whole(weights):
    return functional_call(one, weights, (x, noise)).log_weight


def replicas():
    return vmap(whole)(stacked)


def step(x=x):
    return Elbo().on(one, x, noise, 0)[0]


@contextmanager
def planted(owner, name, alter):
    # the member as it would be written with the fault in it: annotated, and checked as its module is
    before = vars(owner)[name]
    right = before.func if isinstance(before, cached_property) else before

    def wrong(*arguments):
        return alter(right(*arguments))

    wrong.__annotations__ = {"return": right.__annotations__["return"]}
    checked = jaxtyped(wrong, typechecker=beartype)
    setattr(owner, name, checked if right is before else property(checked))
    yield
    setattr(owner, name, before)


def told(act):
    try:
        act()
    except TypeCheckError as error:
        return str(error).splitlines()[0]
    return ""


found = {"nothing": told(step), "nothing, under vmap": told(replicas), "x without the axis K": told(lambda: step(x[0]))}
for name, (owner, member, alter) in {
    "a draw without the axis K": (DiagonalGaussian, "draw", lambda value: value[0]),
    "terms per unit, summed": (DiagonalGaussian, "unit_log_prob", lambda terms: terms.sum(-1)),
    "a log-probability, not summed": (Site, "log_prob", lambda summed: summed[..., None].expand(-1, -1, 3)),
    "a rate, averaged over data": (Evidence, "rate", lambda rate: rate.mean(-1)),
    "a weight in whole numbers": (Evidence, "rate", lambda rate: rate.long()),
}.items():
    with planted(owner, member, alter):
        found[name] = told(step)
        found[name + ", under vmap"] = told(replicas)
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def found() -> dict[str, str]:
    """What was planted -> the first line of what the check says; empty where it says nothing."""
    outcome = subprocess.run([sys.executable, "-c", PLANTED], cwd=REPO, capture_output=True, text=True, check=False)
    assert outcome.returncode == 0, outcome.stderr
    answers: dict[str, str] = json.loads(outcome.stdout)
    return answers


def test_a_wrong_shape_is_seen_and_a_right_one_is_not(found: dict[str, str]) -> None:
    for planted, said in found.items():
        assert bool(said) == (not planted.startswith("nothing")), (planted, said)
        assert not said or "Type-check error" in said


def test_every_room_is_checked_but_what_is_exempt() -> None:
    checked = {module for room in ROOMS for module in modules(room)}
    for name in EXEMPT:
        assert name not in checked and INSTRUMENT.joinpath(*name.split(".")[1:]).with_suffix(".py").is_file()
    assert len(checked) > 30


def once_more(tests: tuple[str, ...]) -> None:
    options = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-p", "tests.shapes", "-m", "not slow"]
    options += ["-k", "not stranger"]  # the check refuses a wrong type before the code itself can
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    outcome = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *tests],
        cwd=REPO, env=environment | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert outcome.returncode == 0, outcome.stdout[-5000:]


@pytest.mark.slow
def test_stacks_and_rates_have_the_shapes_that_are_said() -> None:
    once_more(QUICK)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_so_have_families_objectives_and_exact_answers() -> None:
    once_more(SLOW)
