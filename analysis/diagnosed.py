"""A diagnosis drawn: as text with the answer last, in a notebook, as single figures, as one page."""

import html as escaping
import shutil
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from hvae.analysis import style
from hvae.analysis.exhibits import GAP, Exhibit, exhibits
from hvae.analysis.load import of_diagnosis
from hvae.analysis.report import write_page
from hvae.analysis.study import Study, single
from hvae.analysis.tables.floor import beside_text
from hvae.analysis.tables.likelihood import best_text, bound_text, elbo_text, log_px_text, mean_text
from hvae.analysis.tables.table import Cell, Column, Table, number
from hvae.analysis.tables.verdict import (
    cap_text,
    counted,
    counts,
    kind_counts,
    moved_text,
    quantity_text,
    share_text,
    short,
)
from hvae.diagnosis.diagnosis import Diagnosis
from hvae.diagnosis.layer import Layer
from hvae.errors import ConfigError
from hvae.vocabulary import FAILED, NOISE_ONLY, UNDECIDED

NARROWEST = 40
COLUMNS: tuple[tuple[str, str], ...] = (
    ("V", "used_nats"),
    ("I", "information_nats"),
    ("KL to prior", "kl_prior_nats"),
    ("rate", "rate_nats"),
)
"""heading, quantity; the last are left out first where there is no room"""
SAID: Mapping[str, str] = {NOISE_ONLY: "coding noise only"}
"""a verdict as it follows "z1 is", where that is not the word itself"""


def text(diagnosis: Diagnosis, width: int | None = None) -> str:
    """The table, then the answer; at most ``width`` columns, by default those of the terminal."""
    width = max(NARROWEST, shutil.get_terminal_size().columns if width is None else width)
    lines = [diagnosis.label] if diagnosis.label else []
    lines += [table(diagnosis, width).to_text(), ""]
    lines += [textwrap.fill(sentence, width) for sentence in (_legend(diagnosis), *answer(diagnosis)) if sentence]
    return "\n".join(lines)


def table(diagnosis: Diagnosis, width: int) -> Table:
    """A row for every layer, z1 first; intervals, then columns, are left out from the right until it fits."""
    shown = [entry for entry in COLUMNS if any(entry[1] in layer.intervals for layer in diagnosis.layers)]
    while True:
        for n_intervals in range(len(shown), -1, -1):
            found = _table(diagnosis, shown, n_intervals)
            if found.width <= width:
                return found
        if len(shown) <= 1:
            return found
        shown = shown[:-1]


def _table(diagnosis: Diagnosis, shown: Sequence[tuple[str, str]], n_intervals: int) -> Table:
    columns = [
        Column("layer", numeric=False),
        Column("active", "units"),
        Column("verdict", numeric=False),
        Column("moved", "% of x"),
    ]
    columns += [Column(heading, "nats") for heading, _ in shown]
    rows = []
    for layer in diagnosis.layers:
        cells = [layer.name, _units(layer), _words(diagnosis, layer)]
        cells.append(moved_text(layer, diagnosis.epsilon_index).partition(" ")[0])
        for index, (_, quantity) in enumerate(shown):
            cell = quantity_text(layer, quantity)
            cells.append(cell if index < n_intervals else cell.partition(" [")[0])
        rows.append(tuple(map(Cell, cells)))
    return Table(tuple(columns), tuple(rows))


def _units(layer: Layer) -> str:
    counts = layer.active_units()
    known = counts[np.isfinite(counts)]
    return f"{np.median(known):g}/{layer.n_units}" if known.size else f"{number(np.nan)}/{layer.n_units}"


def _words(diagnosis: Diagnosis, layer: Layer) -> str:
    found = counts(layer, diagnosis.epsilon_index)
    if len(found) > 1:
        return short(kind_counts(layer, diagnosis.epsilon_index), 1)
    words = counted(found).replace("\N{NO-BREAK SPACE}", " ") if diagnosis.n_replicas > 1 else next(iter(found))
    marks = dict.fromkeys(filter(None, layer.marks))
    return ", ".join((words, *marks))


def _legend(diagnosis: Diagnosis) -> str:
    many = diagnosis.n_replicas > 1
    of = "Numbers: median over replicas [lowest, highest end of their intervals]. " if many else ""
    return (
        f"Verdict at {diagnosis.epsilon_nats:g} nats, rule {diagnosis.rule}, on {diagnosis.n_images} data. {of}"
        "moved: x that move q of the layer. V: use by the decoder, at least. I: information about x. KL to prior: of q "
        "from p." + (f" {cap}" if (cap := cap_text(diagnosis.layers)) else "")
    )


