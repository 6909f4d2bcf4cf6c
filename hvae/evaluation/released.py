"""Decoders that may leave the truth: from a teacher on with an encoder beside them, or from random weights. Nats.

Where does the decoder go once it is free (`release_rows`); is it inference, or the price of a layer, that empties the
top (`threshold_rows`)? Data are all of the teacher's x, weighed by its p(x), as in `teachers`.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from hvae.evaluation.accuracy import columns
from hvae.evaluation.replicas import Arrays
from hvae.evaluation.teachers import Effort, Law, Say, Teachers, Widths, by_layer, filled, trained
from hvae.reference import examples
from hvae.reference.enumeration import Enumeration, Tables, fit


def release_rows(
    shapes: Mapping[str, Widths], strengths: Sequence[float], n_teachers: int, laws: Sequence[Law], effort: Effort,
    released: Effort, say: Say,
) -> Arrays:  # fmt: skip
    """One row per shape, strength, teacher and law: gaps and informations before and after the decoder is let go.

    ``given_up_nats`` is KL(p_teacher(x) ‖ p(x)); ``moved`` that of p(z_{l-1} | z_l), over the teacher's p(z_l).
    """
    rows = []
    for shape, widths in shapes.items():
        teachers = Teachers.of(widths, strengths, n_teachers)
        truths, log_px = teachers.tables(), teachers.log_px()
        for law in laws:
            say(f"{shape} {'-'.join(map(str, widths))} released: {law}")
            start = trained(teachers, law, effort)
            end = fit(start.stacks, log_px.exp(), (1.0,) * (len(widths) - 1), released.n_steps, released.learning_rate)
            for index, (truth, stack) in enumerate(zip(truths, end.stacks, strict=True)):
                weight = log_px[index].exp()
                with torch.no_grad():
                    before, after = start.stacks[index](), stack()
                    rows.append(
                        {
                            **teachers.described(index),
                            "shape": shape,
                            "law": law.name,
                            "net": law.net,
                            "hidden": law.hidden,
                            "gap_before_nats": float(before.gaps(weight).sum()),
                            "gap_after_nats": float(after.gaps(weight).sum()),
                            "given_up_nats": float((weight * (log_px[index] - after.marginals()[0])).sum()),
                            "late_gain_nats": float(end.change[index]),
                            **by_layer("gap_before", before.gaps(weight)),
                            **by_layer("gap_after", after.gaps(weight)),
                            **by_layer("moved", moved(truth, after)),
                            **by_layer("coupling_before", truth.couplings()),
                            **by_layer("coupling_after", after.couplings()),
                            **by_layer("about_x_before", truth.about_x()),
                            **by_layer("about_x_after", after.about_x()),
                        }
                    )
    return filled(rows)


def moved(truth: Tables, other: Tables) -> Tensor:
    """KL of each conditional p(z_{l-1} | z_l) `[L]` of the truth from the other's, mean over the truth's z_l."""
    marginals = truth.marginals()[1:]
    return torch.stack(
        [
            ((above.unsqueeze(-1) + down).exp() * (down - new)).sum()
            for above, down, new in zip(marginals, truth.down, other.down, strict=True)
        ]
    )


def threshold_rows(
    shapes: Mapping[str, Widths], strength: float, n_teachers: int, laws: Sequence[Law], betas: Sequence[float],
    effort: Effort, say: Say,
) -> Arrays:  # fmt: skip
    """One row per shape, inference, β, teacher: stacks trained from random weights, the rates above z1 weighed by β.

    ``exact`` inference is the best posterior there is, in closed form (`Tables.best_bound`); the others are encoders.
    Of several starts the one with the highest bound is kept.
    """
    rows = []
    for shape, widths in shapes.items():
        teachers = Teachers.of(widths, [strength], n_teachers)
        truths, log_px = teachers.tables(), teachers.log_px()
        depth, n_starts = len(widths) - 1, effort.n_starts
        for law in (None, *laws):
            for beta in betas:
                name = "exact" if law is None else str(law)
                say(f"{shape} {'-'.join(map(str, widths))} from random weights: {name}, beta {beta:g}")
                stacks = []
                for start in range(n_teachers * n_starts):
                    source = torch.Generator().manual_seed(1000 + start)
                    decoder = examples.binary_decoder(0.25, widths, source)
                    stacks.append(Enumeration(decoder, None if law is None else law.encoder(widths, source)))
                weight = log_px.exp().repeat_interleave(n_starts, 0)
                weights = (1.0, *(beta,) * (depth - 1))
                found = fit(stacks, weight, weights, effort.n_steps, effort.learning_rate)
                best = found.bound.reshape(-1, n_starts).argmax(-1) + torch.arange(n_teachers) * n_starts
                for index, place in enumerate(best.tolist()):
                    with torch.no_grad():
                        made = found.stacks[place]()
                    given_up = (log_px[index].exp() * (log_px[index] - made.marginals()[0])).sum()
                    rows.append(
                        {
                            **teachers.described(index),
                            "shape": shape,
                            "inference": name,
                            "beta": beta,
                            "top_nats": float(made.couplings()[-1]),
                            "about_x_nats": float(made.about_x()[-1]),
                            "teacher_top_nats": float(truths[index].couplings()[-1]),
                            "given_up_nats": float(given_up),
                            "late_gain_nats": float(found.change[place]),
                        }
                    )
    return columns(rows)
