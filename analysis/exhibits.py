"""The figures of a page: how each is made, its caption, and the sentence shown where it is empty."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import count

from matplotlib.figure import Figure

from hvae.analysis.figures.active_units import active_units
from hvae.analysis.figures.collapse import collapse_curves
from hvae.analysis.figures.curves import curves as paper_curves
from hvae.analysis.figures.gap import causes, curves, layer_gaps
from hvae.analysis.figures.information import information, rate
from hvae.analysis.figures.knockout import knockout_encoder, knockout_model
from hvae.analysis.figures.likelihood import likelihood_curves
from hvae.analysis.figures.resampling import resampling_grid
from hvae.analysis.figures.stack import DEEP, stack
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
    "Each point is one replica (seed) with its interval over images. The thin line joins the medians over replicas."
)

LAYERS = (
    Exhibit(
        "information",
        "Use, information and divergence, per layer",
        "All in nats, on the fixed test images, each on its own axes; what was not measured has none. V: what the "
        "decoder uses of the layer, a lower bound, and what the verdict active rests on. A caret above a point: V is "
        "at the most that it can say (grey line), so the layer may be used more. I: information about the image. "
        "Where z1 is visited first (bottom-up, bottom-up-x, mean-field) it is I(x; z(l)): which of the n images it "
        "was, at most log n. Top-down it is I(x; z(l) | layers above). There the middle is the estimate on n images. "
        "The lower end is an estimate on n images or more. The upper end is a bound for images at large, which has "
        "no such limit. KL to prior: the divergence of q(z(l)|·) from its prior; bottom-up below the top it lies "
        "between J and the sum of the rates from z(l) up, and the point is half-way. Linear up to the threshold of "
        "the verdict (dashed), logarithmic above. " + EVERY_SEED,
        lambda study: information(study.panels),
        "No run has its information measured yet.",
    ),
    Exhibit(
        "rate",
        "Rate, per layer",
        "Mean of log q(z(l)|·) − log p(z(l)|·) in nats. The ELBO is the expected log p(x|z1) minus the sum of the "
        "rates. Bottom-up, a rate is a difference of informations; it is negative for a layer that passes everything "
        "on. So rates are not stacked, and the verdict does not rest on them. Linear up to 0.1 nats, logarithmic "
        "beyond. " + EVERY_SEED,
        lambda study: rate(study.panels),
        "No run has its rates measured yet.",
    ),
    Exhibit(
        "unit-rates",
        "Rate of every unit over training",
        "Colour: rate of a unit in nats, linear up to 0.01, logarithmic beyond. Across: training step. Each row is a "
        "unit. The units of a layer stand together, sorted by their last rate. Each panel shows the first replica "
        "that did not fail, of its deepest run. After the heat maps of Sønderby et al. 2016.",
        lambda study: unit_rates(study.deepest),
        "No run has written rates per unit (its distributions may not factorise over units).",
        as_png=True,
    ),
    Exhibit(
        "active-units",
        "Active units, per layer",
        "Units with a variance over images above 0.01, in per cent of the layer's D units. Filled: without what a "
        "unit inherits from other layers. This is the covariance of two independent draws of the path where z1 is "
        "visited first, and the residual mean given the layers above top-down. Hollow: Burda's variance of the mean, "
        "which includes what is inherited. Each point is one replica. The thin line joins the medians of the filled "
        "points.",
        lambda study: active_units(study.panels),
        "No run has a count of active units (its distributions may not factorise over units).",
    ),
    Exhibit(
        "collapse",
        "(ε, δ)-collapse",
        "Per cent of a layer's units with an expected divergence below ε nats on at least 99 % of the images (δ = "
        "0.01; Lucas et al. 2019). In a ladder and at the top, the divergence is from p given the same parents. "
        "Elsewhere it is from the unit's own aggregate. Deepest run of each panel; one line per replica. A layer "
        "that is high at small ε is collapsed.",
        lambda study: collapse_curves(study.deepest),
        "No run has an (ε, δ)-collapse curve.",
    ),
    Exhibit(
        "knockout-encoder",
        "What the bound loses without the encoder's layer",
        "Nats of the ELBO lost when the prior replaces q of this layer and of all later ones in the inference order. "
        "The later ones are those above where z1 is visited first, those below top-down. Paired over images. Linear "
        "up to 0.1 nats, logarithmic beyond. " + EVERY_SEED,
        lambda study: knockout_encoder(study.panels),
        "No run has its encoder knock-out measured.",
    ),
    Exhibit(
        "knockout-model",
        "What the model loses without the layer",
        "Nats of likelihood lost when the decoder is given the layer's prior mean instead of the layer, which q does "
        "not see. It is the difference of two lower bounds, and has no interval. A replica without a point may miss "
        "more than 0.25 nats in one of them. Linear up to 0.1 nats, logarithmic beyond. One point per replica.",
        lambda study: knockout_model(study.panels),
        "No run has its model knock-out measured.",
    ),
    Exhibit(
        "likelihood",
        "Likelihood against the number of samples",
        "Mean over images of L_K in nats: a lower bound of log p(x) that rises with K. At K = 1 it is the ELBO (open "
        "diamond). One line per replica, with its interval over images at the largest K. The bar above its end is "
        "log p(x) from below, by the cheapest method of each image. The rise from the diamond to the bar is a lower "
        "estimate of log p(x) − ELBO.",
        lambda study: likelihood_curves(study.panels),
        "No run has its likelihood measured yet.",
    ),
)

GAP = (
    Exhibit(
        "gap-curves",
        "Between the ELBO and log p(x)",
        "Nats above each replica's own ELBO (diamond) against K, as means over the same images. First: test images. "
        "Then: data simulated by the replica's decoder. Black: L_K with q as proposal, one line per replica. Blue "
        "dashed: the annealed lower bound. Blue solid: the annealed upper bound. It needs an exact draw of the "
        "posterior, so there is one for simulated data only. log p(x) lies in the band between them. Orange dotted: "
        "log p(x) exactly, where a reference solves the stack.",
        lambda study: curves(study.runs),
        "",
    ),
    Exhibit(
        "gap-layers",
        "The gap of every layer",
        "G_l in nats: the divergence of q's conditional from the exact one, in the run's inference order. Over all "
        "layers they sum to log p(x) − ELBO. One point per replica. Its interval covers the chance of the draws and "
        "the possible bias of the estimator, for these images. Hollow: not trusted; the number below counts such "
        "replicas. Dash: the exact answer. Linear up to 0.1 nats, logarithmic beyond. Layer gaps of two inference "
        "orders are different splits, so compare totals only.",
        lambda study: layer_gaps(study.runs),
        "",
    ),
    Exhibit(
        "gap-causes",
        "Approximation against amortisation",
        "Nats of the gap by cause. Approximation: the cost of q's family, which remains when q is refined for every "
        "image by itself. Amortisation: the cost of sharing one encoder, which that refinement gains. Right of the "
        "dashed line: what refining one layer alone gains. These gains do not add up to the amortisation; the "
        "remainder is the difference. One point per replica. Its interval covers the chance of the draws, for these "
        "images. Hollow: log p(x) is a lower bound that is not trusted, and so the approximation is not trusted "
        "either. Linear up to 0.1 nats, logarithmic beyond.",
        lambda study: causes(study.runs),
        "",
    ),
)
"""the section on the gap; left out where nothing of it was measured"""


def exhibits(study: Study) -> tuple[Exhibit, ...]:
    """All figures of a study: those of its paper, one of each kind, and resampling grids of the deepest runs."""
    grids = (_grid(index, run) for index, run in enumerate(study.deepest.values(), start=1))
    stacks = [run for run in study.deepest.values() if run.depth > DEEP]
    return (*map(_redrawn, study.curves), *map(_stack, count(1), stacks), *LAYERS, *grids)


def _stack(index: int, run: LoadedRun) -> Exhibit:
    return Exhibit(
        f"stack-{index}",
        f"The whole stack: {run.label}",
        "A row a layer, the top above; lines part the resolutions. Left: the verdict of each seed. Then, one point a "
        "seed with its interval over images, in nats: the rate; I, information about the image (of a ladder given the "
        "layers above); V, use by the decoder, at least; and the ELBO lost when the prior replaces q of this layer "
        "and of those visited after it. Linear up to 0.1 nats, logarithmic beyond.",
        lambda study: stack(run),
        "No stack has its layers measured yet.",
    )


def _redrawn(wanted: Curves) -> Exhibit:
    absent = f"{wanted.title}: not measured yet."
    return Exhibit(
        wanted.name, wanted.title, wanted.caption, lambda study: paper_curves(wanted, study), absent, wanted.as_png
    )


def _grid(index: int, run: LoadedRun) -> Exhibit:
    n_places = len({layer.place for layer in run.layers})
    return Exhibit(
        f"resampling-{index}",
        f"Which layer holds what: {run.label}",
        "Test images x, their reconstruction (mean), and three draws for each set of kept layers. The kept layers "
        "come from q(z|x), those below are drawn from p; shown are means of x. What the draws of a block share is "
        "the content of the kept layers. Samples keep none. White is 0, black is 1."
        + (' "to 4x4": all layers that are no finer than 4x4 are kept.' if n_places > 1 else ""),
        lambda study: resampling_grid(run),
        "No resampling grid: no images were stored, or x is no image.",
        as_png=True,
    )
