"""A diagnosis: what was measured, as a value that is kept, printed and drawn.

`hvae.measuring.measure` makes one from models; a run's evaluation is one as well. It holds no model and needs no torch.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hvae.diagnosis.arrays import from_arrays
from hvae.diagnosis.frames import to_dataframe, to_datatree
from hvae.diagnosis.measured import Measured
from hvae.diagnosis.saved import Saved, holds_run, save


@dataclass(frozen=True, eq=False, repr=False)
class Diagnosis(Measured):
    """What was measured of R replicas of one model. `hvae.measuring.measure` makes it.

    >>> from hvae import Diagnosis
    >>> from tempfile import TemporaryDirectory
    >>> from hvae.exact.known_stacks import linear_stack
    >>> from hvae.measuring import Sizes, measure
    >>> stack = linear_stack(1.0, "best", seed=0)
    >>> sizes = Sizes(n_images=6, max_paths=16, n_likelihood=6, n_samples=10)
    >>> diagnosis = measure([stack.model], stack.x, sizes)
    >>> with TemporaryDirectory() as folder:
    ...     again = Diagnosis.read(diagnosis.save(folder))
    >>> again.verdicts == diagnosis.verdicts, again.source
    (True, 'measured from outside')
    """

    def __str__(self) -> str:
        """The table at the width of the terminal, the answer last."""
        return self.to_text()

    def __repr__(self) -> str:
        said = "; ".join(f"{name} {', '.join(dict.fromkeys(words))}" for name, words in self.verdicts.items())
        return f"<Diagnosis of {self.n_replicas} replica{'' if self.n_replicas == 1 else 's'}: {said}>"

    def to_text(self, width: int | None = None) -> str:
        """The table and the answer, at most ``width`` columns wide; by default as wide as the terminal."""
        from hvae.analysis.diagnosed import text

        return str(text(self, width))

    def _repr_html_(self) -> str:
        """For a notebook: the table, one figure, the answer."""
        from hvae.analysis.diagnosed import html

        return str(html(self))

    @property
    def figures(self) -> tuple[str, ...]:
        """Names of the figures that `figure` can draw."""
        from hvae.analysis.diagnosed import figure_names

        return tuple(figure_names(self))

    def figure(self, name: str) -> Any:
        """A matplotlib figure. Raises `ConfigError` for one that there is not, or that has nothing to show."""
        from hvae.analysis.diagnosed import figure

        return figure(self, name)

    def report(self, page: Path | str = "report.html") -> Path:
        """One self-contained page; returns its path. Raises `MissingExtraError` without jinja2."""
        from hvae.analysis.diagnosed import report

        return Path(report(self, Path(page)))

    def to_dataframe(self) -> Any:
        """A tidy `pandas.DataFrame`: replica, layer, quantity, low, middle, high, unit.

        Raises `MissingExtraError` without pandas.
        """
        return to_dataframe(self)

    def to_datatree(self) -> Any:
        """An `xarray.DataTree`, a group for every layer (`hvae.diagnosis.frames`).

        Raises `MissingExtraError` without xarray.
        """
        return to_datatree(self)

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
        return replace(found, notes=saved.notes, checks=saved.checks, cards=saved.read_cards())
