"""Features of images: the last hidden layer of a classifier that an experiment trains on the labels."""

from collections.abc import Mapping
from typing import Any

import numpy as np


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
