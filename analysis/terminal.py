"""The output on the terminal: the verdict on every layer, as wide as it is asked for (80 columns or more)."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from hvae.analysis.compare import compare_text as compare_text
from hvae.analysis.load import LoadedRun
from hvae.analysis.study import Study, open_study
from hvae.analysis.summary import measured_summary
from hvae.analysis.tables.claims import ALONE
from hvae.analysis.tables.comparison import comparison
from hvae.analysis.tables.floor import below, beside_text
from hvae.analysis.tables.gap import IN_A_SEED, causes_seen, layer_table, likelihood_bounds
from hvae.analysis.tables.gap_doubt import gap_reliability, gap_remarks
from hvae.analysis.tables.likelihood import (
    best_text,
    bound_heading,
    elbo_text,
    mean_text,
    reliability,
    shown_text,
    warnings,
)
from hvae.analysis.tables.published import held, limits, published_short
from hvae.analysis.tables.table import Cell, Column, Table
from hvae.analysis.tables.text import PAGE, wrapped
from hvae.analysis.tables.verdict import (
    BY_PLACE,
    GAINED,
    beta_text,
    cap_text,
    counted,
    counts,
    kind_counts,
    moved_text,
    overview_within,
    quantity_text,
    short,
)
from hvae.analysis.tables.words import ABBREVIATION, KIND, LETTER, MEANING, QUANTITIES
from hvae.diagnosis.layer import Layer

GAIN = (
    "Active layers: their number in every seed (? where another layer is undecided). Gain: the bound minus the "
    "baseline's, paired by seed and image, ± the longer half of its 95 % interval over both. Gap, where measured: "
    "log p(x) minus the ELBO, ± over seeds only. Cost, where timed: CPU time of a step divided by the baseline's."
)
OF_TRAINING = "β: at the last step. Last half: what the ELBO gained in the last half of training."
BELOW = (
    "Second table. KL to N(0, I): of q. rate: mean of log q − log p. U: at most what the layer below can tell of the "
    "image by this one. k.o. (knock-out), encoder: bound lost when priors replace q of this layer and of those visited "
    "after it. Model: likelihood lost when the decoder sees the prior's mean in place of the layer."
)
"""of a single run"""
Z1 = "; z1 is next to the image. "
SHOWN_REMARKS = 6
"""number of sentences of doubt on the gap; the rest are in the report"""


def verdict_text(directory: Path, preset: str = "", width: int = PAGE) -> str:
    """`verdicts` of the study at `directory`."""
    return verdicts(open_study(directory, preset), width)


def verdicts(study: Study, width: int = PAGE) -> str:
    """The verdicts of a study: one line per run, or for a single run one line per layer."""
    return _single(study, width) if study.single else _several(study, width)


def _several(study: Study, width: int) -> str:
    wrap = partial(wrapped, width=width)
    table, level = overview_within(study.runs, width)
    words = {word for run in study.runs for layer in run.layers for word in kind_counts(layer, run.epsilon_index)}
    first = study.runs[0]
    lines = [wrap(sentence) + "\n" for sentence in measured_summary(study)]
    lines += [table.shortened(width).to_text(), ""]
    against = comparison(study)
    if against is not None:
        shown = against.without("so")
        lines += [shown.narrowed(width, ("against", "cost")).to_text(), "", wrap(GAIN), ""]
    epsilon = first.epsilon_nats
    replicas = sorted({run.n_replicas for run in study.runs})
    lines.append(
        wrap(
            f"Verdict per layer at {epsilon:g} nats, counted over {' or '.join(map(str, replicas))} replicas (seeds)"
            + (" and the layers of a resolution; each layer is in the report. " if level == BY_PLACE else Z1)
            + f"{bound_heading(study.runs).removesuffix(' ≥')}: lower bound in nats, mean over "
            f"{_n_images(study)}images and replicas ± the longer half of its 95 % interval over both. "
            + _of_training(study, table)
        )
    )
    lines += _legend(words, level or int(any(_mixed(run) for run in study.runs)), width)
    lines += _published_lines(study, width) + _claim_lines(study, width)
    lines += _gap_lines(study, width)
    lines += ["", *(wrap(text) for text in (reliability(study.runs), below(study.runs), *study.notes) if text)]
    return "\n".join(lines)


def _claim_lines(study: Study, width: int) -> list[str]:
    """Every claim with its outcome."""
    if not study.claims:
        return []
    wrap, decisions = partial(wrapped, width=width), study.decisions
    lines = ["", "Claims (95 % interval against a margin fixed beforehand)"]
    for decision in decisions:
        reason = f" Reason: {decision.how}." if decision.outcome == "not measured" else ""
        alone = f" {ALONE}" if decision.alone else ""
        lines.append(wrap(decision.claim.statement + alone + reason, f"  {decision.outcome:<17}", indent=19))
    if any(decision.alone for decision in decisions):
        lines.append(wrap(f"{ALONE}: by itself; not for all claims of the page together (Holm 1979).", "  "))
    return lines


def _published_lines(study: Study, width: int) -> list[str]:
    """What the paper printed, and ours."""
    if study.paper is None:
        return []
    found = held(study)
    head = wrapped(f"Paper and ours. {study.paper.citation.rstrip('.')}. {limits(study, found)}", width=width)
    return ["", head, *([published_short(found).narrowed(width, ()).to_text()] if found else [])]


def _gap_lines(study: Study, width: int) -> list[str]:
    """What was measured of log p(x) and of the gap, with every doubt; empty where nothing was."""
    wrap = partial(wrapped, width=width)
    if not any(run.measured_further for run in study.runs):
        return []
    lines = ["", "The gap between the ELBO and log p(x) (nats; AIS and L_K are lower bounds)"]
    bounds, layers = likelihood_bounds(study.runs), layer_table(study.runs)
    for table, expendable in (
        (bounds, ("trusted layers", "high k-hat", "sandwich", "warned")),
        (layers, ("freed", "G exact", "q", "p(z|x)", "± in a seed")),
    ):
        if table is not None:
            shown = table.without("run") if study.single else table
            lines += [shown.narrowed(width, expendable).to_text(), ""]
    lines += [wrap(f"± after a mean: 95 % t-interval over seeds only. {IN_A_SEED}", "  ")] if layers is not None else []
    lines += [wrap(meaning, f"  {word}: ", indent=4) for word, meaning in causes_seen(study.runs).items()]
    doubt = gap_reliability(study.runs)
    lines += [wrap(doubt)] if doubt else []
    remarks = gap_remarks(study.runs)
    lines += [wrap(text, "- ", indent=2) for text in remarks[:SHOWN_REMARKS]]
    if len(remarks) > SHOWN_REMARKS:
        lines.append(f"- and {len(remarks) - SHOWN_REMARKS} more, in the report.")
    return lines


def _n_images(study: Study) -> str:
    """ "64 ": of the likelihoods, where it is one number."""
    found = {run.likelihood.n_images for run in study.runs if run.likelihood is not None}
    return f"{found.pop()} " if len(found) == 1 else ""


def _of_training(study: Study, table: Table) -> str:
    """What its columns are, or that they are elsewhere."""
    if any(column.name == GAINED for column in table.columns):
        return OF_TRAINING
    left_out = any(run.gained_nats.size for run in study.runs)
    return "β and what the last half of training gained are in the report." if left_out else ""


def _mixed(run: LoadedRun) -> bool:
    return any(len(kind_counts(layer, run.epsilon_index)) > 1 for layer in run.layers)


def _legend(words: set[str], level: int, width: int) -> list[str]:
    """The meaning of every word that occurs, with its abbreviation at this level of the overview."""
    wrap = partial(wrapped, width=width)
    lines = []
    for kind in dict.fromkeys(KIND.values()):
        if kind in words:
            meaning = MEANING[next(word for word in KIND if KIND[word] == kind)]
            if kind == "collapsed":
                meaning = "on more than 95 % of images q is one distribution: its prior, N(0, I) or another"
            name = f"{kind} ({(ABBREVIATION, LETTER)[level > 1][kind]})" if level else kind
            lines.append(wrap(meaning, f"  {name:<19}", indent=21))
    lines.append(
        wrap(
            "Above, below and more than: by the whole 95 % interval. moved: images whose q(z|·) is farther than the "
            "threshold from one that does not depend on x. V: use by the decoder, how much better it explains the "
            "image by this layer than by other codes; at least so much. I: information about the image. J: "
            "information from all that q of the layer sees."
        )
    )
    return lines


def _single(study: Study, width: int) -> str:
    """Layers as rows; a quantity is its median over replicas with the lowest and highest end."""
    (run,) = study.runs
    wrap = partial(wrapped, width=width)
    # the last, the bound from the layers above, has its room in the report
    first = _layer_table(run, QUANTITIES[:3], with_verdict=_verdict_words, width=width)
    second = _layer_table(run, QUANTITIES[3:-1], with_verdict=None, width=width)
    lines = [run.title, first.to_text(), "", second.to_text(), ""]
    lines.append(
        wrap(
            f"Verdict at {run.epsilon_nats:g} nats, counted over {run.n_replicas} "
            f"replica{'' if run.n_replicas == 1 else 's'}. Numbers: median over replicas [lowest, highest end of "
            "their intervals]."
        )
    )
    words = {word for layer in run.layers for word in kind_counts(layer, run.epsilon_index)}
    lines += _legend(words, int(_mixed(run)), width)
    lines += [wrap(text) for text in (cap_text(run.layers), BELOW) if text]
    if run.likelihood is not None:
        k = int(run.likelihood.n_samples[-1])
        over = "replicas and images" if run.n_replicas > 1 else "images alone"
        bounds = [f"L_{k} {best_text(run.likelihood)}"] if run.likelihood.has_log_px else []
        bounds.append(f"ELBO {elbo_text(run.likelihood)}")
        lines.append(
            wrap(
                f"{shown_text(run.likelihood)}; {', '.join(bounds)} nats (lower bounds, higher better; ± over {over})."
            )
        )
        lines += [wrap(text) for text in (beside_text(run.likelihood), _training(run)) if text]
        notes = warnings([run])
        lines += [wrap(text) for text in (reliability([run]), *notes[:1]) if notes]
    if not run.evaluated:
        lines.append("Not evaluated yet; run `hvae evaluate` on it.")
    lines += _gap_lines(study, width)
    lines += [wrap(text) for text in study.notes]
    return "\n".join(lines)


def _training(run: LoadedRun) -> str:
    """Beta at the end and what the last half of training gained; empty for a run that kept no half."""
    if not run.gained_nats.size:
        return ""
    gained = mean_text(run.gained_nats)
    return f"At its last step β was {beta_text(run)}; the last half of training raised the ELBO by {gained} nats."


def _verdict_words(run: LoadedRun, layer: Layer) -> str:
    found = counts(layer, run.epsilon_index)
    if len(found) > 1:
        return short(kind_counts(layer, run.epsilon_index), 1)
    return ", ".join((counted(found), *dict.fromkeys(filter(None, layer.marks))))


def _layer_table(
    run: LoadedRun,
    quantities: Sequence[tuple[str, str, str]],
    with_verdict: Callable[[LoadedRun, Layer], str] | None,
    width: int,
) -> Table:
    """Layers as rows, quantities with intervals as columns; intervals are left out from the right until it fits."""
    columns = [Column("layer", numeric=False), Column("units")]
    if with_verdict is not None:
        columns += [Column("verdict", numeric=False), Column("moved", "% of x")]
    n_words = len(columns)
    columns += [Column(heading, "nats") for heading, _, _ in quantities]
    rows = []
    for layer in run.layers:
        words = [layer.name, str(layer.n_units)]
        if with_verdict is not None:
            words += [with_verdict(run, layer), moved_text(layer, run.epsilon_index)]
        words += [quantity_text(layer, key) for _, key, _ in quantities]
        rows.append(words)
    for column in range(len(columns), n_words - 2, -1):
        cells = tuple(
            tuple(Cell(text.partition(" [")[0] if index >= column else text) for index, text in enumerate(row))
            for row in rows
        )
        table = Table(tuple(columns), cells)
        if table.width <= width:
            break
    return table
