"""Nets: from a parent's value to the numbers that a family reads as a distribution. They know no probability.

A net takes ``[..., n_in]`` and answers ``[..., n_outputs]``; every net that has an input is a row of layers whose
last has one bias for each output. The net of a variable without parent is `Root` or `PseudoInputs`. Weights
are initialised from a generator that the caller hands over; biases start at 0 unless said otherwise. `outputs` holds
what may follow a net: means of a set spread, numbers held below a limit.
"""

from hvae.nets.convolutional import convolutional as convolutional
from hvae.nets.convolutional import transposed as transposed
from hvae.nets.layers import ACTIVATIONS as ACTIVATIONS
from hvae.nets.layers import INITIALISERS as INITIALISERS
from hvae.nets.layers import PseudoInputs as PseudoInputs
from hvae.nets.layers import Residual as Residual
from hvae.nets.layers import Root as Root
from hvae.nets.layers import Style as Style
from hvae.nets.layers import kaiming as kaiming
from hvae.nets.layers import mlp as mlp
from hvae.nets.layers import orthogonal as orthogonal
from hvae.nets.layers import residual as residual
from hvae.nets.layers import xavier as xavier
from hvae.nets.normalisation import BatchNorm as BatchNorm
from hvae.nets.normalisation import ImageNorm as ImageNorm
from hvae.nets.normalisation import estimate_constants as estimate_constants
from hvae.nets.outputs import Capped as Capped
from hvae.nets.outputs import normalise_means as normalise_means
