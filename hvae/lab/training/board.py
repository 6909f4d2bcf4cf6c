"""What TensorBoard shows of a run: one event directory per seed, so that seeds overlay under one name.

Scalars: bound, distortion, loss, beta, and per layer the rate and the number of active units. Images: the rate
per unit over training, samples from the prior, and reconstructions under their originals. Layers with
spatial latents are named with their resolution, and the rates of each resolution also have their sum. The
record is ``metrics.jsonl``; nothing is read back from event files. Without tensorboard (see `hvae.extras`)
a board warns once and shows nothing.

``active_units`` here is the count without what a unit inherits (`hvae.diagnostics.units`): in a ladder Burda's
counts 8 of 8 where 2 move with the image. That one is ``burda_active_units`` here, and ``active_units`` in
``metrics.jsonl``, where the name is older than this distinction.
"""

import warnings
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hvae import extras, rng
from hvae.data import Dataset
from hvae.diagnosis.pixels import Pixels
from hvae.evidence import HVAE
from hvae.lab.runs.run import Run
from hvae.topdown import ResidualDecoder

NOWHERE: Mapping[str, int] = MappingProxyType({})
MOST_ROWS = 960
"""of pixels, of the picture of all units"""
BETTER_COUNTS = ("twin_active_units", "residual_active_units")
"""of active units, without what a unit inherits"""


