"""A small finished run, as training and measuring write one, in a hundredth of a second."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from hvae.diagnosis.card import Card
from hvae.lab.config import RunConfig, TrainingConfig
from hvae.lab.runs.checkpoints import save_checkpoint
from hvae.lab.runs.identity import PIN
from hvae.lab.runs.manifest import FILE, OWNER
from hvae.lab.runs.run import Run
from hvae.vocabulary import RULE

N_STEPS = 20
CARD = Card(
    name="wine.csv", shape=(3,), kind="real", n_train=9, n_test=2, train_range=(-3.0, 2.5), test_range=(-1.0, 2.5),
    n_distinct=257,
)  # fmt: skip
DATA = "ab" * 32


def config_of(n_steps: int = N_STEPS, seeds: tuple[int, ...] = (0, 1), log_every_steps: int = 5) -> RunConfig:
    return RunConfig(training=TrainingConfig(n_steps=n_steps, seeds=seeds, log_every_steps=log_every_steps))


def finished(root: Path, label: str = "mine", config: RunConfig | None = None, seed: int = 0) -> Run:
    run = begun(root, label, config_of() if config is None else config, seed)
    rng = np.random.default_rng(seed)
    rows_to(run, N_STEPS, rng)
    save_checkpoint(run, N_STEPS, state(N_STEPS))
    measured(run, rng)
    run.mark_done()
    return run


def begun(root: Path, label: str, config: RunConfig, seed: int = 0) -> Run:
    """At step 10 of 20."""
    run = Run.create_or_open(root, "own", label, config)
    run.keep_data(DATA, lambda: [CARD])
    rng = np.random.default_rng(seed)
    with run.session("cpu", 1):
        run.save_arrays("start", {"bound_nats": rng.normal(size=2), "rate_nats/z1": rng.normal(size=2)})
        rows_to(run, 10, rng)
        run.save_arrays("halfway", {"elbo_datum_nats": rng.normal(size=(2, 6)), "step": np.array(10)})
        save_checkpoint(run, 10, state(10))
    return run


def rows_to(run: Run, step: int, rng: np.random.Generator) -> None:
    run.append_metrics([{"step": s, "bound_nats": rng.normal(size=2).tolist()} for s in range(step - 5, step + 1, 5)])


def measured(run: Run, rng: np.random.Generator, step: int = N_STEPS) -> None:
    rates = {f"rate_nats/z{layer}": rng.normal(size=(2, 3)) for layer in (1, 2)}
    words = {f"verdict/z{layer}": np.array([["active"] * 3] * 2) for layer in (1, 2)}
    run.save_arrays("diagnostics", {**rates, **words, "step": np.array(step), "rule": np.array(RULE)})
    run.save_arrays("likelihood", {"bound_nats": rng.normal(size=(2, 4))}, step=step)
    run.save_arrays("gap", {"gap_nats": rng.normal(size=(2, 4)), "step": np.array(step)})


def state(step: int) -> dict[str, Any]:
    return {"parameters": {"w": torch.full((2, 30), float(step))}, "alive": torch.tensor([True, True])}


def make_old(run: Run, *, pinned: bool = False) -> None:
    """As a run of before manifests: its arrays do not say whose they are."""
    for name in (FILE,) if pinned else (FILE, PIN):
        (run.path / name).unlink()
    for file in (run.path / "evaluation").glob("*.npz"):
        with np.load(file) as arrays:
            kept = {name: arrays[name] for name in arrays.files if name != OWNER}
        np.savez(file, **kept)
