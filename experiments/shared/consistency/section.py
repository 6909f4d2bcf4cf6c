"""Whether encoder and decoder agree, objective by objective."""

from hvae.analysis.exhibits import Exhibit
from hvae.analysis.sections.section import Section
from hvae.experiments.shared.consistency.figures import distances, samples
from hvae.experiments.shared.consistency.tables import consistency_csv, consistency_summary, consistency_tables

FIGURES = (
    Exhibit(
        "consistency-distances",
        "Do encoder and decoder agree?",
        "Squared Fréchet distance between single-shot samples, the limit of the chain z ~ q(z|x), x' ~ p(x|z) and test "
        "images, equal numbers of each, in the features of the experiment's classifier. One point per replica with its "
        "95 % bootstrap interval, corrected for the number of images. Dashed: two halves of the test images, "
        "uncorrected. Linear below that, logarithmic beyond.",
        distances,
        "",
    ),
    Exhibit(
        "consistency-samples",
        "Single-shot samples and limits of the chain",
        "Draws from p, and states of the encode-decode chain after its last step from test images; first replica. "
        "Shown are the means of p(x | z1) that they fell from; on pages made before these were kept, the draws.",
        samples,
        "",
        as_png=True,
    ),
)

SECTION = Section(
    "consistency",
    "Objectives side by side",
    "Mean ± the longer half of its 95 % interval: of ELBO, bound on log p(x) and their difference over replicas and "
    "images, of the rest over replicas only; active layers are counted in every seed. CPU time is the number of steps "
    "times a cost per step, measured once, all replicas together. “gap ≥” is the bound on log p(x) less the ELBO, a "
    "lower estimate of the gap. Active layers are those of the verdict below. “I, top” is the information of the top "
    "layer about the image, as in “Every layer”. Fréchet distances are squared, of equal numbers of images, in "
    "features of the experiment’s own classifier. They are corrected for the number of images, so they may fall below "
    "0. They compare the limit of the chain z ~ q(z|x), x′ ~ p(x|z), single-shot samples and test images. They also "
    "compare the chain with itself: at half its length, and started from single-shot samples. Every replica is in "
    "tables/consistency.csv, with the uncorrected distance.",
    consistency_tables,
    consistency_csv,
    FIGURES,
    consistency_summary,
)
