"""A few sentences on a study, made from its numbers."""

from collections import Counter
from collections.abc import Mapping

import numpy as np

from hvae.analysis.load import LoadedRun
from hvae.analysis.resolutions import kinds, resolutions
from hvae.analysis.study import Study
from hvae.analysis.tables.comparison import comparison_summary
from hvae.analysis.tables.floor import below, bits_text
from hvae.analysis.tables.likelihood import shown_text, warned
from hvae.analysis.tables.published import held, limits
from hvae.analysis.tables.table import span
from hvae.analysis.tables.verdict import kind_counts
from hvae.analysis.tables.words import ADJECTIVE
from hvae.vocabulary import FAILED

DEEP = 8
"""layers that can be told one by one"""


def summary(study: Study) -> list[str]:
    """What the preset leaves out of a paper, then a sentence on each of these: every part measured apart from the runs,
    the layers of the deepest runs, the likelihood, what lies below the floor."""
    layers = comparison_summary(study) or [_layers(study)]
    return [*_limits(study), *measured_summary(study), *filter(None, (*layers, _likelihood(study), below(study.runs)))]


def _limits(study: Study) -> list[str]:
    said = limits(study, held(study)) if study.paper else ""
    return [f"Against the paper, preset {study.preset}: {said}"] if said else []


def measured_summary(study: Study) -> list[str]:
    """One sentence on each part measured apart from the runs."""
    return [sentence for section in study.sections for sentence in section.summary(study)]


def _layers(study: Study) -> str:
    deepest = {title: run for title, run in study.deepest.items() if run.evaluated}
    if not deepest:
        return ""
    deepest = {title: run for title, run in deepest.items() if title == _first(deepest, run)}
    depths = {run.depth for run in deepest.values()}
    mixed = "In the deepest run of each panel (the last, where all are equally deep)"
    where = f"At depth {depths.pop()}" if len(depths) == 1 else mixed
    threshold = next(iter(deepest.values())).epsilon_nats
    clauses = [f"{title} has {_kinds(run)}" for title, run in deepest.items()]
    if len(deepest) == 1:
        (run,) = deepest.values()
        return f"At the threshold of {threshold:g} nats this run has {_kinds(run)}."
    return f"{where}, at the threshold of {threshold:g} nats: {'; '.join(clauses)}."


def _first(panels: Mapping[str, LoadedRun], run: LoadedRun) -> str:
    """The first panel that shows the run: it is told once."""
    return next(title for title, other in panels.items() if other is run)


def _at(run: LoadedRun, place: str) -> str:
    """ "at 4x4 14 active and 20 collapsed of 40"."""
    found = Counter(ADJECTIVE.get(kind, kind) for kind in kinds(run, place))
    return f"at {place} {' and '.join(f'{n} {word}' for word, n in found.most_common())} of {found.total()}"


def _kinds(run: LoadedRun) -> str:
    """ "z1, z2 active and z3 to z5 collapsed in 4 of 4 replicas"; layers where replicas differ follow."""
    if run.depth > DEEP and len(resolutions([run])) > 1:
        return f"{', '.join(_at(run, place) for place in resolutions([run]))}, counted over layers and replicas"
    groups: dict[str, list[int]] = {}
    mixed: list[str] = []
    n_alive = run.n_replicas
    for number, layer in enumerate(run.layers, start=1):
        found = kind_counts(layer, run.epsilon_index)
        n_alive = run.n_replicas - found.pop(FAILED, 0)
        if len(found) == 1:
            groups.setdefault(next(iter(found)), []).append(number)
        elif found:
            words = [f"{ADJECTIVE.get(word, word)} in {count} of {n_alive}" for word, count in found.most_common()]
            mixed.append(f"{layer.name} {' and '.join(words)}")
    if not n_alive:
        return "no replica that did not fail"
    parts = [f"{span(numbers)} {ADJECTIVE.get(word, word)}" for word, numbers in groups.items()]
    text = f"{' and '.join(parts)} in {n_alive} of {n_alive} replicas" if parts else ""
    failed = run.n_replicas - n_alive
    lost = f"({failed} of {run.n_replicas} replicas failed)" if failed else ""
    return " ".join(part for part in (", ".join(part for part in (text, *mixed) if part), lost) if part)


def _likelihood(study: Study) -> str:
    means = {
        run: float(np.nanmean(run.likelihood.shown[:, 1]))
        for run in study.runs
        if run.likelihood is not None and np.isfinite(run.likelihood.shown[:, 1]).any()
    }
    if not means:
        return ""
    yardsticks = sorted({run.yardstick for run in means})
    if len(yardsticks) > 1:
        on = "; ".join(yardsticks)
        return f"The bounds of these runs compare only where data and distribution of x are the same: they are on {on}."
    best, worst = max(means, key=means.__getitem__), min(means, key=means.__getitem__)
    bad, total = sum(map(warned, means)), sum(run.n_replicas for run in means)
    trust = f"{bad} of {total} replicas carry a warning (see Likelihood)" if bad else "no replica carries a warning"
    if best is worst:
        return f"Its bound is {_bound(best)} on the test images; {trust}."
    return f"The highest bound is {_bound(best)} ({best.title}), the lowest {_bound(worst)} ({worst.title}); {trust}."


def _bound(run: LoadedRun) -> str:
    assert run.likelihood is not None
    in_bits = run.likelihood.bits_per_dim is not None
    return shown_text(run.likelihood) + (f" ({bits_text(run.likelihood)} bits per dimension)" if in_bits else "")
