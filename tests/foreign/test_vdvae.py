"""A residual top-down net of twenty layers, written by a user: it enters in a few lines, and planted layers are found.

Nets are those of `examples/vdvae.py`. Every planted layer has a cause that is known by construction.
"""

import inspect
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Normal

import hvae
from hvae.foreign.stack import Stack
from hvae.measuring import door
from hvae.vocabulary import COLLAPSED, TO_PRIOR, TO_STANDARD, UNREAD
from tests.foreign.examples import example

SIZES = (1,) * 3 + (2,) * 4 + (4,) * 6 + (8,) * 7


vdvae = example("vdvae")


def images(n: int) -> Tensor:
    """Squares of 4 x 4 at random places, with a twentieth of the pixels flipped."""
    source = torch.Generator().manual_seed(0)
    found = torch.zeros(n, 1, 8, 8)
    for image in found:
        row, column = torch.randint(5, (2,), generator=source).tolist()
        image[:, row : row + 4, column : column + 4] = 1
    flipped = torch.rand(n, 1, 8, 8, generator=source) < 0.05
    return torch.where(flipped, 1 - found, found)


class Planted(nn.Module):
    """A block whose posterior or projection is another."""

    def __init__(self, block: Any, kind: str) -> None:
        super().__init__()
        self.block, self.kind, self.size = block, kind, block.size

    def prior(self, h: Tensor) -> Normal:
        if self.kind == "standard":
            zero = torch.zeros_like(self.block.prior(h).mean)
            return Normal(zero, torch.ones_like(zero))
        found: Normal = self.block.prior(h)
        return Normal(found.mean + 3, found.stddev / 4) if self.kind == "moved" else found

    def posterior(self, h: Tensor, activations: Tensor) -> Normal:
        if self.kind in ("standard", "moved", "cut off"):
            return self.prior(h)
        found: Normal = self.block.posterior(h, activations)
        return Normal(300 * activations[:, : vdvae.UNITS], found.stddev) if self.kind == "ignored" else found

    def widen(self, h: Tensor) -> Tensor:
        wide: Tensor = self.block.widen(h)
        return wide

    def below(self, h: Tensor, z: Tensor) -> Tensor:
        below: Tensor = self.block.below(h, 0 * z if self.kind == "ignored" else z)
        return below


PLANTED = {"z20": "ignored", "z14": "standard", "z9": "cut off", "z4": "moved"}


@pytest.fixture(scope="module")
def net() -> Any:
    torch.manual_seed(0)
    found = vdvae.TopDown(SIZES)
    for name, kind in PLANTED.items():
        found.blocks[name] = Planted(found.blocks[name], kind)
    return found.eval()


def test_planted_layers_are_found_among_twenty(net: Any) -> None:
    sizes = hvae.Sizes(n_images=80, max_paths=16, n_mixture=1, n_paths=4, n_paths_use=4, n_paths_knockout=2,
                       n_likelihood=16, n_samples=4, n_pictures=0)  # fmt: skip
    found = hvae.diagnose(vdvae.as_model(net), images(80), own_elbo=net.elbo, sizes=sizes, progress=False)
    verdicts = {name: words[0] for name, words in found.verdicts.items()}
    assert list(verdicts) == [f"z{place}" for place in range(1, 21)]
    assert verdicts["z14"] == TO_STANDARD
    assert verdicts["z9"] == TO_PRIOR
    assert verdicts["z4"] == TO_PRIOR  # both moved to where N(0, I) is not
    assert verdicts["z20"] == UNREAD
    assert verdicts["z1"] not in COLLAPSED  # a rate of thousands of nats
    assert any("own_elbo agrees" in sentence for sentence in found.checks)


def test_it_enters_in_at_most_fifteen_lines() -> None:
    assert len(inspect.getsource(vdvae.as_model).splitlines()) <= 15


def test_what_a_diagnosis_of_twenty_layers_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    """At most thirteen times the rows of 200 ELBOs of the net's own, L_100 included, where every V_l is walked."""

    def walk(visit: Any) -> None:
        h = torch.zeros(visit.rows, 1)
        for place in range(20, 0, -1):
            z = visit(f"z{place}", p=Normal(h, 1.0), q=lambda h=h: Normal(h + visit.code / 20, 0.9))
            h = h + z / 20
        visit("x", p=Normal(h, 1.0))

    opened: list[Stack] = []
    keep = door._opened

    def kept(*arguments: Any) -> Any:
        opened.append(keep(*arguments))
        return opened[-1]

    monkeypatch.setattr(door, "_opened", kept)
    n = 32  # of so few the pairs of data cost less than their share, so they are added below
    sizes = door.LEVELS["usual"]
    x = torch.randn(n, 1, generator=torch.Generator().manual_seed(0))
    hvae.diagnose(hvae.Model.joint(walk), x, sizes=sizes, progress=False)
    (stack,) = opened
    once = 2 * 4096  # prior means: once, whatever n
    a_datum = (stack.functions.calls.rows - once) / n + 2 * (128 - n)
    assert a_datum + once / 128 <= 13 * 2 * 200
