"""The figures of a page: how each is made, what it says, and the sentence that takes an empty one's place."""

from collections.abc import Callable
from dataclasses import dataclass

from matplotlib.figure import Figure

from analysis.figures.accuracy import bound_errors, gap_errors, sandwich_closing
from analysis.figures.active_units import active_units
from analysis.figures.collapse import collapse_curves
from analysis.figures.conjecture import cells, release, strengths, widths
from analysis.figures.gap import causes, curves, layer_gaps
from analysis.figures.information import information, rate
from analysis.figures.knockout import knockout_encoder, knockout_model
from analysis.figures.likelihood import likelihood_curves
from analysis.figures.resampling import resampling_grid
from analysis.figures.unit_rates import unit_rates
from analysis.load import LoadedRun
from analysis.study import Study


@dataclass(frozen=True)
class Exhibit:
    """One figure; `make` answers None where there is nothing to show."""

    name: str
    title: str
    caption: str
    make: Callable[[Study], Figure | None]
    absent: str
    as_png: bool = False


EVERY_SEED = (
    "Every point is one replica (seed) with its interval over images; the thin line joins the medians over replicas."
)

LAYERS = (
    Exhibit(
        "information",
        "Information about the image, per layer",
        "I in nats on the fixed test images: I(x; z(l)) bottom-up, I(x; z(l) | layers above) top-down. Bottom-up it "
        "asks which of the n images it was and cannot exceed log n; top-down the interval reaches from an estimate on "
        "n images or more (the middle: on them) to a bound for images at large, which is not capped. Linear up to the "
        "threshold of the verdict (dashed), logarithmic above. " + EVERY_SEED,
        lambda study: information(study.panels),
        "No run has its information measured yet.",
    ),
    Exhibit(
        "rate",
        "Rate, per layer",
        "Mean of log q(z(l)|·) − log p(z(l)|·) in nats; the ELBO is the expected log p(x|z1) minus the sum of the "
        "rates. Bottom-up a rate is a difference of informations and negative for a layer that passes everything on, "
        "so rates are not stacked and the verdict does not rest on them. Linear up to 0.1 nats, logarithmic beyond. "
        + EVERY_SEED,
        lambda study: rate(study.panels),
        "No run has its rates measured yet.",
    ),
    Exhibit(
        "unit-rates",
        "Rate of every unit over training",
        "Colour is the rate of a unit in nats (linear up to 0.01, logarithmic beyond) against the training step, for "
        "the first replica that is alive of the deepest run of each panel. A row is a unit; the units of a layer stand "
        "together, sorted by their last rate. After the heat maps of Sønderby et al. 2016.",
        lambda study: unit_rates(study.deepest),
        "No run has written rates per unit (its laws may not factorise over units).",
        as_png=True,
    ),
    Exhibit(
        "active-units",
        "Active units, per layer",
        "Per cent of a layer's D units whose variance over images exceeds 0.01. Filled: the covariance of two "
        "independent draws of the path bottom-up, the residual mean given the layers above top-down, which leave out "
        "what a unit merely inherits. Hollow: Burda's variance of the mean, which does not. Every point is one "
        "replica; the thin line joins the medians of the filled ones.",
        lambda study: active_units(study.panels),
        "No run has a count of active units (its laws may not factorise over units).",
    ),
    Exhibit(
        "collapse",
        "(ε, δ)-collapse",
        "Per cent of a layer's units whose expected divergence per image stays below ε nats on at least 99 % of the "
        "images (δ = 0.01; Lucas et al. 2019): from p given the same parents in a ladder and at the top, elsewhere "
        "from the unit's own aggregate. Deepest run of each panel; one line per replica. A layer that is high at "
        "small ε is collapsed.",
        lambda study: collapse_curves(study.deepest),
        "No run has an (ε, δ)-collapse curve.",
    ),
    Exhibit(
        "knockout-encoder",
        "What the bound loses without the encoder's layer",
        "Nats of the ELBO lost when q of this layer and of those after it in the inference order (above it bottom-up, "
        "below it top-down) is replaced by the prior; paired over images. Linear up to 0.1 nats, logarithmic beyond. "
        + EVERY_SEED,
        lambda study: knockout_encoder(study.panels),
        "No run has its encoder knock-out measured.",
    ),
    Exhibit(
        "knockout-model",
        "What the model loses without the layer",
        "Nats of likelihood lost when the decoder is given this layer's prior mean in place of the layer, as the "
        "difference of two L_32 bounds, paired over images: too high by the looseness of the clamped stack's bound (q "
        "was not trained for it), too low by that of the whole stack's. Linear up to 0.1 nats, logarithmic beyond. "
        + EVERY_SEED,
        lambda study: knockout_model(study.panels),
        "No run has its model knock-out measured.",
    ),
    Exhibit(
        "likelihood",
        "Likelihood against the number of samples",
        "Mean over images of L_K in nats, a lower bound of log p(x) that rises with K; its value at K = 1 is the ELBO "
        "(open diamond). One line per replica, with its interval over images at the largest K. "
        "The rise from the diamond to the right end is a lower estimate of the gap between log p(x) and the ELBO.",
        lambda study: likelihood_curves(study.panels),
        "No run has its likelihood measured yet.",
    ),
)

