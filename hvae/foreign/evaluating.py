"""The user's module while it is measured: in evaluation mode, with statistics of batch norm that are of these data."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from hvae.foreign.finding import Finding
from hvae.foreign.model import Model
from hvae.foreign.probe import Probe
from hvae.rng import noise

FAR, BATCH = 0.5, 256
"""standard deviations between running and own mean that are doubted, and the data that show them"""


@contextmanager
def evaluating(model: Model) -> Iterator[None]:
    """Has ``model.module`` in evaluation mode, its weights without gradients; puts both back as they were.

    >>> net = nn.Dropout()
    >>> with evaluating(Model(print, print, module=net)):
    ...     net.training
    False
    >>> net.training
    True
    """
    if model.module is None:
        yield
        return
    modes = {part: part.training for part in model.module.modules()}
    gradients = {weight: weight.requires_grad for weight in model.module.parameters()}
    try:
        model.module.eval()
        model.module.requires_grad_(False)
        yield
    finally:
        for part, mode in modes.items():
            part.training = mode  # `train(mode)` would set its children too
        for weight, wanted in gradients.items():
            weight.requires_grad_(wanted)


def normalised(probe: Probe) -> list[Finding]:
    """Batch norm: statistics that were never updated, or that are not those of the data."""
    norms = {
        name: part
        for name, part in probe.stack.module.named_modules()
        if isinstance(part, nn.modules.batchnorm._BatchNorm) and part.running_mean is not None
    }
    if not norms:
        return []
    distances = _distances(probe, norms)
    findings = []
    for name, part in norms.items():
        if part.num_batches_tracked is not None and int(part.num_batches_tracked) == 0:
            findings.append(
                Finding(
                    f"batch norm {name} has seen no batch in training: its mean 0 and variance 1 are not of your data; "
                    "train it, or let it see the training data once in training mode."
                )
            )
        elif distances.get(name, 0.0) > max(FAR, 3 / probe.stack.functions.shelf.first**0.5):
            findings.append(
                Finding(
                    f"batch norm {name}: its running mean is {distances[name]:.2f} standard deviations from the mean "
                    "of these data; let it see the training data once more in training mode."
                )
            )
    return findings


def _distances(probe: Probe, norms: Mapping[str, nn.Module]) -> dict[str, float]:
    """Distance between the running means and those of what passes, in running deviations, mean square over channels."""
    found: dict[str, float] = {}
    stack, device = probe.stack, probe.numbers.device
    numbers = torch.arange(min(BATCH, stack.functions.shelf.first), device=device)

    def hook(name: str) -> Callable[[nn.Module, Any], None]:
        def note(part: Any, given: Any) -> None:
            axes = [axis for axis in range(given[0].ndim) if axis != 1]
            off = (given[0].float().mean(axes) - part.running_mean) / (part.running_var + part.eps).sqrt()
            found[name] = max(found.get(name, 0.0), float(off.square().mean().sqrt()))

        return note

    drawn = noise(stack.noise_specs(), 1, len(numbers), seed=0, purpose="batch norm", device=str(device),
                  dtype=stack.functions.signature.dtype)  # fmt: skip
    handles = [part.register_forward_pre_hook(hook(name)) for name, part in norms.items()]
    try:
        stack.functions.shelf.encoded_now(numbers)
        stack.visit(stack.numbers[: len(numbers)].unsqueeze(0), drawn)
    finally:
        for handle in handles:
            handle.remove()
    return found
