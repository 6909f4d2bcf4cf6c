"""What rounding does to log p(x), and whether the same command makes the same bits."""

import hashlib
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from hvae.evidence import HVAE
from hvae.lab.completion import complete, load_data
from hvae.lab.config import DataConfig, ModelConfig, ObjectiveConfig, RunConfig, TrainingConfig
from hvae.lab.runs.run import Run
from hvae.lab.training.loop import load_trained
from hvae.numerics import log_mean_exp
from tests.reliability.figure import Figure, Row, share
from tests.reliability.page import REPO

N_SAMPLES = 500
TOLERANCE = 0.001
"""nats"""
BASE = RunConfig(
    DataConfig("digits-threshold"),
    ModelConfig(latents=(6, 3), hidden=((50,), (20,))),
    training=TrainingConfig(seeds=(0,), n_steps=300, batch_size=50, log_every_steps=50),
)
CONFIGS = {
    "bottom-up": BASE,
    "ladder": replace(BASE, model=replace(BASE.model, order="ladder")),
    "iwae": replace(BASE, objective=ObjectiveConfig("iwae", gradient="doubly-reparametrised", n_samples=4)),
}


def estimates(model: HVAE, x: Tensor, noise: dict[str, Tensor], autocast: bool = False) -> Tensor:
    """L_k of each datum, from the same draws in the type of x; the mean is taken in float64."""
    cast = {name: draws.to(x.dtype) for name, draws in noise.items()}
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        return log_mean_exp(model(x.unsqueeze(0), cast).log_weight.double(), 0)


def rounding(run: Run, n: int) -> list[Row]:
    data = load_data(run.config)
    (model,) = load_trained(run, data).models
    model, x = model.eval(), data.test[:n]
    source = torch.Generator().manual_seed(0)
    specs = model.noise_specs()
    noise = {
        name: torch.randn(N_SAMPLES, n, width, generator=source, dtype=torch.float64)
        for name, (_, width) in specs.items()
    }
    low, coarse = estimates(model, x, noise), estimates(model, x, noise, autocast=True)
    exact = estimates(model.double(), x.double(), noise)
    rows = []
    for what, found in (("float32", low), ("bfloat16 by autocast", coarse)):
        drift = (found - exact).abs()
        words = f"{drift.mean():.1e} nats from float64 on average, {drift.max():.1e} at most, {n} images"
        small, twin = bool(drift.max() < TOLERANCE), what != "float32"
        rows.append(Row(what, words, small != twin, twin))
    return rows


def digests(path: Path) -> str:
    """Of all that numbers come from: the newest checkpoint's tensors, the metrics, the arrays."""
    newest = torch.load(max(path.glob("checkpoints/step-*.pt")), weights_only=True)
    found = hashlib.sha256(repr([(k, v.numpy().tobytes()) for k, v in newest["state"]["parameters"].items()]).encode())
    for file in (path / "metrics.jsonl", *sorted((path / "evaluation").glob("*.npz"))):
        found.update(file.read_bytes())
    return found.hexdigest()


AGAIN = """
import sys
from pathlib import Path
import torch
from tests.reliability.drift import CONFIGS, digests, made
torch.set_num_threads(int(sys.argv[3]))
print(digests(made(Path(sys.argv[1]), sys.argv[2]).path))
"""


def made(root: Path, name: str) -> Run:
    """Trained and measured."""
    run = Run.create_or_open(root, "trial", name, CONFIGS[name])
    complete(run, progress=False)
    return run


def again(name: str, n_threads: int) -> str:
    """What a fresh process makes of the same configuration."""
    with tempfile.TemporaryDirectory() as scratch:
        command = [sys.executable, "-c", AGAIN, scratch, name, str(n_threads)]
        return subprocess.run(command, cwd=REPO, capture_output=True, text=True, check=True).stdout.strip()


def measure(n: int) -> Sequence[Row]:
    """n images; a configuration for every 30 of them."""
    torch.set_num_threads(1)
    names = list(CONFIGS)[: max(1, n // 30)]
    with tempfile.TemporaryDirectory() as scratch:
        first = made(Path(scratch), names[0])
        rows = rounding(first, n)
        same = [again(name, 1) == again(name, 1) for name in names]
    what = "the same command in two processes, one thread: weights, metrics, arrays"
    return [
        *rows,
        Row(what, share(sum(same), len(same), "configurations the same bit for bit"), all(same)),
        Row("a GPU against the CPU", "not measured: none was at hand", ok=True),
    ]


DRIFT = Figure(
    "drift",
    "Rounding and reproducibility",
    f"L_{N_SAMPLES} of the same weights and draws, in float64, float32 and bfloat16. hvae estimates in float32 "
    f"or better; an image may drift by {TOLERANCE} nats. The promise: the same machine, versions and number of threads "
    "make the same bits. Elsewhere numbers agree within their intervals.",
    100,
    measure,
)
