"""The outermost net, from outside: real processes, real streams, real signals."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hvae.lab.cli import entry, main
from hvae.lab.config import RunConfig
from hvae.lab.interrupts import TOGETHER_SECONDS
from hvae.lab.runs.run import Run

REPO = Path(__file__).parents[3]
TINY = RunConfig.from_dict(
    {
        "data": {"name": "synthetic-binary-2", "n_train": 64},
        "model": {"latents": [2], "hidden": [[4]]},
        "training": {"seeds": [0], "n_steps": 4, "batch_size": 16, "log_every_steps": 2},
        "evaluation": {"n_images": 8, "max_paths": 4, "n_likelihood": 4, "n_samples": 8},
    }
)


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(REPO), "OMP_NUM_THREADS": "1", **more}


def test_a_mistake_is_one_sentence_with_its_own_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def mistaken(*arguments: object) -> int:
        raise AttributeError("no such thing\nat all")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(entry, "_command", mistaken)
    assert main(["list"]) == 70
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("hvae: unexpected: AttributeError: no such thing at all; the traceback is in ")


def test_a_mistake_while_a_run_is_at_work_is_kept_with_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from hvae.lab import completion

    def mistaken(*arguments: object, **more: object) -> None:
        raise KeyError("lost")

    run = Run.create_or_open(tmp_path / "runs", "own", "mine", RunConfig())
    monkeypatch.setattr(completion, "train", mistaken)
    assert main(["complete", str(run.path)]) == 70
    assert capsys.readouterr().err.splitlines()[-1].endswith(str(run.path / "log.txt"))
    assert "KeyError: 'lost'" in (run.path / "log.txt").read_text()


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8", "utf-16", "cp1252"])
def test_no_encoding_fails(encoding: str) -> None:
    text = "ELBO −3.0 ± 0.1, β = 1, 2 × 3, naïve, 語, \udce9"
    code = f"from hvae.lab.cli import output; output.use_any_encoding(); output.say({text!r}); print({text!r})"
    outcome = subprocess.run(
        [sys.executable, "-c", code], env=environment(PYTHONIOENCODING=encoding), capture_output=True, check=False
    )
    assert outcome.returncode == 0, outcome.stderr
    said, printed = (stream.decode(encoding).strip() for stream in (outcome.stderr, outcome.stdout))
    assert said == printed
    assert printed.startswith("ELBO −3.0 ±" if encoding.startswith("utf") else "ELBO -3.0 ")
    if encoding == "ascii":
        assert printed == "ELBO -3.0 +- 0.1, beta = 1, 2 x 3, na\\xefve, \\u8a9e, \\udce9"


def test_a_reader_that_has_seen_enough_is_no_error(tmp_path: Path) -> None:
    command = f"{sys.executable} -m hvae list | head -n 1"
    outcome = subprocess.run(command, shell=True, cwd=tmp_path, env=environment(), capture_output=True, check=True)
    assert outcome.stderr == b"" and outcome.stdout.count(b"\n") == 1
    reading, writing = os.pipe()
    os.close(reading)
    outcome = subprocess.run(
        [sys.executable, "-m", "hvae", "list"],
        stdout=writing,
        stderr=subprocess.PIPE,
        cwd=tmp_path,
        env=environment(),
        check=False,
    )
    os.close(writing)
    assert outcome.returncode == 1 and outcome.stderr == b""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no device that is always full")
def test_a_full_disk_behind_stdout_is_one_sentence(tmp_path: Path) -> None:
    with open("/dev/full", "wb") as full:
        outcome = subprocess.run(
            [sys.executable, "-m", "hvae", "list"], stdout=full, stderr=subprocess.PIPE, cwd=tmp_path, env=environment()
        )
    (line,) = outcome.stderr.decode().splitlines()
    assert outcome.returncode == 2 and "No space left on device; make room" in line


def test_closed_streams_are_no_error(tmp_path: Path) -> None:
    command = f"exec {sys.executable} -m hvae list >&- 2>&-"
    assert subprocess.run(command, shell=True, cwd=tmp_path, env=environment(), check=False).returncode == 0


WAITING = """
import sys, time
from hvae.lab.cli import entry
def waiting(arguments, places):
    {body}
