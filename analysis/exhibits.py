"""The figures of a page: how each is made, what it says, and the sentence that takes an empty one's place."""

from collections.abc import Callable
from dataclasses import dataclass

from matplotlib.figure import Figure

from hvae.analysis.figures.active_units import active_units
from hvae.analysis.figures.collapse import collapse_curves
from hvae.analysis.figures.curves import curves as paper_curves
from hvae.analysis.figures.gap import causes, curves, layer_gaps
from hvae.analysis.figures.information import information, rate
from hvae.analysis.figures.knockout import knockout_encoder, knockout_model
from hvae.analysis.figures.likelihood import likelihood_curves
from hvae.analysis.figures.resampling import resampling_grid
from hvae.analysis.figures.unit_rates import unit_rates
from hvae.analysis.load import LoadedRun
from hvae.analysis.papers import Curves
from hvae.analysis.study import Study


@dataclass(frozen=True)
class Exhibit:
    """One figure; `make` answers None where there is nothing to show."""

    name: str
    title: str
    caption: str
    make: Callable[[Study], Figure | None]
    absent: str
    as_png: bool = False

    @property
    def file(self) -> str:
        """Its name among the files of a report."""
        return f"{self.name}.{'png' if self.as_png else 'svg'}"


EVERY_SEED = (
    "Every point is one replica (seed) with its interval over images; the thin line joins the medians over replicas."
)

LAYERS = (
    Exhibit(
        "information",
        "Information about the image, per layer",
        "I in nats on the fixed test images: I(x; z(l)) where z1 is visited first (bottom-up, bottom-up-x, "
        "mean-field), I(x; z(l) | layers above) top-down. The first asks which of the n images it was and cannot "
        "exceed log n; top-down the interval reaches from an estimate on n images or more (the middle: on them) to "
        "a bound for images at large, which is not capped. Linear up to the "
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
        "No run has written rates per unit (its distributions may not factorise over units).",
        as_png=True,
    ),
    Exhibit(
        "active-units",
        "Active units, per layer",
        "Per cent of a layer's D units whose variance over images exceeds 0.01. Filled: the covariance of two "
        "independent draws of the path where z1 is visited first, the residual mean given the layers above top-down, "
        "which leave out what a unit merely inherits. Hollow: Burda's variance of the mean, which does not. "
        "Every point is one replica; the thin line joins the medians of the filled ones.",
        lambda study: active_units(study.panels),
        "No run has a count of active units (its distributions may not factorise over units).",
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
        "Nats of the ELBO lost when q of this layer and of those after it in the inference order (above it where z1 "
        "is visited first, below it top-down) is replaced by the prior; paired over images. Linear up to 0.1 nats, "
        "logarithmic beyond. " + EVERY_SEED,
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


def exhibits(study: Study) -> tuple[Exhibit, ...]:
    """All figures of a study: those of its paper, one of each kind, a resampling grid for every panel's deepest run."""
    grids = (_grid(index, run) for index, run in enumerate(study.deepest.values(), start=1))
    return (*map(_redrawn, study.curves), *LAYERS, *grids)


def _redrawn(wanted: Curves) -> Exhibit:
    absent = f"{wanted.title}: not measured yet."
    return Exhibit(
        wanted.name, wanted.title, wanted.caption, lambda study: paper_curves(wanted, study), absent, wanted.as_png
    )


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