GAP = (
    Exhibit(
        "gap-curves",
        "Between the ELBO and log p(x)",
        "Nats above each replica's own ELBO (diamond), means over the same images, against K: on test images, and on "
        "data that the replica's decoder made (simulated). Black: L_K with q as proposal, one line per replica. Blue "
        "dashed: the annealed lower bound; blue solid: the annealed upper bound, which needs an exact draw of the "
        "posterior and so simulated data; log p(x) lies in the band between them. Orange dotted: log p(x) exactly, "
        "where a reference solves the stack.",
        lambda study: curves(study.runs),
        "",
    ),
    Exhibit(
        "gap-layers",
        "The gap of every layer",
        "G_l in nats, the divergence of q's conditional from the exact one, in the run's inference order; over all "
        "layers they sum to log p(x) − ELBO. One bar per replica; its interval is the chance of the draws and the bias "
        "that the estimator may have, for these images. Hollow and hatched: not trusted, with the number of such "
        "replicas below. Diamond: the exact answer. Layer gaps of two inference orders are different splits: compare "
        "totals only.",
        lambda study: layer_gaps(study.runs),
        "",
    ),
    Exhibit(
        "gap-causes",
        "Approximation against amortisation",
        "Nats of the gap that q's family costs (approximation: what is left when q is refined for every image by "
        "itself) and that sharing one encoder costs (amortisation: what the refinement gains). Right of the dashed "
        "line: what refining one layer alone frees; these do not add up to the amortisation, and the remainder says "
        "by how much. One bar per replica; its interval is the chance of the draws, for these images. Hatched: log "
        "p(x) is a lower bound that is not trusted, and so is what the family costs.",
        lambda study: causes(study.runs),
        "",
    ),
)
"""the section on the gap, which stands only where something of it was measured"""


ACCURACY = (
    Exhibit(
        "accuracy-gaps",
        "Layer gaps: estimated less exact",
        "In nats, one point per stack and layer, against the exact gap; the interval is that of the draws and of the "
        "estimates' bias, at a level that leaves the whole figure a false alarm of one in a million. Filled: "
        "the estimate calls itself trusted. Left: the best proposal at hand; right: q as its own proposal, which "
        "misses where it is over-confident, and says so. Linear up to 0.1 nats, logarithmic beyond.",
        lambda study: gap_errors(study.measured["gaps"]) if "gaps" in study.measured else None,
        "",
    ),
    Exhibit(
        "accuracy-bounds",
        "Bounds of log p(x): error against the exact value",
        "Mean over simulated data in nats, with its 95 % interval: lower bounds belong left of 0, upper bounds right. "
        "The encoders are over-confident (0.4 of the best deviations, or logits doubled). Annealing needs Gaussian "
        "latents. Linear up to 0.1 nats, logarithmic beyond.",
        lambda study: bound_errors(study.measured["bounds"]) if "bounds" in study.measured else None,
        "",
    ),
    Exhibit(
        "accuracy-sandwich",
        "How a sandwich closes on a trained stack",
        "Upper less lower annealed bound in nats against the number of temperatures, mean over the same simulated data "
        "with its 95 % interval; the numbers are the seconds it took.",
        lambda study: sandwich_closing(study.measured["sandwich"]) if "sandwich" in study.measured else None,
        "",
    ),
)
"""estimates against what is known, measured beside the runs"""


CONJECTURE = (
    Exhibit(
        "conjecture-widths",
        "What the best encoder leaves, against its width",
        "Mean layer gap in nats of bottom-up encoders trained without noise on fixed teachers of coins, depth 3, one "
        "point per teacher, the line through their medians. Dashed, with its range over teachers: a factorised encoder "
        "with a free logit for every parent state, what width can reach at most. Autoregressive: as many hidden units "
        "in the parent's net and in the masked net. What is below a millionth is drawn there.",
        lambda study: widths(study.measured),
        "",
    ),
    Exhibit(
        "conjecture-strengths",
        "What the best factorised encoder leaves, against couplings and depth",
        "Mean layer gap in nats, one point per teacher, the line through their medians. Left: coins, a free logit for "
        "every parent state. Right: linear-Gaussian teachers and the best diagonal encoder, in closed form; with full "
        "covariances the gap is 0.",
        lambda study: strengths(study.measured),
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
        "conjecture-cells",
        "Inference against the price of a layer",
        "I_p(z1; z2) in nats of two-layer stacks trained from random weights, one point per teacher, against the "
        "weight β of the rates above z1. Exact inference is the best posterior there is; factorised a linear encoder "
        "of coins, a diagonal one of Gaussians. Dashed: the 0.1 nats of the verdict. Linear below, logarithmic above.",
        lambda study: cells(study.measured),
        "",
    ),
)
"""known teachers, measured beside the runs"""


def exhibits(study: Study) -> tuple[Exhibit, ...]:
    """All figures of a study: one of each kind, and a resampling grid for the deepest run of every panel."""
    grids = (_grid(index, run) for index, run in enumerate(study.deepest.values(), start=1))
    return (*LAYERS, *grids)


def _grid(index: int, run: LoadedRun) -> Exhibit:
    return Exhibit(
        f"resampling-{index}",
        f"Which layer holds what: {run.label}",
        "Test images x, their reconstruction (mean), and means of x with only the named layers kept from q(z|x) and "
        "those below drawn afresh from p; three draws each. What the draws of a block share is what the kept layers "
        "hold. White is 0, black is 1.",
        lambda study: resampling_grid(run),
        "Resampling grids are left out where no images were stored or x is no image.",
        as_png=True,
    )
