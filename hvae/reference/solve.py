"""The reference that a decoder has, if it has one."""

from hvae.network import BeliefNetwork
from hvae.reference.answers import NoReferenceError, Reference
from hvae.reference.discrete import DiscreteChain
from hvae.reference.linear_gaussian import LinearGaussian
from hvae.reference.quadrature import Quadrature


def solve(decoder: BeliefNetwork) -> Reference:
    """The first of `LinearGaussian`, `DiscreteChain` and `Quadrature` that takes ``decoder``.

    Raises `NoReferenceError` with the reasons of all three.
    """
    reasons = []
    for kind in (LinearGaussian, DiscreteChain, Quadrature):
        try:
            return kind.of(decoder)
        except NoReferenceError as error:
            reasons.append(f"not {kind.__name__}: {str(error).rstrip('.')}")
    raise NoReferenceError(f"this decoder has no exact answers ({'; '.join(reasons)}).")
