"""Images are neighbours in pairs."""

import numpy as np
import torch

from hvae.diagnostics.draws import Sampler
from tests.diagnostics.chains import Stack, link, root

STACK = Stack([link(1, 0.1)], [root(1.0), link(1, 0.1)])


class Grouped(Sampler):
    """With contexts of its own."""

    @property
    def groups(self) -> torch.Tensor:  # type: ignore[override]
        return self.x[:, 0].long()


def test_neighbours_are_pairs_and_the_last_three_of_an_odd_number_a_circle() -> None:
    for n in range(1, 12):
        found = Sampler(STACK.bottom_up(), torch.zeros(n, 1), 0)
        _hold(found.neighbours.numpy(), found.pairs, np.zeros(n))


def test_with_contexts_both_of_a_pair_share_one() -> None:
    labels = np.random.default_rng(0).integers(12, size=41)
    found = Grouped(STACK.bottom_up(), torch.tensor(labels).unsqueeze(1), 0)
    _hold(found.neighbours.numpy(), found.pairs, labels)


def _hold(neighbours: np.ndarray, pairs: np.ndarray, labels: np.ndarray) -> None:
    assert sorted(neighbours) == list(range(len(labels)))
    assert (labels[neighbours] == labels).all() and (pairs[neighbours] == pairs).all()
    for label in np.unique(labels):
        sizes = sorted(np.unique(pairs[labels == label], return_counts=True)[1])
        n = np.count_nonzero(labels == label)
        assert sizes == ([1] if n == 1 else [2] * (n // 2 - n % 2) + [3] * (n % 2))
        assert ((neighbours == np.arange(len(labels)))[labels == label]).all() == (n == 1)
