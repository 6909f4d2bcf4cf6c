"""Inputs that are bad by construction."""

import atexit
import dataclasses
import io
import itertools
import json
import os
import random
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from hvae.lab.completion import complete
from hvae.lab.config import DataConfig, EvaluationConfig, ModelConfig, RunConfig, TrainingConfig
from hvae.lab.config.checks import limits
from hvae.lab.runs.run import Run
from tests.lab.cli.test_cli import BAD, SETTINGS
from tests.outside.test_plain import BAD_YAML
from tests.reliability import places
from tests.reliability.page import REPO
from tests.reliability.places import nothing

SHARES = {"configurations": 0.4, "flags": 0.3, "files": 0.22, "environments": 0.08}
TINY = (
    "--model.latents=[2]", "--model.hidden=[[4]]", "--training.n_steps=3", "--training.seeds=[0]",
    "--training.batch_size=8", "--evaluation.n_images=8", "--evaluation.max_paths=4", "--evaluation.n_likelihood=4",
    "--evaluation.n_samples=4",
)  # fmt: skip


@dataclass(frozen=True)
class Bad:
    """A command, with the files and the environment that it meets."""

    arguments: Sequence[str]
    files: Mapping[str, bytes] = field(default_factory=dict)
    prepare: Callable[[Path], None] = nothing
    environment: Mapping[str, str] = field(default_factory=dict)
    from_nowhere: bool = False
    """in a folder that is deleted"""
    may_work: bool = False
    n_warnings: int = 0
    own: str = "\0"
    """beginning of what the command may write"""

    def begin_anew(self, folder: Path) -> None:
        """In another interpreter, which sees the environment."""
        environment = {**os.environ, "PYTHONPATH": str(REPO), **self.environment}
        if self.from_nowhere:
            gone = folder / "gone"
            gone.mkdir()
            os.chdir(gone)
            gone.rmdir()
        os.execve(sys.executable, [sys.executable, "-m", "hvae", *self.arguments], environment)


# Settings


def fields() -> Iterator[tuple[str, str, Any, Any]]:
    """Section, name, default and limits of every setting."""
    for section in dataclasses.fields(RunConfig):
        record = getattr(RunConfig(), section.name)
        if dataclasses.is_dataclass(record):
            known = limits(type(record))
            for each in dataclasses.fields(record):
                yield section.name, each.name, getattr(record, each.name), known.get(each.name)


def values() -> Iterator[tuple[str, str, Any]]:
    """Section, name and a value that it cannot have."""
    for section, name, default, between in fields():
        for value in ({"no_such_key": 1}, [[[[1]]]]):
            yield section, name, value
        if between is not None:
            for value in (between.least - 1, between.most * 10 + 1, "many", True, float("nan")):
                yield section, name, [value] if isinstance(default, tuple) else value
        yield section, f"{name}_", 1
        yield section, name[:-1] or "q", 1


def configurations(rng: random.Random) -> list[Bad]:
    made = [
        Bad(["train", "--config", "f.json"], {"f.json": json.dumps({section: {name: value}}).encode()})
        for section, name, value in values()
    ]
    made += [Bad(["train", "--config", "f.yaml"], {"f.yaml": content}) for content, _ in SETTINGS]
    made += [
        Bad(["train", "--config", "f.yaml"], {"f.yaml": b"model: " + text.encode("utf-8", "surrogatepass")})
        for text in BAD_YAML
        if "\n" not in text and len(text) < 1000
    ]
    made += [Bad(["train", "--config", "f.yaml"], {"f.yaml": rng.randbytes(200)}) for _ in range(20)]
    rng.shuffle(made)
    return made


# Flags

OPTIONS: Mapping[str, Sequence[str]] = {
    "run": ("--preset", "--workers", "--threads", "--device", "--only", "--data-dir", "--runs-dir", "--scheduler"),
    "train": ("--config", "--label", "--device", "--threads", "--data-dir", "--runs-dir"),
    "report": ("--preset", "--to", "--runs-dir"),
    "evaluate": (
        "--likelihood", "--images", "--samples", "--chains", "--temperatures", "--leapfrog", "--draws", "--gradients",
        "--until-se", "--device", "--threads", "--data-dir", "--runs-dir",
    ),
    "complete": ("--device", "--threads", "--data-dir", "--runs-dir"),
    "compare": ("--runs-dir",),
    "list": ("--runs-dir",),
    "verify": ("--runs-dir",),
    "data": ("--data-dir",),
}  # fmt: skip
NEEDED = {
    "run": ["depth"], "report": ["mine"], "evaluate": ["mine"], "complete": ["mine"], "compare": ["mine", "mine"],
    "verify": ["mine"], "data": ["verify"],
}  # fmt: skip


