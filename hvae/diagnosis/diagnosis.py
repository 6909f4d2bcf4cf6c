"""A diagnosis: what was measured, as a value that is kept, printed and drawn.

`hvae.measuring.measure` makes one from models; a run's evaluation is one as well. It holds no model and needs no torch.
"""

from dataclasses import dataclass, replace
from pathlib import Path

from hvae.diagnosis.arrays import from_arrays
from hvae.diagnosis.measured import Measured
from hvae.diagnosis.saved import Saved, holds_run, save


@dataclass(frozen=True, eq=False)
class Diagnosis(Measured):
    """What was measured of R replicas of one model. `hvae.measuring.measure` makes it.

    >>> from tempfile import TemporaryDirectory
    >>> from hvae.exact.known_stacks import linear_stack
    >>> from hvae.measuring import Sizes, measure
    >>> stack = linear_stack(1.0, "best", seed=0)
    >>> sizes = Sizes(n_images=6, max_paths=16, n_likelihood=6, n_samples=10, n_bootstrap=50)
    >>> diagnosis = measure([stack.model], stack.x, sizes)
    >>> with TemporaryDirectory() as folder:
    ...     again = Diagnosis.read(diagnosis.save(folder))
    >>> again.verdicts == diagnosis.verdicts, again.source
    (True, 'measured from outside')
    """

    def save(self, directory: Path | str) -> Path:
        """Write it into a directory, which `read` and `hvae report` read; returns the directory."""
        return save(self, Path(directory))

    @staticmethod
    def read(directory: Path | str) -> "Diagnosis":
        """What `save` wrote, or the evaluation of a run. Raises `ConfigError` where neither is there."""
        path = Path(directory)
        if holds_run(path):
            from hvae.analysis.load import load_runs

            (run,) = load_runs(path)
            found: Diagnosis = run.diagnosis
            return found
        saved = Saved.open(path)
        found = from_arrays(Diagnosis, saved.load_if_there, label=saved.label, source=saved.source)
        return replace(found, notes=saved.notes, checks=saved.checks)
