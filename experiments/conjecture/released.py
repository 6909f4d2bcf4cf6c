"""Decoders released from a teacher, with an encoder: where they go and what they lose. Nats.

Data are all of the teacher's x, weighed by its p(x), as in `bernoulli`. Under exact inference the bound is the
likelihood, and the teacher is its maximum. So without an encoder only rounding, enlarged by Adam, moves anything.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from hvae.experiments.conjecture.bernoulli import Budget, EncoderKind, Teachers, Widths, by_layer, filled, trained
from hvae.experiments.conjecture.enumeration import Enumeration, Tables, fit
from hvae.lab.evaluation.replicas import Arrays, Say


def release_rows(
    shapes: Mapping[str, Widths],
    strengths: Sequence[float],
    n_teachers: int,
    encoders: Sequence[EncoderKind | None],
    budget: Budget,
    released: Budget,
    say: Say,
) -> Arrays:
    """One row per shape, strength, teacher and kind of encoder: gaps and informations before and after the release.

    None among ``encoders`` is exact inference. ``given_up_nats`` is KL(p_teacher(x) ‖ p(x)). ``moved`` is the same of
    p(z_{l-1} | z_l), averaged over the teacher's p(z_l).
    """
    rows = []
    for shape, widths in shapes.items():
        teachers = Teachers.of(widths, strengths, n_teachers)
        truths, log_px = teachers.tables(), teachers.log_px()
        for kind in encoders:
            encoder = "exact" if kind is None else str(kind)
            say(f"{shape} {'-'.join(map(str, widths))} released: {encoder}")
            starts = [Enumeration(decoder, None) for decoder in teachers.decoders]
            if kind is not None:
                starts = list(trained(teachers, kind, budget).stacks)
            end = fit(starts, log_px.exp(), (1.0,) * (len(widths) - 1), released.n_steps, released.learning_rate)
            for index, (truth, stack) in enumerate(zip(truths, end.stacks, strict=True)):
                weight = log_px[index].exp()
                with torch.no_grad():
                    before, after = (_with_posterior(one) for one in (starts[index], stack))
                    rows.append(
                        {
                            **teachers.described(index),
                            "shape": shape,
                            "encoder": encoder,
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


def _with_posterior(stack: Enumeration) -> Tables:
    tables: Tables = stack()
    return tables if tables.up else tables.best((1.0,) * len(tables.down))


def moved(truth: Tables, other: Tables) -> Tensor:
    """KL of each p(z_{l-1} | z_l) `[L]` of the truth from the other's, averaged over the truth's z_l."""
    marginals = truth.marginals()[1:]
    return torch.stack(
        [
            ((above.unsqueeze(-1) + down).exp() * (down - new)).sum()
            for above, down, new in zip(marginals, truth.down, other.down, strict=True)
        ]
    )