def answer(diagnosis: Diagnosis) -> list[str]:
    """Which layers do what, and how sure that is; then the likelihood; then the doubt."""
    further = (*_annealed(diagnosis), *_gap(diagnosis))
    return [*_layers(diagnosis), *_likelihood(diagnosis), *further, *_checked(diagnosis), *_doubt(diagnosis)]


def _layers(diagnosis: Diagnosis) -> list[str]:
    n_alive = int(diagnosis.alive.sum())
    if not n_alive or not diagnosis.evaluated:
        return ["Every replica failed, so nothing is known." if diagnosis.evaluated else "Nothing was measured."]
    same: dict[str, list[str]] = {}
    mixed, moves = [], []
    for layer in diagnosis.layers:
        found = counts(layer, diagnosis.epsilon_index)
        found.pop(FAILED, None)
        if len(found) == 1:
            same.setdefault(next(iter(found)), []).append(layer.name)
        else:
            words = " and ".join(f"{SAID.get(word, word)} in {count}" for word, count in found.most_common())
            mixed.append(f"{layer.name} is {words} of {n_alive}")
        alive = layer.verdict[diagnosis.alive]
        if (alive != alive[:, :1]).any():
            moves.append(layer.name)
    clauses = [f"{_names(names)} {_is(names, word)}{_on_share(diagnosis, names)}" for word, names in same.items()]
    where = "" if diagnosis.n_replicas == 1 else f" in {n_alive} of {diagnosis.n_replicas} replicas"
    joined = f"{'; '.join(clauses)}{where if clauses else ''}"
    sentence = "; ".join(filter(None, (joined, *mixed)))
    low, high = diagnosis.epsilons[0], diagnosis.epsilons[-1]
    open_ = all((layer.verdict == UNDECIDED).all() for layer in diagnosis.layers)
    sure = (
        ""
        if open_
        else (
            f"At thresholds from {low:g} to {high:g} nats the verdict on {_names(moves)} changes."
            if moves
            else f"The verdicts are the same at thresholds from {low:g} to {high:g} nats."
        )
    )
    return [f"{sentence}. {sure}".rstrip()]


def _is(names: Sequence[str], word: str) -> str:
    """ "is active", "are collapsed to their priors"."""
    said = SAID.get(word, word)
    return f"is {said}" if len(names) == 1 else f"are {said.replace('its prior', 'their priors')}"


def _on_share(diagnosis: Diagnosis, names: Sequence[str]) -> str:
    """ ", on at least 96 % of images", the least of the layers that collapsed."""
    index = diagnosis.epsilon_index
    said = [share_text(layer, index) for layer in diagnosis.layers if layer.name in names]
    least = min(filter(None, said), key=lambda text: int(text.split()[3]), default="")
    return f", {least}" if least else ""


def _names(names: Sequence[str]) -> str:
    """ "z1, z2 and z5", or "z3 to z20" for many neighbours."""
    numbers = [int(name[1:]) for name in names if name[:1] == "z" and name[1:].isdecimal()]
    if len(names) > 2 and len(numbers) == len(names) and numbers[-1] - numbers[0] == len(names) - 1:
        return f"{names[0]} to {names[-1]}"
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _likelihood(diagnosis: Diagnosis) -> list[str]:
    curve = diagnosis.likelihood
    if curve is None:
        return []
    lost = int((~np.isfinite(curve.shown[diagnosis.alive, 1])).sum())
    if lost and not np.isfinite(curve.shown[:, 1]).any():
        return ["The likelihood is not finite: some data have probability 0, or the model gives no number for them."]
    left_out = (
        f" It is not finite in {lost} of {diagnosis.n_replicas} replicas, which the mean leaves out." if lost else ""
    )
    both = "replicas and data" if int(np.isfinite(curve.best[:, 1]).sum()) > 1 else "data alone"
    of_curve = f"L_{int(curve.n_samples[-1])} = {best_text(curve)}"
    least = f"{log_px_text(curve)} nats ({of_curve})" if curve.has_log_px else f"{of_curve} nats"
    return [
        f"log p(x) is on average at least {least}; the ELBO is {elbo_text(curve)} (mean over {curve.n_images} data ± "
        f"the longer half of its 95 % interval over {both}).{left_out}",
        *filter(None, (beside_text(curve),)),
    ]


def _annealed(diagnosis: Diagnosis) -> list[str]:
    """The annealed bound, and how far apart both bounds are on data that the model made."""
    found = diagnosis.annealed
    if found is None:
        return []
    if not np.isfinite(found.log_px_nats[:, 1]).any():
        return [f"Annealing: {next(filter(None, found.refused), 'no finite number')}"]
    return [
        f"Annealed, log p(x) is at least {bound_text(found.log_px_nats, found.log_px_datum_nats)} nats on "
        f"{found.images.n} data. On data that the model made, the bounds from above and below are "
        f"{mean_text(found.sandwich_nats[:, 1])} nats apart."
    ]


