"""What TensorBoard shows of a run: one event directory per seed, so that seeds overlay under one name.

Scalars: bound, distortion, loss, beta, and per layer the rate and the number of active units. Images: the rate
per unit over training, samples from the prior, and reconstructions under their originals. The
record is ``metrics.jsonl``; nothing is read back from event files. Without tensorboard (see
`hvae.extras`) a board warns once and shows nothing.

``active_units`` here is the count without what a unit inherits (`hvae.diagnostics.units`): in a ladder Burda's
counts 8 of 8 where 2 move with the image. That one is ``burda_active_units`` here, and ``active_units`` in
``metrics.jsonl``, where the name is older than this distinction.
"""

import warnings
from collections.abc import Mapping, Sequence
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

BETTER_COUNTS = ("twin_active_units", "residual_active_units")
"""of active units, without what a unit inherits"""


class Board:
    """Writers for every seed of a run, opened at ``first_step`` (later events of a killed run are hidden)."""

    def __init__(self, run: Run, seeds: Sequence[int], first_step: int) -> None:
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
            tag = tag_of(name, row)
            for replica, writer in enumerate(self._writers):
                value = values if isinstance(values, float) else values[replica]
                writer.add_scalar(tag, value, row["step"])

    def heat_map(self, step: int) -> None:
        """Rate per unit (down, z1 on top, largest first) over training (across): blue -1, white 0, red 1 nat."""
        names = sorted(name for row in self._history[-1:] for name in row if name.startswith("rate_unit_nats/"))
        if not names:
            return
        for replica, writer in enumerate(self._writers):
            layers = []
            for name in names:
                rates = np.array([row[name][replica] for row in self._history], dtype=float).T  # [D, steps]
                layers.append(rates[np.argsort(-rates[:, -1])])
            rates = np.clip(np.nan_to_num(np.concatenate(layers)), -1, 1)
            colours = np.stack([1 + np.minimum(rates, 0), 1 - np.abs(rates), 1 - np.maximum(rates, 0)])
            writer.add_image("rate per unit over training, blue -1, white 0, red 1 nat", _enlarge(colours, 6), step)

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


def tag_of(name: str, row: Mapping[str, Any]) -> str:
    """What the board calls an entry of a row: ``active_units`` is the best count that the row has of a layer."""
    kind, _, layer = name.partition("/")
    if kind in BETTER_COUNTS:
        return f"active_units/{layer}"
    if kind == "active_units" and any(f"{better}/{layer}" in row for better in BETTER_COUNTS):
        return f"burda_active_units/{layer}"
    return name


def _writers(run: Run, seeds: Sequence[int], first_step: int) -> list[Any]:
    from torch.utils.tensorboard import SummaryWriter  # here, since tensorboard may be absent

    return [
        SummaryWriter(str(run.path / "tensorboard" / f"seed-{seed}"), purge_step=first_step or None) for seed in seeds
    ]


def _enlarge(image: NDArray[Any], factor: int) -> NDArray[Any]:
    return image.repeat(factor, axis=-1).repeat(factor, axis=-2)
