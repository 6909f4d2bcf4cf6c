"""Estimates against exact answers."""

from hvae.analysis.exhibits import Exhibit
from hvae.analysis.sections.section import Section
from hvae.experiments.truth.figures import bound_errors, gap_errors, sandwich_closing
from hvae.experiments.truth.tables import accuracy_csv, accuracy_summary, accuracy_tables

FIGURES = (
    Exhibit(
        "accuracy-gaps",
        "Layer gaps: estimated less exact",
        "In nats, one point per stack and layer, against the exact gap. The interval is that of the draws and of the "
        "estimates' bias; the whole figure has a false alarm of one in a million. Filled: the estimate is trusted. "
        "Left: the best proposal. Right: q as its own proposal, which misses where it is over-confident, and is not "
        "trusted there. Linear up to 0.1 nats, logarithmic beyond.",
        lambda study: gap_errors(study.measured["gaps"]) if "gaps" in study.measured else None,
        "",
    ),
    Exhibit(
        "accuracy-bounds",
        "Bounds of log p(x): error against the exact value",
        "Mean over simulated data in nats, with its 95 % interval. Lower bounds belong left of 0, upper bounds right. "
        "The encoders are over-confident (0.4 of the best deviations, or logits doubled). Annealing needs Gaussian "
        "latents. Linear up to 0.1 nats, logarithmic beyond.",
        lambda study: bound_errors(study.measured["bounds"]) if "bounds" in study.measured else None,
        "",
    ),
    Exhibit(
        "accuracy-sandwich",
        "How a sandwich closes on a trained stack",
        "Upper less lower annealed bound in nats against the number of temperatures. Mean over the same simulated data "
        "with its 95 % interval; numbers are seconds of computation.",
        lambda study: sandwich_closing(study.measured["sandwich"]) if "sandwich" in study.measured else None,
        "",
    ),
)

SECTION = Section(
    "accuracy",
    "Accuracy",
    "Estimates against exact answers, all in nats. Every row is in tables/accuracy-*.csv. A layer gap is trusted under "
    "two conditions. Its estimates have more than 200 effective draws and k-hat below 0.7 for 95 % of the data. They "
    "move by less than 0.01 nats when the draws are halved. Coverage is counted over repetitions, each with new images "
    "and new draws; its worst cell over orders, stacks and layers is shown.",
    lambda study: accuracy_tables(study.measured),
    lambda study: accuracy_csv(study.measured),
    FIGURES,
    lambda study: accuracy_summary(study.measured),
)