BEYOND = ("-1", "1.5", "x", str(10**23), "9" * 5000)
DEVICES = ("abacus", "cuda:99", "cpu:5", "meta", "mps", "xla", "hpu", "CPU", "cpu ", "cuda:" + "9" * 400)
UNPRINTABLE = ("a\nb", "a\rb", "\x1b[2J", "r" * 5000)


def mine() -> Callable[[Path], None]:
    return run_with("label.txt", b"mine\n")


def flags(rng: random.Random) -> list[Bad]:
    made = [Bad(arguments) for arguments, _ in BAD]
    for command, names in OPTIONS.items():
        needed = NEEDED.get(command, [])
        made += [Bad([command, *needed, name]) for name in names]  # without a value
        made += [Bad([command, *needed, f"{name}x=1"]) for name in names]
        made += [Bad([command, *needed, f"{name}="]) for name in names]  # of a variable that is not set
        made += [Bad([command, *needed, name, " "]) for name in names]
        made += [Bad([command, *needed, "surplus", "more"]), Bad([command, *needed, "--"])]
    for name in ("--images", "--samples", "--chains", "--temperatures", "--leapfrog", "--draws", "--gradients"):
        made += [
            Bad(["evaluate", "mine", "--likelihood=annealing", f"{name}={value}"], prepare=mine()) for value in BEYOND
        ]
    for command in ("run", "train", "complete", "evaluate"):
        needed = NEEDED.get(command, [])
        made += [Bad([command, *needed, f"--device={name}"], prepare=mine()) for name in DEVICES]
    made += [Bad([*command, name]) for command in (["report"], ["run"], ["train", "--config"]) for name in UNPRINTABLE]
    made += [Bad(["evaluate", "mine", f"--until-se={text}"], prepare=mine()) for text in ("0", "-1", "nan", "1e-300")]
    made += [
        Bad(["train", f"--{section}.{name}={json.dumps(value)}"])
        for section, name, value in itertools.islice(values(), 0, None, 5)
    ]
    made += [Bad(["run", "depth", f"--only={text}"]) for text in ("9/3", "0/3", "x/3", "no such label", "")]
    made += [Bad(["run", "depth", f"--scheduler={text}"]) for text in ("nonsense", "tcp://", "tcp://127.0.0.1:9")]
    rng.shuffle(made)
    return made


# Files


def npy(array: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.asarray(array), allow_pickle=True)
    return stream.getvalue()


def npz(**arrays: Any) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


def mat(**arrays: Any) -> bytes:
    from scipy.io import savemat

    stream = io.BytesIO()
    savemat(stream, arrays)
    return stream.getvalue()


def data(rng: random.Random) -> Iterator[tuple[str, bytes]]:
    """Name and content of files of data that cannot be meant."""
    source = np.random.default_rng(0)
    x = source.standard_normal((60, 5))
    holed = x.copy()
    holed[7, 3] = np.nan
    table = "\n".join(["a,b,c", *(",".join(f"{v:.3f}" for v in row[:3]) for row in x)])
    yield from {
        "empty.npy": b"", "empty.npz": b"", "empty.csv": b"", "empty.mat": b"",
        "blank.npy": npy(np.zeros((60, 5))), "same.npy": npy(np.full((60, 5), 0.3)), "nan.npy": npy(holed),
        "inf.npy": npy(x * np.inf), "huge.npy": npy(x * 1e300), "complex.npy": npy(x + 1j),
        "text.npy": npy([["a", "b"]] * 60), "objects.npy": npy(np.array([{"a": 1}] * 60, dtype=object)),
        "dates.npy": npy(np.zeros((60, 5), "datetime64[s]")), "scalar.npy": npy(3.0), "line.npy": npy(np.arange(60.0)),
        "one.npy": npy(x[:1]), "none.npy": npy(x[:0]), "narrow.npy": npy(x[:, :0]),
        "films.npy": npy(source.random((60, 4, 4, 4, 3))), "counts.npy": npy(source.poisson(3.0, (60, 5))),
        "dark.npy": npy(source.integers(0, 17, (60, 8, 8), dtype=np.uint8)),
        "two.npy": npy(source.choice([2.0, 7.0], (60, 5))), "nothing.npz": npz(), "labels.npz": npz(y=np.arange(60)),
        "scales.npz": npz(train=x, test=255 * np.abs(x) + 1000), "widths.npz": npz(train=x, test=x[:, :3]),
        "string.mat": mat(x="text"), "words.csv": b"a,b\nc,d\ne,f\n", "ragged.csv": b"1,2,3\n4,5\n6,7,8\n" * 20,
        "hole.csv": table.replace("\n", "\n,", 1).encode(), "header.csv": b"a,b,c\n", "nul.csv": b"1,2\n3,\x004\n" * 30,
        "latin.csv": "é,b\n1,2\n".encode("latin-1"), "nan.csv": (table + "\nnan,1,2\n").encode(),
        "wide.csv": (b"1," * 10 + b"\n") * 30, "picture.png": b"\x89PNG\r\n", "frame.pkl": b"\x80\x04}",
        "deep.h5": b"\x89HDF\r\n", "sheet.xlsx": b"PK\x03\x04", "frame.parquet": b"PAR1", "tensor.pt": b"PK\x03\x04",
        "notes.txt": b"hello\n", "noend": b"1,2,3\n",
    }.items()  # fmt: skip
    whole = {"cut.npy": npy(x), "cut.npz": npz(train=x[:50], test=x[50:]), "cut.mat": mat(x=x)}
    for name, content in whole.items():
        for _ in range(12):
            yield name, content[: rng.randrange(len(content) - 8)]
    for suffix in ("npy", "npz", "mat"):
        for _ in range(6):
            yield f"noise.{suffix}", rng.randbytes(300)


