"""Known teachers: the best encoders of each kind, released decoders, and the β threshold of a layer."""

from hvae.analysis.exhibits import Exhibit
from hvae.analysis.sections.section import Section
from hvae.experiments.conjecture.figures import release, strengths, thresholds, widths
from hvae.experiments.conjecture.figures_nonlinear import distributions
from hvae.experiments.conjecture.tables import conjecture_csv, conjecture_summary, conjecture_tables
from hvae.experiments.conjecture.tables_nonlinear import nonlinear_csv, nonlinear_summary, nonlinear_tables

FIGURES = (
    Exhibit(
        "conjecture-widths",
        "The gap of the best encoder, against its width",
        "Mean layer gap in nats of bottom-up encoders, trained without noise on fixed Bernoulli teachers of depth 3. "
        "One point per teacher; the line joins their medians. Dashed, with its range over teachers: a factorised "
        "encoder with a free logit for every parent state, the limit of width. Autoregressive: the parent's net and "
        "the masked net have equally many hidden units. Values below a millionth are drawn there.",
        lambda study: widths(study.measured),
        "",
    ),
    Exhibit(
        "conjecture-strengths",
        "The gap of the best factorised encoder, against couplings and depth",
        "Mean layer gap in nats. One point per teacher; the line joins their medians. Left: Bernoulli teachers, a free "
        "logit for every parent state. Right: linear-Gaussian teachers and the best diagonal encoder, in closed form. "
        "With full covariances the gap is 0.",
        lambda study: strengths(study.measured),
        "",
    ),
    Exhibit(
        "conjecture-nonlinear",
        "The gap of the best encoder on non-linear teachers, by its distribution",
        "Mean layer gap in nats of bottom-up encoders, trained without noise on fixed Gaussian teachers of one unit a "
        "layer. One point per teacher; the lines join their medians. Free: mean and deviation are any function of the "
        "parent, the limit of a Gaussian. The other names end in the hidden units of the nets. Couplings: deviation of "
        "the signal in units of the noise's. Values below a hundred-thousandth are drawn there.",
        lambda study: distributions(study.measured),
        "",
    ),
    Exhibit(
        "conjecture-release",
        "Released decoders",
        "Every point is a teacher at one strength. Left: the gap after the release against the gap before. Middle: the "
        "likelihood given up, KL(p_teacher(x) ‖ p(x)). Right: the information between the two upper layers, after "
        "against before. Dashed: no change, or as much as the gap was. Values below a millionth are drawn there.",
        lambda study: release(study.measured),
        "",
    ),
    Exhibit(
        "conjecture-prices",
        "The β threshold of a needed layer",
        "I_p(z1; z2) in nats of two-layer stacks, with β as weight of the rate of z2. One point per teacher; lines "
        "join medians. β is on each teacher's own scale: 0 is the bound itself (β = 1). 1 is the threshold (dotted): "
        "above it z2 is empty under exact inference. Ticks above: the threshold of every teacher under each inference. "
        "Pairs: units of z1 depend in pairs. Parity: only three units together depend. Titles name the size of the "
        "couplings x | z1 and z1 | z2. Dashed: the 0.1 nats of the verdict. At β = 1 many stacks are equally good "
        "under exact inference, so compare the share of the worth that is kept, in the table.",
        lambda study: thresholds(study.measured),
        "",
    ),
)

SECTION = Section(
    "teachers",
    "Known teachers",
    "Exact, in nats: mean [95 % interval over teachers]. Every row is in tables/conjecture-*.csv. A Bernoulli teacher "
    "has logits linear in the parent. The data are all of its x, weighed by its p(x), so nothing is drawn. β* is the "
    "β threshold, at which z2 empties. Teachers that need z2, and their decoders, let every unit of z1 write its own "
    "pixels. So z2 is worth KL(p(x) ‖ prod p(x_g)) nats, and 1 ≤ λ ≤ β* under an encoder ≤ β* under exact inference ≤ "
    "units of z1. Every β* shown is the larger of λ and the best A / R of the trained stacks: β* is surely no smaller. "
    "Proofs: docs/theorem.md.",
    lambda study: {**conjecture_tables(study.measured), **nonlinear_tables(study.measured)},
    lambda study: {**conjecture_csv(study.measured), **nonlinear_csv(study.measured)},
    FIGURES,
    lambda study: [*conjecture_summary(study.measured), *nonlinear_summary(study.measured)],
)
