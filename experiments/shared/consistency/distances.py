"""How far single-shot samples, the limit of the encode-decode chain and test images lie apart, replica by replica.

Fréchet distances in features of a classifier, always of n samples against n, as the distance of finite samples is too
high by an amount that falls with n; each with a bootstrap interval that corrects it (`hvae.numerics`).
"""

from collections.abc import Callable, Sequence

import numpy as np
from torch import Tensor

from hvae.evidence import HVAE
from hvae.experiments.shared.consistency.chain import chain, mean_after
from hvae.lab.evaluation.replicas import Arrays
from hvae.likelihood.sandwich import simulate
from hvae.numerics import FloatArray, frechet_interval, frechet_of_samples

Features = Callable[[FloatArray], FloatArray]
"""images [n, D] -> features [n, d]"""
N_SHOWN = 10


def consistency(
    models: Sequence[HVAE], alive: Sequence[bool], halves: tuple[Tensor, Tensor], features: Features, *,
    n_steps: int, n_bootstrap: int, seed: int,
) -> Arrays:  # fmt: skip
    """Distances ``<name>`` [R, 3] and uncorrected ``<name>/plain`` [R], and images of the first living replica with
    the means of the distributions that they were drawn from.

    ``halves`` [n, D] are disjoint test images: chains start from the first, distances to test images are to the second.

        limit-shot    chain from data after T steps, and single-shot samples
        limit-test    … and test images
        shot-test     single-shot samples and test images
        settling      chain from data after T/2 and after T steps: has it come to rest?
        starts        chains from data and from single-shot samples after T steps: has it forgotten its start?

    A replica that failed has NaN.
    """
    start, test = halves
    rows: list[dict[str, FloatArray]] = []
    shown: Arrays = {}
    names = ("limit-shot", "limit-test", "shot-test", "settling", "starts")
    for replica, model in enumerate(models):
        if not alive[replica]:
            blank = {name: np.full(3, np.nan) for name in names}
            rows.append(blank | {f"{name}/plain": np.array(np.nan) for name in names})
            continue
        shot, latents = simulate(model, len(start), seed + replica, start)
        states = {0: start} | chain(model, start, (n_steps // 2, n_steps - 1, n_steps), seed + replica)
        other = chain(model, shot, (n_steps,), seed + len(models) + replica)[n_steps]
        images = {"shot": shot, "half": states[n_steps // 2], "limit": states[n_steps], "other": other, "test": test}
        seen = {name: features(values.cpu().numpy()) for name, values in images.items()}
        pairs = dict(zip(names, ("limit shot", "limit test", "shot test", "limit half", "limit other"), strict=True))
        row = {}
        for name, pair in pairs.items():
            a, b = (seen[key] for key in pair.split())
            row[name] = frechet_interval(a, b, n_bootstrap, seed, paired=name == "settling")
            row[f"{name}/plain"] = np.array(frechet_of_samples(a, b))
        rows.append(row)
        if not shown:
            of_shot = model.decoder.family("x").mean(model.decoder.distribution("x", latents))[0]
            means = {"shot": of_shot, "limit": mean_after(model, states[n_steps - 1], n_steps, seed + replica)}
            shown = {f"images/{name}": images[name][:N_SHOWN].cpu().numpy() for name in means}
            shown |= {f"images/{name}/mean": mean[:N_SHOWN].detach().cpu().numpy() for name, mean in means.items()}
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]} | shown