entry._command = waiting
sys.exit(entry.main(["list"]))
"""


def _begin(body: str, *, before: str = "") -> "subprocess.Popen[bytes]":
    process = subprocess.Popen(
        ["sh", "-c", f'{before} exec {sys.executable} -c "$CODE"'],
        env=environment(CODE=WAITING.format(body=body)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout is not None and process.stdout.readline() == b"begun\n"
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_anywhere_is_130_and_one_sentence(number: signal.Signals) -> None:
    process = _begin("print('begun', flush=True); time.sleep(60)")
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130 and err == b"Stopped; the same command goes on from there.\n"


def test_a_download_that_is_stopped_leaves_nothing(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        mirror = f"http://127.0.0.1:{server.getsockname()[1]}"
        process = subprocess.Popen(
            [sys.executable, "-m", "hvae", "data", "get", "mnist-grey", "--data-dir", str(tmp_path)],
            env=environment(HVAE_DATA_MIRROR=mirror), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        server.settimeout(60)
        asking, _ = server.accept()
        with asking:
            asking.recv(1000)
            asking.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\nbegun")
            time.sleep(0.5)
            process.send_signal(signal.SIGTERM)
            out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (130, b"")
    assert err == b"Stopped; the same command goes on from there.\n" and list(tmp_path.iterdir()) == []


def test_a_second_signal_ends_at_once() -> None:
    process = _begin("""
    try:
        print('begun', flush=True)
        time.sleep(60)
    finally:
        print('saving', flush=True)
        time.sleep(60)
    """)
    process.send_signal(signal.SIGTERM)
    assert process.stdout is not None and process.stdout.readline() == b"saving\n"
    process.send_signal(signal.SIGHUP)  # a terminal that closes may send several: one request
    time.sleep(TOGETHER_SECONDS + 0.5)
    assert process.poll() is None
    begun = time.monotonic()
    process.send_signal(signal.SIGHUP)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130 and b"Stopped at once" in err and time.monotonic() - begun < 20


def test_nohup_is_heeded() -> None:
    process = _begin("print('begun', flush=True); time.sleep(1)\n    return 0", before="trap '' HUP;")
    process.send_signal(signal.SIGHUP)
    process.communicate(timeout=30)
    assert process.returncode == 0


STAGES = {
    "training": ("complete", "hvae.lab.training.loop", "row_of"),
    "measuring": ("complete", "hvae.lab.completion", "evaluate"),
    "reporting": ("report", "hvae.analysis.report", "write_report"),
}
"""where the signal comes: the command, and a function that it calls"""
STOPPED = """
import importlib, os, signal, sys
from hvae.lab.cli import main
command, module, name, run = sys.argv[1:]
place = importlib.import_module(module)
work = getattr(place, name)
def stopped(*arguments, **more):
    os.kill(os.getpid(), signal.SIGHUP)
    return work(*arguments, **more)
setattr(place, name, stopped)
sys.exit(main([command, run]))
"""


@pytest.mark.parametrize("stage", STAGES)
def test_a_signal_while_a_run_is_made_leaves_a_run_that_goes_on(stage: str, tmp_path: Path) -> None:
    """Stopped in the middle of training, measuring or drawing; the same command then completes the run."""
    run = Run.create_or_open(tmp_path / "runs", "own", "mine", TINY)
    command, module, name = STAGES[stage]
    if command == "report":
        assert main(["complete", str(run.path)]) == 0
    first = subprocess.run(
        [sys.executable, "-c", STOPPED, command, module, name, str(run.path)],
        cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert first.returncode == 130, first.stderr
    assert first.stderr.splitlines()[-1].endswith("goes on from there.") and "Traceback" not in first.stderr
    assert run.done == (command == "report")
    assert (stage != "training") == (run.last_step() == TINY.training.n_steps)
    assert main(["complete", str(run.path)]) == 0 and run.done


def test_a_deleted_folder_is_one_sentence(tmp_path: Path) -> None:
    """Before torch is imported: MKL would end the process without a word."""
    code = "import os, sys; os.mkdir('gone'); os.chdir('gone'); os.rmdir('../gone'); from hvae.lab.cli import main; "
    command = [sys.executable, "-c", code + "sys.exit(main(['train']))"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert ended.stderr == "hvae: The working folder has been deleted; go to one that exists.\n"


def test_whatever_window_system_is_set_is_no_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MPLBACKEND", "nonsense")
    main(["list"])
    assert os.environ["MPLBACKEND"] == "agg"
