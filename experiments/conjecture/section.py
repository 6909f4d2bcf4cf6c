"""Known teachers: the best encoders of each distribution, released decoders, inference against the price of a layer."""

from hvae.analysis.exhibits import Exhibit
from hvae.analysis.sections.section import Section
from hvae.experiments.conjecture.figures import release, strengths, thresholds, widths
from hvae.experiments.conjecture.figures_nonlinear import distributions
from hvae.experiments.conjecture.tables import conjecture_csv, conjecture_summary, conjecture_tables
from hvae.experiments.conjecture.tables_nonlinear import nonlinear_csv, nonlinear_summary, nonlinear_tables

FIGURES = (
    Exhibit(
        "conjecture-widths",
        "What the best encoder leaves, against its width",
        "Mean layer gap in nats of bottom-up encoders trained without noise on fixed teachers of Bernoulli units, "
        "depth 3, one "
        "point per teacher, the line through their medians. Dashed, with its range over teachers: a factorised encoder "
        "with a free logit for every parent state, what width can reach at most. Autoregressive: as many hidden units "
        "in the parent's net and in the masked net. What is below a millionth is drawn there.",
        lambda study: widths(study.measured),
        "",
    ),
    Exhibit(
        "conjecture-strengths",
        "What the best factorised encoder leaves, against couplings and depth",
        "Mean layer gap in nats, one point per teacher, the line through their medians. Left: Bernoulli units, a free "
        "logit for "
        "every parent state. Right: linear-Gaussian teachers and the best diagonal encoder, in closed form; with full "
        "covariances the gap is 0.",
        lambda study: strengths(study.measured),
        "",
    ),
    Exhibit(
        "conjecture-nonlinear",
        "What the best encoder leaves of non-linear teachers, by its distribution",
        "Mean layer gap in nats of bottom-up encoders trained without noise on fixed Gaussian teachers of one unit a "
        "layer, one point per teacher, the lines through their medians. Free: mean and deviation any function of the "
        "parent, which no Gaussian goes below; the others end in the hidden units of their nets. Couplings: deviation "
        "of the signal in units of the noise's. What is below a hundred-thousandth is drawn there.",
        lambda study: distributions(study.measured),
        "",
    ),
    Exhibit(
        "conjecture-release",
        "The decoder released",
        "Every point is a teacher at one strength. Left: the gap after against before (filled), and the likelihood "
        "KL(p_teacher(x) ‖ p(x)) given up (hollow). Right: the information between the two upper layers, after against "
        "before. Dashed: no change.",
        lambda study: release(study.measured),
        "",
    ),
    Exhibit(
        "conjecture-prices",
        "Inference against the price of a layer",
        "I_p(z1; z2) in nats of two-layer stacks trained at a price β on the rate of z2, one point per teacher, lines "
        "through medians. The price is on each teacher's own scale: 0 is the bound itself (β = 1), 1 the threshold "
        "above which z2 is empty under exact inference (dotted). Ticks above: the threshold of every teacher under "
        "each inference. Pairs: units of z1 depend in pairs; parity: only three together. In brackets the size of "
        "the couplings x | z1 and z1 | z2. Dashed: the 0.1 nats of the verdict. Exact inference at β = 1 is "
        "indifferent among many stacks: compare what is kept of the worth in the table.",
        lambda study: thresholds(study.measured),
        "",
    ),
)

SECTION = Section(
    "teachers",
    "Known teachers",
    "Exact, in nats, mean [95 % interval over teachers]; every row is in tables/conjecture-*.csv. A teacher of "
    "Bernoulli units "
    "has logits linear in the parent; the data are all of its x, weighed by its p(x), so nothing is drawn. Where "
    "inference stands against price, every unit of z1 writes pixels of its own in teachers and decoders, so z2 is "
    "worth KL(p(x) ‖ prod p(x_g)) nats; 1 ≤ λ ≤ β* under an encoder ≤ β* of exact inference ≤ units of z1, and every "
    "threshold shown is one that a trained stack proves.",
    lambda study: {**conjecture_tables(study.measured), **nonlinear_tables(study.measured)},
    lambda study: {**conjecture_csv(study.measured), **nonlinear_csv(study.measured)},
    FIGURES,
    lambda study: [*conjecture_summary(study.measured), *nonlinear_summary(study.measured)],
)
