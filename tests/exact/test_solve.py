"""Which reference a decoder gets, and what is said of one that has none."""

import pytest
import torch
from torch import nn

from hvae.exact import DiscreteChain, LinearGaussian, NoReferenceError, Quadrature, Reference, solve
from hvae.families import Bernoulli, DiagonalGaussian, Family
from hvae.nets import Root
from hvae.network import BeliefNetwork, Conditional
from tests.exact.stacks import decoder as linear_decoder


def stack(latent: Family, net: nn.Module, x: Family) -> BeliefNetwork:
    prior = DiagonalGaussian(latent.units) if isinstance(latent, DiagonalGaussian) else latent
    root = Root(prior.standard_outputs(), learned=False)
    return BeliefNetwork([Conditional("z1", [], root, prior), Conditional("x", ["z1"], net, x)])


def bent(n_in: int, n_out: int, activation: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Linear(n_in, 3), activation, nn.Linear(3, n_out))


@pytest.mark.parametrize(
    ("decoder", "kind"),
    [
        (linear_decoder((4, 3, 2)), LinearGaussian),
        (linear_decoder((3, 1)), LinearGaussian),  # though quadrature would do
        (stack(Bernoulli(4), bent(4, 3, nn.ReLU()), Bernoulli(3)), DiscreteChain),
        (stack(DiagonalGaussian(2), bent(2, 3, nn.Tanh()), Bernoulli(3)), Quadrature),
        (stack(DiagonalGaussian(2), nn.Linear(2, 3), Bernoulli(3)), Quadrature),
    ],
)
def test_the_first_reference_that_takes_the_decoder(decoder: BeliefNetwork, kind: type[Reference]) -> None:
    reference = solve(decoder)
    assert type(reference) is kind
    log_px = reference.log_px(torch.ones(2, decoder["x"].family.width))
    assert log_px.shape == (2,) and log_px.dtype == torch.float64 and bool(log_px.isfinite().all())


@pytest.mark.parametrize(
    ("decoder", "reason"),
    [
        (stack(DiagonalGaussian(4), bent(4, 3, nn.Tanh()), Bernoulli(3)), "Quadrature: the latents have 4 dimensions"),
        (stack(DiagonalGaussian(2), bent(2, 3, nn.ReLU()), Bernoulli(3)), "Quadrature: the net of x contains ReLU"),
        (stack(Bernoulli(40), nn.Linear(40, 3), Bernoulli(3)), "Quadrature: z1 is drawn from uniform noise"),
    ],
)
def test_one_sentence_joins_the_reasons(decoder: BeliefNetwork, reason: str) -> None:
    with pytest.raises(NoReferenceError, match=reason) as caught:
        solve(decoder)
    said = str(caught.value)
    assert "not LinearGaussian: " in said and "not DiscreteChain: " in said
    assert said.endswith(").") and "\n" not in said and ".;" not in said
