"""Every inference order at one frozen decoder."""

from hvae.analysis.exhibits import Exhibit
from hvae.analysis.sections.section import Section
from hvae.experiments.orders.figures import exact, informations, leads
from hvae.experiments.orders.tables import frozen_decoder_csv, frozen_decoder_summary, frozen_decoder_tables

FIGURES = (
    Exhibit(
        "same-decoder-leads",
        "Which order leaves the smallest gap at a frozen decoder",
        "ELBO less that of bottom-up at the frozen decoder, in nats: exactly the difference of their gaps. Points are "
        "seeds, the tick is their mean, the bar its 95 % interval over seeds and images, paired and not corrected for "
        "their number. Every encoder is new and was trained for the same number of steps. “unamortised” is fitted to "
        "each image by itself, and compared with bottom-up on these images. Linear up to 1 nat, logarithmic beyond.",
        lambda study: leads(study.measured),
        "",
    ),
    Exhibit(
        "same-decoder-information",
        "Information of every layer about the image, at a frozen decoder",
        "I in nats, one point per seed; the line joins their medians. I(x; z(l)) where z1 is visited first, "
        "I(x; z(l) | layers above) in the two ladders. So only points of one kind compare in size. Linear up to 0.1 "
        "nats, logarithmic beyond.",
        lambda study: informations(study.measured),
        "",
    ),
    Exhibit(
        "same-decoder-known",
        "Gaps by draws at known decoders",
        "Gap by draws of the refitted posteriors (exact log p(x) less the ELBO) against the exact gap, in nats on the "
        "same data. The exact gap is by transfer matrices or in closed form. One point per order and seed. On the "
        "dashed line they are equal, and both rank orders alike.",
        lambda study: exact(study.measured),
        "",
    ),
)

SECTION = Section(
    "same-decoder",
    "A frozen decoder under every order",
    "The decoders of a run are frozen. For every order new encoders are trained on them, for the same number of steps "
    "on the same images. Everything is measured on test images. One decoder has one log p(x): an ELBO that is lower by "
    "some nats means a gap that is larger by exactly these nats, with no estimate of log p(x). Behind the best: the "
    "encoder with the highest mean. Behind a fit per image: a factorised distribution with free parameters for each of "
    "a few images. It is negative where the order’s family gains more than one net for all images costs. Mean [95 % "
    "interval], or mean ± its longer half: of ELBOs over seeds and images, paired; of the rest over seeds only. They "
    "are not corrected for their number. I and the rate are those of “Every layer”. G: the layer’s gap, estimated on a "
    "few images, and the number of replicas with a trusted estimate. Orders that visit z1 first share one split of the "
    "gap, ladders another. A decoder has moved to where its own order fits, so an answer counts if it holds at both. "
    "Every seed is in tables/same-decoder.csv and tables/same-decoder-known.csv.",
    lambda study: frozen_decoder_tables(study.measured),
    lambda study: frozen_decoder_csv(study.measured),
    FIGURES,
    lambda study: frozen_decoder_summary(study.measured),
)
