"""What each command does."""

from collections.abc import Callable
from typing import Any

from hvae.lab.cli.making import complete_run, run_experiment, train_stack
from hvae.lab.cli.measuring import evaluate_runs
from hvae.lab.cli.reading import compare, list_runs, manage_data, report, verify_runs

COMMANDS: dict[str, Callable[[Any], int]] = {
    "run": run_experiment,
    "train": train_stack,
    "complete": complete_run,
    "evaluate": evaluate_runs,
    "report": report,
    "list": list_runs,
    "compare": compare,
    "verify": verify_runs,
    "data": manage_data,
}
