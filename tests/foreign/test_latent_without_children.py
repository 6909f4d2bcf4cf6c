"""A latent that the decoder makes nothing of is measured like any other: its use is exactly nothing."""

import torch
from torch.distributions import Normal

import hvae
from hvae.foreign import Visit


def test_it_is_used_by_nothing() -> None:
    def infer(visit: Visit) -> None:
        visit("a", Normal(visit.code[:, :2], 0.5))
        visit("b", Normal(torch.zeros(2), 1.0).expand((visit.rows, 2)))

    def generate(visit: Visit) -> None:
        visit("b", Normal(torch.zeros(2), 1.0))
        visit("x", Normal(visit("a", Normal(torch.zeros(2), 1.0)).repeat(1, 2), 0.5))

    x = torch.randn(80, 2, generator=torch.Generator().manual_seed(0)).repeat(1, 2)
    found = hvae.diagnose(hvae.Model(infer, generate), x, sizes="quick", progress=False)
    assert found.verdicts == {"a": ("active",), "b": ("collapsed to N(0, I)",)}
    (layer,) = (layer for layer in found.layers if layer.name == "b")
    assert (layer.intervals["reading_nats"] == 0).all()