@cache
def trained() -> Path:
    """A folder with a run that was trained and measured, for as long as this process lives."""
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    model = ModelConfig(latents=(2,), hidden=((4,),))
    training = TrainingConfig(n_steps=3, seeds=(0,), batch_size=8)
    evaluation = EvaluationConfig(n_images=8, max_paths=4, n_likelihood=4, n_samples=4)
    config = RunConfig(DataConfig("digits-threshold"), model, training=training, evaluation=evaluation)
    complete(Run.create_or_open(folder, "own", "mine", config), progress=False)
    return folder


def run_with(place: str, content: bytes | None) -> Callable[[Path], None]:
    """Lays out a finished run, with another content of a file, or with its end cut off."""

    def prepare(folder: Path) -> None:
        shutil.copytree(trained(), folder / "runs")
        file = next((folder / "runs/own").iterdir()) / place
        file.write_bytes(file.read_bytes()[:-20] if content is None else content)

    return prepare


def files(rng: random.Random) -> list[Bad]:
    found = list(data(rng))
    made = [Bad(["train", *TINY, f"--data.name={name}", *LIKELY], {name: content}) for name, content in found]
    made += [Bad(["train", *TINY, "--data.name=missing.npy"]), Bad(["train", *TINY, "--data.name=.", *LIKELY])]
    made += [Bad(arguments, prepare=laid) for arguments, laid in places.arguments(["train", *TINY, *LIKELY])]
    for command in ("report", "evaluate", "complete"):
        made += [
            Bad([command, "runs/own"], prepare=run_with("config.json", content), n_warnings=1)
            for content in (None, b"", b"{}", b"[]", b"\xff\xfe", b"[" * 5000)
        ]
    rng.shuffle(made)
    return made


LIKELY = ("--model.observation=gaussian",)

# Environments


def environments(rng: random.Random) -> list[Bad]:
    made = []
    for variable, settings in {
        "HVAE_DATA": ("file", "/proc/none", "\x01"), "TMPDIR": ("/none",), "HOME": ("/none", "file"),
        "LANG": ("xx_YY",), "LC_ALL": ("C", "tr_TR"), "PYTHONIOENCODING": ("ascii", "latin-1", "utf-16"),
        "COLUMNS": ("0", "-1", "1", "many"), "LINES": ("x",), "OMP_NUM_THREADS": ("many", "0", "-1"),
        "MPLBACKEND": ("nonsense",), "MPLCONFIGDIR": ("file/below",), "XDG_CACHE_HOME": ("file",), "NO_COLOR": ("1",),
        "TERM": ("dumb", ""),
        "PYTHONUTF8": ("0",), "PYTHONOPTIMIZE": ("2",), "TZ": ("nowhere",), "CUDA_VISIBLE_DEVICES": ("x",),
    }.items():  # fmt: skip
        for value in settings:
            for arguments in (["list"], ["report", "runs/own"]):
                given = {"file": b"x"}
                made.append(Bad(arguments, given, mine(), {variable: value}, may_work=True, own="runs/"))
    made += [Bad(["list"], from_nowhere=True, may_work=True), Bad(["train", *TINY], from_nowhere=True)]
    made += [Bad(["train", *TINY], {"runs": b"a file"}), Bad(["train", *TINY, "--runs-dir=file"], {"file": b"x"})]
    made += [Bad(["data", "get", "mnist-grey", "--data-dir=file"], {"file": b"x"})]
    made += [Bad(["train", *TINY, "--data.name=mnist-grey", "--data-dir=file"], {"file": b"x"})]
    rng.shuffle(made)
    return made
