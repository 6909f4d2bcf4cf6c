"""The reference that a decoder has, if it has one."""

from hvae.exact.answers import NoReferenceError, Reference
from hvae.exact.discrete import DiscreteChain
from hvae.exact.linear_gaussian import LinearGaussian
from hvae.exact.quadrature import Quadrature
from hvae.network import BeliefNetwork, Decoder


def solve(decoder: Decoder) -> Reference:
    """The first of `LinearGaussian`, `DiscreteChain` and `Quadrature` that takes ``decoder``.

    Raises `NoReferenceError` with the reasons of all three, and for a decoder that is no `BeliefNetwork`.

    >>> from hvae.exact.known_stacks import linear_stack
    >>> type(solve(linear_stack(1.0, "best", seed=0).model.decoder)).__name__
    'LinearGaussian'
    """
    if not isinstance(decoder, BeliefNetwork):
        raise NoReferenceError(
            f"this decoder is a {type(decoder).__name__}, and exact answers read the conditionals of a belief network."
        )
    reasons = []
    for kind in (LinearGaussian, DiscreteChain, Quadrature):
        try:
            return kind.of(decoder)
        except NoReferenceError as error:
            reasons.append(f"not {kind.__name__}: {str(error).rstrip('.')}")
    raise NoReferenceError(f"this decoder has no exact answers ({'; '.join(reasons)}).")
