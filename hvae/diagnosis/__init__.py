"""What was measured of a model, as a value without torch: records of arrays, sentences of doubt, how they are kept.

    record      a dataclass whose fields know their axes and their keys in a file
    sizes       how much is measured
    layer       one latent layer
    likelihood  bounds on log p(x), gradients, pictures
    gap         annealed bounds, exact answers, the ELBO's gap by layer and by cause
    activity    from shares of units to a cause
    measured    all of it together, and what follows from it
    arrays      to files of flat arrays and back
    files       files that are replaced whole
    card        what is known of the data
    saved       a directory that holds a diagnosis
    diagnosis   `Diagnosis`: measured, and how it is kept and shown

`hvae.measuring` makes a diagnosis from models; `hvae.analysis` draws it.
"""

from hvae.diagnosis.card import Card
from hvae.diagnosis.diagnosis import Diagnosis
from hvae.diagnosis.gap import Annealed, Exact, Gap, Images, LayerGap
from hvae.diagnosis.layer import NOT_MEASURED, Layer
from hvae.diagnosis.likelihood import Likelihood, Pictures, Signal
from hvae.diagnosis.measured import OUTSIDE, SCHEMA, Doubt
from hvae.diagnosis.saved import Saved, find_saved
from hvae.diagnosis.sizes import Budget, Sizes

__all__ = [
    "NOT_MEASURED",
    "OUTSIDE",
    "SCHEMA",
    "Annealed",
    "Budget",
    "Card",
    "Diagnosis",
    "Doubt",
    "Exact",
    "Gap",
    "Images",
    "Layer",
    "LayerGap",
    "Likelihood",
    "Pictures",
    "Saved",
    "Signal",
    "Sizes",
    "find_saved",
]
