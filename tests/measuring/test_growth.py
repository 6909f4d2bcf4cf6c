"""Memory in the sizes, as a ratio within one run. Time in the depth is a benchmark, `tests.measuring.growth`."""

import subprocess
import sys

import pytest

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
