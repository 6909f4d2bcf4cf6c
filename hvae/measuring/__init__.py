"""From models to a diagnosis (`hvae.diagnosis`): nothing here knows a configuration, and nothing writes a file.

    whole       `measure`: models, data and sizes -> a `Diagnosis`
    judging     what decides "active" and "collapsed"
    layers      rates, information, use, knock-out, units and verdict of every layer
    likelihood  log p(x) from below, and the curve of bounds L_1 … L_K
    floor       the floor of independent columns beside a likelihood
    pictures    reconstructions, samples, resamplings
    on_request  `further`: annealed, exact, gap, gradients, each of one `replica`
    guard       what a model cannot give, and why

Every quantity is measured for every replica by itself. It has the axis of replicas first, and is an interval (low,
middle, high): the estimator's two bounds, widened by the interval over images. Replicas are never pooled with images.
"""

from hvae.diagnosis.sizes import Budget, Sizes
from hvae.measuring.door import diagnose
from hvae.measuring.judging import sure_words
from hvae.measuring.layers import measure_layers
from hvae.measuring.likelihood import measure_likelihood
from hvae.measuring.on_request import MEASURES, further, with_further
from hvae.measuring.pictures import draw_pictures
from hvae.measuring.replica import Replica
from hvae.measuring.whole import measure

__all__ = [
    "MEASURES",
    "Budget",
    "Replica",
    "Sizes",
    "diagnose",
    "draw_pictures",
    "further",
    "measure",
    "measure_layers",
    "measure_likelihood",
    "sure_words",
    "with_further",
]
