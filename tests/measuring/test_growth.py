"""Memory in the sizes, as a ratio within one run. Time in the depth is a benchmark, `tests.measuring.growth`."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from hvae.diagnosis.sizes import Sizes
from hvae.diagnostics.knockouts import images_of_walks
from hvae.measuring.layers import ABOVE, measure_layers
from tests.measuring.growth import images, stack

MEMORY = """
import torch
from hvae.diagnosis.sizes import Sizes
from hvae.measuring.layers import measure_layers
from tests.measuring.growth import images, resident_megabytes, stack
torch.set_num_threads(1)
model, x = stack("{order}", 6, width=32), images(1100)
before = resident_megabytes()
with torch.no_grad():
    measure_layers(model, x[:{n}], Sizes(max_paths={paths}, epsilon_nats=1e-6), x[{n}:])
print(resident_megabytes() - before)
"""


@pytest.mark.slow
@pytest.mark.parametrize("order", ["bottom-up", "top-down"])
def test_memory_does_not_grow_with_the_number_of_paths(order: str) -> None:
    """16 and 512 paths for each of 400 images, while nothing is decided: had it kept them, 500 MB a layer."""

    def measured(paths: int) -> float:
        code = MEMORY.format(order=order, n=400, paths=paths)
        return float(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout)

    few, many = measured(16), measured(512)
    assert many < 1.2 * few + 50 and many < 700


def test_what_walks_once_a_layer_takes_fewer_images_of_deep_stacks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Images times layers are bounded, so images x layers x layers grow with the layers. Other quantities have all."""
    assert 48**2 * images_of_walks(512, 48) < 2.1 * 24**2 * images_of_walks(512, 24)
    monkeypatch.setattr("hvae.diagnostics.knockouts.MOST_WALKS", 4 * 75)
    model, x = stack("top-down", 4, width=2), images(90)
    sizes = Sizes(max_paths=8, n_mixture=1, n_alternatives=2, n_paths=2, n_paths_use=2, n_paths_knockout=2)
    with torch.no_grad():
        whole, first = measure_layers(model, x, sizes), measure_layers(model, x[:75], sizes)
    for one, other in zip(whole, first, strict=True):
        for quantity in ("reading_nats", "knockout_encoder_nats", ABOVE):
            assert np.allclose(one.interval(quantity), other.interval(quantity), atol=1e-5)
        assert not np.allclose(one.interval("rate_nats"), other.interval("rate_nats"), atol=1e-5)
