"""Whether to believe what was measured of the gap: a summary, and all remarks one by one."""

import re
from collections.abc import Iterator, Sequence

import numpy as np

from hvae.analysis.load import LoadedRun
from hvae.analysis.tables.table import number
from hvae.diagnosis.gap import high_share
from hvae.diagnosis.record import Array, Texts
from hvae.vocabulary import FEWEST_SAMPLES, good_k


def gap_reliability(runs: Sequence[LoadedRun]) -> str:
    """The doubts on all that was measured, in words; empty where nothing was."""
    sentences = [text for text in (_annealed_doubt(runs), _sandwich_doubt(runs), _layer_doubt(runs)) if text]
    return f"Reliability: {' '.join(sentences)}" if sentences else ""


def _annealed_doubt(runs: Sequence[LoadedRun]) -> str:
    measured = [run.annealed for run in runs if run.annealed is not None and np.isfinite(run.annealed.elbo_nats).any()]
    if not measured:
        return ""
    encoder = np.concatenate([high_share(found.curve_pareto_k, int(found.n_samples[-1])) for found in measured])
    annealed = np.concatenate([high_share(found.pareto_k, found.n_chains) for found in measured])
    warned = sum(bool(text) for found in measured for text in found.warning)
    total = sum(int(np.isfinite(found.log_px_nats[:, 1]).sum()) for found in measured)
    counts = [(int(found.n_samples[-1]), found.n_chains) for found in measured]
    own, after = (min(map(good_k, column)) for column in zip(*counts, strict=True))
    carry = f"{warned} of {total} annealed bounds carry a warning."
    fewest = min(map(min, counts))
    if fewest < FEWEST_SAMPLES:
        return f"{fewest} weights are too few to judge the bounds by k-hat ({FEWEST_SAMPLES} are needed); {carry}"
    return (
        f"k-hat is above {own:.2f} for {_percent(encoder)} of the images when q is the proposal of L_K, and above "
        f"{after:.2f} for {_percent(annealed)} after annealing; {carry}"
    )


def _sandwich_doubt(runs: Sequence[LoadedRun]) -> str:
    found = [run.annealed.sandwich_nats for run in runs if run.annealed is not None]
    widths = np.concatenate([values[np.isfinite(values[:, 1])] for values in found]) if found else np.zeros((0, 3))
    if not len(widths):
        return ""
    low, high = number(float(widths[:, 1].min())), number(float(widths[:, 1].max()))
    apart = low if low == high else f"{low} to {high}"
    return (
        "On data that the decoder simulated, an exact draw of the posterior is known. There the bounds from below "
        f"and above are {apart} nats apart (they hold on average; below 0 is chance). On test images there is only "
        "the lower one."
    )


def _layer_doubt(runs: Sequence[LoadedRun]) -> str:
    trusted = total = 0
    for run in runs:
        for layer in run.gap.layers.values() if run.gap is not None else ():
            known = np.isfinite(layer.gap_nats[:, 1])
            trusted, total = trusted + int((layer.trusted & known).sum()), total + int(known.sum())
    return f"{trusted} of {total} estimated layer gaps are trusted." if total else ""


def _percent(shares: Array) -> str:
    known = [round(100 * float(share)) for share in shares[np.isfinite(shares)]]
    if not known:
        return "an unknown share"
    ends = sorted({min(known), max(known)})
    return f"{' to '.join(map(str, ends))} %"


def gap_remarks(runs: Sequence[LoadedRun]) -> list[str]:
    """Refusals, warnings, and why layer gaps are not trusted. Sentences that differ only in numbers are merged."""
    lines: list[str] = []
    for run in runs:
        for what, texts in _remarks(run):
            alike: dict[str, list[tuple[int, str]]] = {}
            for seed, text in zip(run.seeds, texts, strict=True):
                if text:
                    alike.setdefault(re.sub(r"[\d.]*\d", "#", text), []).append((seed, text))
            for found in alike.values():
                seeds = ", ".join(str(seed) for seed, _ in found)
                who = "" if len(found) == run.n_replicas else f", seed{'s' if len(found) > 1 else ''} {seeds}"
                whose = f" (numbers of seed {found[0][0]})" if len({text for _, text in found}) > 1 else ""
                lines.append(f"{run.label}{who}: {what}{whose}: {found[0][1]}")
    return lines


def _remarks(run: LoadedRun) -> Iterator[tuple[str, Texts]]:
    if run.annealed is not None:
        yield "annealing refused", run.annealed.refused
        yield "annealed bound", run.annealed.warning
        yield "annealed bound", run.annealed.note
        yield "bounds on simulated data", run.annealed.simulated_warning
        yield f"L_{int(run.annealed.n_samples[-1])}", run.annealed.curve_warning
    if run.exact is not None:
        yield "exact answer refused", run.exact.refused
        yield "exact gaps refused", run.exact.gaps_refused
    if run.gap is not None:
        yield "gap refused", run.gap.refused
        yield "log p(x) of the gap", run.gap.warning
        yield "approximation and amortisation refused", run.gap.suboptimality_refused
        yield "chains of the exact posterior", run.gap.posterior_warning
        yield "exact posterior refused", run.gap.posterior_refused
        for name, layer in run.gap.layers.items():
            yield f"G of {name} not trusted", layer.reason
