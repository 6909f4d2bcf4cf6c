"""Nets: from a parent's value to the numbers that a family reads as a distribution. They know no probability.

A net takes ``[..., n_in]`` and answers ``[..., n_outputs]``. A net with an input is a row of layers; the last one has a
bias for each output. The net of a variable without parent is `Root` or `PseudoInputs`. The caller gives the generator
that initialises the weights; biases start at 0. In `outputs` stand layers that may follow a net: means of a set spread,
numbers held below a limit; in `inputs` layers that may stand before it, and make x small.
"""

from hvae.nets.convolutional import convolutional as convolutional
from hvae.nets.convolutional import transposed as transposed
from hvae.nets.inputs import LogCounts as LogCounts
from hvae.nets.inputs import Standardised as Standardised
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
