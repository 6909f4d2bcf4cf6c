"""Every inference order beside one frozen decoder."""

from hvae.analysis.exhibits import Exhibit
from hvae.analysis.sections.section import Section
from hvae.experiments.orders.figures import exact, informations, leads
from hvae.experiments.orders.tables import frozen_decoder_summary, same_decoder_csv, same_decoder_tables

FIGURES = (
    Exhibit(
        "same-decoder-leads",
        "Who leaves the smallest gap at one decoder",
        "ELBO less that of bottom-up beside the same frozen decoder, in nats, which is exactly what its gap is smaller "
        "by: points are seeds, the tick is their mean, the bar its 95 % t-interval, paired by seed and not corrected "
        "for their number. Every encoder was trained anew for the same number of steps; “unamortised” is fitted to "
        "each image by itself and compared with bottom-up on these images.",
        lambda study: leads(study.measured),
        "",
    ),
    Exhibit(
        "same-decoder-information",
        "What every layer says of the image, at one decoder",
        "I in nats, one point per seed, the line through their medians: I(x; z(l)) where z1 is visited first, "
        "I(x; z(l) | layers above) in the two ladders, so that the two kinds compare in kind and not in size. Linear "
        "up to 0.1 nats, logarithmic beyond.",
        lambda study: informations(study.measured),
        "",
    ),
    Exhibit(
        "same-decoder-known",
        "The same, where the posterior is known",
        "Gap by draws of the refitted posteriors (exact log p(x) less the ELBO) against the exact gap, by transfer "
        "matrices or in closed form, in nats on the same data; one point per order and seed. On the dashed line they "
        "are equal, and orders rank as they should.",
        lambda study: exact(study.measured),
        "",
    ),
)

SECTION = Section(
    "same-decoder",
    "One decoder under every order",
    "The decoders of a run are frozen and every order’s encoder is trained anew beside them, for the same number of "
    "steps on the same images; everything is measured on test images. At one decoder log p(x) is common: what an ELBO "
    "lies behind another, its gap is larger by, exactly and with no estimate of log p(x). Behind the best: of the "
    "encoders, the one with the highest mean; behind a fit per image: of a factorised distribution with free "
    "parameters for "
    "each of a few images, negative where the order’s family gains more than one net for all images costs. Mean "
    "[95 % t-interval over seeds, paired], or mean ± its half-width; not corrected for their number. I and the rate "
    "are read as in “Every layer”. G: the layer’s gap, estimated on a few images, and of how many replicas it is "
    "trusted; those of orders that visit z1 first are splits of one kind, those of ladders of another. A decoder has "
    "moved to where its own order fits, so an answer counts that holds beside both. Every seed is in "
    "tables/same-decoder.csv and tables/same-decoder-known.csv.",
    lambda study: same_decoder_tables(study.measured),
    lambda study: same_decoder_csv(study.measured),
    FIGURES,
    lambda study: frozen_decoder_summary(study.measured),
)
