"""Measuring and reporting, tried on two images before the first step of training."""

import tempfile
import warnings
from pathlib import Path

import torch
from torch import Tensor

from hvae.data import Dataset
from hvae.diagnosis import Sizes
from hvae.lab.assembly import build_hvae
from hvae.lab.config import RunConfig
from hvae.measuring import measure

N_IMAGES, MOST_TRAIN = 2, 1000
LEAST = Sizes(
    n_images=N_IMAGES, max_paths=2, n_mixture=1, n_alternatives=1, n_paths=2, n_paths_use=1, n_paths_knockout=2,
    n_likelihood=N_IMAGES, n_samples=2, n_pictures=1,
)  # fmt: skip


def rehearse(config: RunConfig, data: Dataset, device: str = "cpu", *, report: bool = True) -> None:
    """Measure the untrained model of a run on two test images, and draw its report into a folder that is thrown away.

    What fails here would fail after training, so nothing is lost. Passes on what measuring and drawing raise.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an untrained model says nothing of the trained one
        _rehearse(config, data, device, report)


def _rehearse(config: RunConfig, data: Dataset, device: str, report: bool) -> None:
    seed = config.training.seeds[0]
    with torch.no_grad():
        model = build_hvae(config.model, data, seed=seed).to(device).eval()
    found = measure(
        [model],
        data.test[[0, _unlike(data.test, 0)]].to(device),
        LEAST,
        seeds=(seed,),
        order=config.model.order,
        yardstick=config.yardstick,
        shape=data.image_shape,
        label="rehearsal",
        source="",
        train=data.train[:MOST_TRAIN],
    )
    if report:
        with tempfile.TemporaryDirectory() as folder:
            found.report(Path(folder) / "report.html")


def _unlike(x: Tensor, place: int) -> int:
    """The first image that differs from the one at a place; measuring refuses images that are all equal."""
    return int((x != x[place]).any(1).int().argmax())
