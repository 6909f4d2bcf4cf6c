"""What a diagnosis of a deep stack takes: seconds by part, exponent in the depth, resident memory.

`python -m tests.measuring.growth top-down` prints a table for 5 and 20 layers. Seconds are CPU time of one thread; only
their ratios within one run say something of the code.
"""

import resource
import sys
import time
from collections.abc import Callable

import torch

from hvae.data import Dataset
from hvae.diagnosis.sizes import Sizes
from hvae.diagnostics import rates, usage
from hvae.diagnostics.critic import decoder_use
from hvae.diagnostics.draws import Sampler
from hvae.diagnostics.information import information
from hvae.diagnostics.knockouts import Knockouts
from hvae.evidence import HVAE
from hvae.lab.assembly import build_hvae
from hvae.lab.config import ModelConfig, OrderName
from hvae.measuring.layers import measure_layers


def stack(order: OrderName, depth: int, *, width: int = 16) -> HVAE:
    """A stack of the laboratory as it is before training, for images of 64 pixels."""
    data = Dataset("toy", images(10), images(10), (8, 8), "binary", False)
    config = ModelConfig(latents=(width,) * depth, hidden=((2 * width,),), order=order)
    return build_hvae(config, data, seed=0).eval().requires_grad_(False)


def images(n: int) -> torch.Tensor:
    """Binary images of 64 pixels that hang from six numbers each."""
    source = torch.Generator().manual_seed(0)
    hidden = torch.randn(n, 6, generator=source) @ torch.randn(6, 64, generator=source)
    return (hidden + torch.randn(n, 64, generator=source) > 0).float()


def parts(order: OrderName, depth: int, n: int, max_paths: int) -> dict[str, Callable[[], object]]:
    """The parts of a diagnosis by name, and all of it."""
    model, x = stack(order, depth), images(3 * n)
    sampler, rest = Sampler(model, x[:n], 0), x[n:]
    evidence = sampler.evidence(32, "diagnostics")
    knockouts = Knockouts(sampler, evidence)
    return {
        "information": lambda: information(sampler, epsilon=0.1, max_paths=max_paths, extra=rest),
        "use U": lambda: usage.use(sampler, evidence),
        "use V": lambda: decoder_use(sampler, evidence, rest, epsilon=0.1),
        "encoder knock-outs": lambda: [knockouts.encoder(name) for name in model.latents],
        "model knock-outs": lambda: [knockouts.model(name) for name in model.latents],
        "rates": lambda: [rates.rates(evidence, name) for name in model.latents],
        "all": lambda: measure_layers(model, x[:n], Sizes(max_paths=max_paths), rest),
    }


@torch.no_grad()
def seconds(order: OrderName, depth: int, n: int = 200, max_paths: int = 256) -> dict[str, float]:
    """CPU seconds of each part."""
    found = {}
    for name, part in parts(order, depth, n, max_paths).items():
        started = time.process_time()
        part()
        found[name] = time.process_time() - started
    return found


def resident_megabytes() -> float:
    """The most that this process ever had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    torch.set_num_threads(1)
    chosen: OrderName = "bottom-up" if "bottom-up" in sys.argv else "top-down"
    before = resident_megabytes()
    few, many = seconds(chosen, 5), seconds(chosen, 20)
    for name in few:
        sys.stdout.write(f"{name:20} {few[name]:7.2f} {many[name]:7.2f} s\n")
    sys.stdout.write(f"memory: {before:.0f} MB with the imports, {resident_megabytes():.0f} MB\n")