class Board:
    """Writers for every seed of a run, opened at ``first_step`` (later events of a killed run are hidden).

    ``resolutions`` are layer -> rows of its latent, for layers that are spatial.
    """

    def __init__(
        self, run: Run, seeds: Sequence[int], first_step: int, resolutions: Mapping[str, int] = NOWHERE
    ) -> None:
        self._resolutions = resolutions
        self._writers = _writers(run, seeds, first_step) if extras.has("tensorboard") else []
        if not self._writers:
            warnings.warn(extras.sentence("tensorboard", extras.WITHOUT_BOARD), stacklevel=2)
        self._history: list[dict[str, Any]] = [row for row in run.read_metrics() if row["step"] <= first_step]

    def __enter__(self) -> "Board":
        return self

    def __exit__(self, *error: object) -> None:
        for writer in self._writers:
            writer.close()

    def scalars(self, row: dict[str, Any]) -> None:
        """Show one row of metrics."""
        self._history.append(row)
        for name, values in row.items():
            if name == "step" or name.startswith("rate_unit_nats/"):
                continue
            self._show(tag_of(name, row, self._resolutions), values, row["step"])
        for name, values in rates_of_resolutions(row, self._resolutions).items():
            self._show(name, values, row["step"])

    def _show(self, tag: str, values: float | Sequence[float], step: int) -> None:
        for replica, writer in enumerate(self._writers):
            writer.add_scalar(tag, values if isinstance(values, float) else values[replica], step)

    def heat_map(self, step: int) -> None:
        """Rate per unit (down, z1 on top, largest first) over training (across): blue -1, white 0, red 1 nat."""
        names = [name for row in self._history[-1:] for name in row if name.startswith("rate_unit_nats/")]
        names.sort(key=lambda name: (len(name), name))  # z1, z2, …, z10
        if not names:
            return
        for replica, writer in enumerate(self._writers):
            layers = []
            for name in names:
                rates = np.array([row[name][replica] for row in self._history], dtype=float).T  # [D, steps]
                layers.append(rates[np.argsort(-rates[:, -1])])
            rates = np.clip(np.nan_to_num(np.concatenate(layers)), -1, 1)
            larger = max(1, min(6, MOST_ROWS // len(rates)))  # 40 layers of 16 units are 640 rows
            colours = np.stack([1 + np.minimum(rates, 0), 1 - np.abs(rates), 1 - np.maximum(rates, 0)])
            writer.add_image(
                "rate per unit over training, blue -1, white 0, red 1 nat", _enlarge(colours, larger), step
            )

    def pictures(self, model: HVAE, replica: int, seed: int, data: Dataset, step: int) -> None:
        """Samples from the prior, test images and their reconstructions (means), on the board.

        A model in training normalises by the batch at hand, so the batch is larger than what is shown.
        """
        if not self._writers:
            return
        n_drawn, n_shown = 64, 8
        chosen = rng.permutation(len(data.test), seed=0, purpose="pictures")[:n_drawn]  # a test set may be sorted
        x = data.test[chosen].to(next(model.parameters()).device)
        device = str(x.device)
        with torch.no_grad():
            drawn = rng.noise(model.decoder.noise_specs(), 1, n_drawn, seed=seed, purpose="pictures", device=device)
            samples = model.decoder.walk({}, drawn)["x"].mean[0]
            noise = rng.noise(model.noise_specs(), 1, len(x), seed=seed, purpose="pictures", step=1, device=device)
            reconstructions = model(x.unsqueeze(0), noise).p["x"].mean[0]
        for tag, values in (
            ("samples from the prior", samples),
            ("test images", x),
            ("reconstructions", reconstructions),
        ):
            self.images(tag, replica, values[:n_shown], data.image_shape, step)

    def images(self, tag: str, replica: int, values: Tensor, image_shape: tuple[int, ...], step: int) -> None:
        """Show values ``[n, D]`` of one replica as a row of images."""
        pixels = Pixels.of(image_shape)
        if pixels is None:
            return
        pictures = pixels.picture(values.detach().cpu().nan_to_num().clamp(0, 1).numpy())
        row = np.concatenate(list(pictures), axis=1)
        channels = row[None] if pixels.channels == 1 else np.moveaxis(row, -1, 0)
        self._writers[replica].add_image(tag, _enlarge(channels, 4), step)


def tag_of(name: str, row: Mapping[str, Any], resolutions: Mapping[str, int] = NOWHERE) -> str:
    """What the board calls an entry of a row: ``active_units`` is the best count that the row has of a layer.

    >>> tag_of("rate_nats/z7", {}), tag_of("rate_nats/z7", {}, {"z7": 4})
    ('rate_nats/z7', 'rate_nats/z7 at 4x4')
    """
    kind, _, layer = name.partition("/")
    called = f"{layer} at {_by(resolutions[layer])}" if layer in resolutions else layer
    if kind in BETTER_COUNTS:
        return f"active_units/{called}"
    if kind == "active_units" and any(f"{better}/{layer}" in row for better in BETTER_COUNTS):
        return f"burda_active_units/{called}"
    return f"{kind}/{called}" if layer else name


def resolutions(model: HVAE) -> dict[str, int]:
    """Layer -> rows of its latent; empty for a model without spatial latents."""
    decoder = model.decoder
    return {name: at.resolution for name, at in decoder.places.items()} if isinstance(decoder, ResidualDecoder) else {}


def rates_of_resolutions(row: Mapping[str, Any], resolutions: Mapping[str, int]) -> dict[str, list[float]]:
    """Tag -> the sum of the rates of all layers of a resolution, for each replica.

    >>> row = {"rate_nats/z1": [3.0, 4.0], "rate_nats/z2": [1.0, 0.5], "rate_nats/z3": [0.25, 0.0]}
    >>> rates_of_resolutions(row, {"z3": 1, "z2": 4, "z1": 4})
    {'rate_nats_of_resolution/1x1': [0.25, 0.0], 'rate_nats_of_resolution/4x4': [4.0, 4.5]}
    """
    found: dict[str, list[float]] = {}
    for layer, resolution in resolutions.items():
        tag, rates = f"rate_nats_of_resolution/{_by(resolution)}", row[f"rate_nats/{layer}"]
        found[tag] = [a + b for a, b in zip(found.get(tag, [0.0] * len(rates)), rates, strict=True)]
    return found


def _by(resolution: int) -> str:
    return f"{resolution}x{resolution}"


def _writers(run: Run, seeds: Sequence[int], first_step: int) -> list[Any]:
    from torch.utils.tensorboard import SummaryWriter  # here, since tensorboard may be absent

    return [
        SummaryWriter(str(run.path / "tensorboard" / f"seed-{seed}"), purge_step=first_step or None) for seed in seeds
    ]


def _enlarge(image: NDArray[Any], factor: int) -> NDArray[Any]:
    return image.repeat(factor, axis=-1).repeat(factor, axis=-2)
