"""Claims of the experiment `orders`: ELBOs and likelihoods over seeds and images, gaps over seeds only.

Of the joint runs: likelihoods and layers, and gaps where log p(x) is trusted. Of frozen decoders: ELBOs. Their
differences at one decoder are those of the gaps, and need no log p(x). All margins are from the first version of the
experiment, before any frozen decoder was seen.
"""

from collections.abc import Callable

import numpy as np

from hvae.analysis.claims import Claim, Measured, NotMeasuredError, Runs, Sample, difference, find, find_part
from hvae.analysis.measures import BOUND, LIKELIHOOD_MARGIN_NATS, active_layers, likelihood
from hvae.analysis.samples import combined
from hvae.experiments.cures import LAYERS_MARGIN

OWNERS = ("bottom-up", "top-down")
"""runs with frozen decoders"""
UNAMORTISED = "unamortised"

LADDER = "Sønderby et al. 2016 (arXiv:1602.02282)"
SYMMETRIC = "Flach et al. 2024 (arXiv:2307.09883)"
SUBOPTIMALITY = "Cremer et al. 2018 (arXiv:1801.03558)"
CONTAINS = "bottom-up with x can ignore x or the layer below, so its best gap is no larger"

GAP_MARGIN_NATS = 0.5


def total_gap(runs: Runs, name: str) -> Sample:
    """[R] log p(x) less the ELBO in nats, on the same images for every order; not measured unless all are trusted."""
    run = find(runs, name)
    if run.gap is None:
        raise NotMeasuredError(f"the gap of the run '{name}' is not measured")
    doubted = int((run.alive & ~run.gap.log_px_trusted).sum())
    if doubted:
        raise NotMeasuredError(f"log p(x) is not trusted in {doubted} of {run.n_replicas} replicas of the run '{name}'")
    return Sample(run.gap.total_nats[:, 1], run.seeds)


def part(owner: str, order: str) -> str:
    """The name of the part of an order at the frozen decoders of a run."""
    return f"{owner}-decoder.{order}"


def elbo(measured: Measured, owner: str, order: str, n_images: int | None = None) -> Sample:
    """[R, n] ELBO in nats at the frozen decoders of ``owner``, on all of its images or the first of them."""
    name = part(owner, order)
    arrays = find_part(measured, name)
    if "elbo_datum_nats" not in arrays:
        raise NotMeasuredError(f"no replica of the part '{name}' could be measured")
    values = arrays["elbo_datum_nats"][:, :n_images]
    return Sample(values, tuple(arrays["seeds"].tolist()), ("the first test images", values.shape[1]))


def lead(measured: Measured, owner: str) -> Sample:
    """[R, n] ELBO of top-down less that of bottom-up at one decoder."""
    top_down, bottom_up = (elbo(measured, owner, order) for order in ("top-down", "bottom-up"))
    return combined(np.subtract, top_down, bottom_up)


def amortised(measured: Measured, owner: str, order: str) -> Sample:
    """[R, n] ELBO on the images with their own posterior."""
    fitted = elbo(measured, owner, UNAMORTISED)
    if order == UNAMORTISED:
        return fitted
    return elbo(measured, owner, order, measured[part(owner, UNAMORTISED)]["elbo_datum_nats"].shape[1])


def _joint() -> list[Claim]:
    gap, gained = "log p(x) less the ELBO", BOUND
    pairs = (("bottom-up-x", "bottom-up", CONTAINS), ("bottom-up-x", "mean-field", CONTAINS))
    likelier = (("top-down", "bottom-up", LADDER), ("bottom-up-x", "bottom-up", CONTAINS))
    return [
        *(
            difference(
                f"{smaller} leaves a smaller gap than {larger}.",
                source, gap, total_gap, larger, smaller, "above", GAP_MARGIN_NATS,
            )
            for smaller, larger, source in (*pairs, ("top-down", "bottom-up", LADDER))
        ),
        *(
            difference(
                f"{better} reaches a higher likelihood than {worse}.",
                source, gained, likelihood, better, worse, "above", LIKELIHOOD_MARGIN_NATS,
            )
            for better, worse, source in likelier
        ),
        difference(
            "The ladder keeps more layers active than bottom-up.",
            LADDER, "active layers by the verdict", active_layers, "top-down", "bottom-up", "above", LAYERS_MARGIN,
            unit="layers",
        ),
        difference(
            "Sharing the decoder's parameters up to the top's prior leaves a ladder's likelihood as it is.",
            SYMMETRIC, gained, likelihood, "top-down-shared", "top-down", "within", LIKELIHOOD_MARGIN_NATS,
        ),
    ]  # fmt: skip


def _frozen(owner: str) -> list[Claim]:
    where, what = f"At the decoder trained {owner}", f"ELBO at the decoder trained {owner}"

    def of(measured: Measured, order: str) -> Sample:
        return elbo(measured, owner, order)

    def own_images(measured: Measured, order: str) -> Sample:
        return amortised(measured, owner, order)

    def claim(
        statement: str, source: str, first: str, second: str, relation: str, margin: float,
        read: Callable[[Measured, str], Sample] = of,
    ) -> Claim:  # fmt: skip
        return difference(
            f"{where}, {statement}", source, what, read, first, second, relation, margin, reads="measured",  # type: ignore[arg-type]
        )  # fmt: skip

    return [
        *(
            claim(
                f"bottom-up-x leaves no larger gap than {other}.",
                CONTAINS, "bottom-up-x", other, "above", -GAP_MARGIN_NATS,
            )
            for other in ("bottom-up", "mean-field")
        ),
        claim(
            "top-down and bottom-up leave the same gap.",
            "open; either sign is possible", "top-down", "bottom-up", "within", GAP_MARGIN_NATS,
        ),
        claim(
            "one net for all images costs mean field more than a margin.",
            SUBOPTIMALITY, UNAMORTISED, "mean-field", "above", GAP_MARGIN_NATS, own_images,
        ),
    ]  # fmt: skip


def _home_advantage(measured: Measured) -> tuple[Sample, Sample]:
    return lead(measured, "top-down"), lead(measured, "bottom-up")


claims = (
    *_joint(),
    *(claim for owner in OWNERS for claim in _frozen(owner)),
    Claim(
        statement="A decoder favours the order that it was trained with.",
        source=SUBOPTIMALITY,
        quantity="lead in ELBO of top-down over bottom-up, at the decoder trained top-down minus at that trained "
        "bottom-up,",
        measure=_home_advantage,
        relation="above",
        margin=GAP_MARGIN_NATS,
        reads="measured",
    ),
)
