"""A flow that scores its own draws only is admitted, and what depends on its draws is found."""

import torch
from torch.distributions import Normal

from hvae.foreign import Model, Stack, Visit, pushed
from hvae.rng import noise


def infer(visit: Visit) -> None:
    base = Normal(visit.code[:, :2], 1.0)
    a = visit("a", pushed(base, lambda e: (2 * e, torch.full((len(e),), 2.0).log() * 2)))
    visit("b", Normal(a, 1.0))


def generate(visit: Visit) -> None:
    b = visit("b", Normal(torch.zeros(2), 1.0))
    visit("x", Normal(visit("a", Normal(b, 1.0)).repeat(1, 2), 1.0))


def test_it_is_walked_and_its_children_are_found() -> None:
    x = torch.linspace(-1, 1, 24).reshape(6, 4)
    stack = Stack.of(Model(infer, generate), {"x": x})
    assert dict(stack.functions.signature.q_parents) == {"a": ("x",), "b": ("a",)}
    evidence = stack(stack.numbers.unsqueeze(0), noise(stack.noise_specs(), 3, 6, seed=0, purpose="test"))
    by_hand = Normal(2 * x[:, :2], 2.0).log_prob(evidence.q["a"].value).sum(-1)
    assert torch.allclose(evidence.q["a"].log_prob.float(), by_hand, atol=1e-5)