def _gap(diagnosis: Diagnosis) -> list[str]:
    """log p(x) - ELBO by layer; a star where the share is not trusted."""
    found = diagnosis.gap
    if found is None:
        return []
    if not np.isfinite(found.total_nats[:, 1]).any():
        return [f"The gap: {next(filter(None, found.refused), 'no finite number')}"]
    shares = [
        f"{name} {mean_text(layer.gap_nats[:, 1])}{'' if np.all(layer.trusted[diagnosis.alive]) else '*'}"
        for name, layer in found.layers.items()
    ]
    star = "; * not trusted, see `.doubts`" if any(share.endswith("*") for share in shares) else ""
    least = "" if set(found.log_px_direction) == {"exact"} else "at least "
    over = " (± over replicas only)" if diagnosis.n_replicas > 1 else ""
    return [
        f"The gap log p(x) - ELBO is {least}{mean_text(found.total_nats[:, 1])} nats on {found.images.n} data{over}: "
        f"{', '.join(shares)}{star}."
    ]


def _checked(diagnosis: Diagnosis) -> list[str]:
    """What the checks at the door compared and found right, the model's own ELBO first; all is in `.checks`."""
    own = [sentence for sentence in diagnosis.checks if "own_elbo agrees" in sentence][:1]
    return [f"Checked: {sentence}" for sentence in own]


def _doubt(diagnosis: Diagnosis) -> list[str]:
    doubts = [str(doubt) for doubt in diagnosis.doubts]
    lacking = {
        layer: [quantity for quantity, of in diagnosis.not_measured if of == layer and quantity in dict(_SHOWN)]
        for layer in (layer.name for layer in diagnosis.layers)
    }
    missing = {layer: quantities for layer, quantities in lacking.items() if quantities}
    lines = []
    if missing:
        layer, quantities = next(iter(missing.items()))
        reason = diagnosis.not_measured[quantities[0], layer]
        lines.append(
            f"Not measured: {', '.join(dict(_SHOWN)[q] for q in quantities)} of {_names(list(missing))}. {reason}"
        )
    if doubts:
        others = f" And {len(doubts) - 1} more in `.doubts`." if len(doubts) > 1 else ""
        stop = "" if doubts[0].endswith(".") else "."
        lines.append(f"Doubt: {doubts[0]}{stop}{others}")
    return lines


_SHOWN = [(quantity, heading) for heading, quantity in COLUMNS]


def html(diagnosis: Diagnosis) -> str:
    """The table, the figure of information, the answer: for a notebook."""
    found = _table(diagnosis, COLUMNS, len(COLUMNS))
    heads = "".join(f"<th>{escaping.escape(column.name)}</th>" for column in found.columns)
    rows = "".join(
        f"<tr>{''.join(f'<td>{escaping.escape(cell.text)}</td>' for cell in row)}</tr>" for row in found.rows
    )
    made = figure(diagnosis, "information") if "information" in figure_names(diagnosis) else None
    picture = "" if made is None else style.with_prefix(style.svg(made), "hvae-information")
    said = "".join(f"<p>{escaping.escape(sentence)}</p>" for sentence in answer(diagnosis))
    title = f"<p><b>{escaping.escape(diagnosis.label)}</b></p>" if diagnosis.label else ""
    return f"<div>{title}<table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>{picture}{said}</div>"


def _all(study: Study) -> Mapping[str, Exhibit]:
    return {exhibit.name: exhibit for exhibit in (*exhibits(study), *GAP)}


def figure_names(diagnosis: Diagnosis) -> tuple[str, ...]:
    """The figures that have anything to show."""
    study = single(of_diagnosis(diagnosis))
    return tuple(name for name, exhibit in _all(study).items() if exhibit.make(study) is not None)


def figure(diagnosis: Diagnosis, name: str) -> Figure:
    """One figure. Raises `ConfigError` for a name that there is not, or a figure with nothing to show."""
    study = single(of_diagnosis(diagnosis))
    known = _all(study)
    if name not in known:
        raise ConfigError(f"There is no figure {name!r}; there are {', '.join(known)}.")
    made = known[name].make(study)
    if made is None:
        raise ConfigError(known[name].absent or f"The figure {name!r} has nothing to show: it was not measured.")
    return made


def report(diagnosis: Diagnosis, page: Path) -> Path:
    """One self-contained page, in a folder that is made. Raises `MissingExtraError` without jinja2."""
    page.parent.mkdir(parents=True, exist_ok=True)
    return write_page(single(of_diagnosis(diagnosis)), page)
