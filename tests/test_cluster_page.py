"""The page on many machines: its script for SLURM runs, with stand-ins for SLURM; its exit codes are ours."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from hvae.lab import endings

PAGE = (Path(__file__).parents[1] / "docs" / "cluster.md").read_text(encoding="utf-8")
STANDINS = {
    "srun": 'exec "$@"',
    "hvae": 'echo "hvae $*" >> "$SEEN"; exit $CODE',
    "scontrol": 'echo "scontrol $*" >> "$SEEN"',
}


@pytest.mark.parametrize(("code", "requeued"), [(0, False), (1, False), (2, False), (75, True), (130, True)])
def test_the_script_runs_its_share_and_is_queued_again_where_that_helps(
    code: int, requeued: bool, tmp_path: Path
) -> None:
    (script,) = re.findall(r"```text\n(#!/bin/bash\n.*?)```", PAGE, flags=re.DOTALL)
    for name, body in STANDINS.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(0o755)
    activate = tmp_path / "hvae_home" / "hvae" / ".venv" / "bin" / "activate"
    activate.parent.mkdir(parents=True)
    activate.touch()
    environment = {
        "PATH": f"{tmp_path}:{os.environ['PATH']}", "HOME": str(tmp_path / "hvae_home"), "SEEN": str(tmp_path / "seen"),
        "CODE": str(code), "SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_COUNT": "20", "SLURM_ARRAY_JOB_ID": "77",
    }  # fmt: skip
    outcome = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert (outcome.returncode, outcome.stderr) == (code, "")
    command, *more = (tmp_path / "seen").read_text().splitlines()
    assert command.startswith("hvae run depth --preset cpu") and command.endswith("--only 3/20")
    assert more == ["scontrol requeue 77_3"] * requeued


def test_the_exit_codes_are_those_of_the_command_line() -> None:
    said = {int(code) for code in re.findall(r"^\| (\d+) \|", PAGE.partition("## Exit codes")[2], flags=re.MULTILINE)}
    names = ("DONE", "FAILED", "REFUSED", "MISTAKE", "HELD", "STOPPED")
    assert said == {getattr(endings, name) for name in names}
