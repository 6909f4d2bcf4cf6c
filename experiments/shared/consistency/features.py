"""Features of images: the last hidden layer of a classifier that an experiment trains on the labels.

An experiment that compares the agreement of encoder and decoder measures it in these features (`parts`).
"""

from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

Further = Callable[[str, Any, Any, Any], dict[str, Any]]
"""(label, run, what is trained, data) -> more arrays of the run"""
NEEDS = {"sklearn": "The classifier behind the Fréchet distances needs"}
"""what an experiment that calls `parts` says in its own `NEEDS`"""
ON_CPU = ("classifier",)
"""a part that stays on the CPU, as its package does"""


def parts(
    preset: str, runs: Mapping[str, Path], data_dir: Path | None, say: Callable[[str], None], device: str, *,
    classifier: Mapping[str, Any], consistency: Mapping[str, int], further: Further,
) -> dict[str, Callable[[], Any]]:  # fmt: skip
    """`classifier` (weights, accuracy, the distance of two halves of the test images), then a part for every run.

    All runs have the data of the first. A part holds the distances of `distances` and the arrays of ``further``, made
    on the device.
    """
    from hvae.experiments.shared.consistency.distances import consistency as distances
    from hvae.lab.completion import load_data
    from hvae.lab.runs.files import load_arrays
    from hvae.lab.runs.run import Run
    from hvae.lab.training.loop import load_trained
    from hvae.numerics import frechet_interval, frechet_of_samples

    first, n = next(iter(runs.values())), consistency["n_samples"]
    data = cache(lambda: load_data(Run.open(first).config, data_dir))

    def train_classifier() -> Any:
        say(f"classifier of {data().name}")
        found = train(data(), **classifier)
        a, b = (of(found, half.numpy()) for half in (data().test[:n], data().test[n : 2 * n]))
        floor = {
            "floor": frechet_interval(a, b, consistency["n_bootstrap"], 0),
            "floor/plain": np.array(frechet_of_samples(a, b)),
        }
        return found | floor | {"n_samples": np.array(n), "n_steps": np.array(consistency["n_steps"])}

    def of_run(label: str, path: Path) -> Any:
        say(f"consistency of {label}")
        weights = load_arrays(first.parent / "measured" / preset / "classifier.npz", "run the experiment again")
        run = Run.open(path)
        trained = load_trained(run, data(), device)
        halves = (data().test[:n].to(device), data().test[n : 2 * n].to(device))
        found = distances(
            trained.models, trained.alive, halves, lambda x: of(weights, x),
            n_steps=consistency["n_steps"], n_bootstrap=consistency["n_bootstrap"], seed=0,
        )  # fmt: skip
        return found | further(label, run, trained, data())

    return {"classifier": train_classifier} | {path.name: partial(of_run, label, path) for label, path in runs.items()}


def train(data: Any, hidden: tuple[int, ...], epochs: int) -> dict[str, Any]:
    """Weights of rectifier layers fitted to the labels of the training images, and how often they are right."""
    import warnings

    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPClassifier

    train, uniform = data.train.numpy(), np.random.default_rng(0).random(data.train.shape, dtype=np.float32)
    shown = (uniform < train).astype(np.float32) if data.dynamic else train
    net = MLPClassifier(hidden, max_iter=epochs, batch_size=100, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the number of passes is part of the preset
        net.fit(shown, data.train_labels.numpy())
    layers = zip(net.coefs_[:-1], net.intercepts_[:-1], strict=True)
    found = {f"layer/{i}/{kind}": w for i, layer in enumerate(layers) for kind, w in zip("wb", layer, strict=True)}
    return found | {
        "test_accuracy": np.array(net.score(data.test.numpy(), data.test_labels.numpy())),
        "train_accuracy": np.array(net.score(shown, data.train_labels.numpy())),
    }


def of(weights: Mapping[str, Any], x: Any) -> Any:
    """What the last hidden layer of the classifier says of images [n, D]: [n, d]."""
    n_layers = sum(key.startswith("layer/") for key in weights) // 2
    for i in range(n_layers):
        x = np.maximum(x @ weights[f"layer/{i}/w"] + weights[f"layer/{i}/b"], 0)
    return np.asarray(x, dtype=np.float64)
