"""The verdict on a layer: the sure statement at a threshold epsilon, in one phrase.

    J_l surely < epsilon                              collapsed: to N(0, I) if the divergence from it surely is too,
                                                      else to a constant (a distribution of its own)
    J_l surely > epsilon, I_l surely < epsilon        codes noise only
    I_l surely > epsilon, U_l surely < epsilon        coded but unread
    I_l and U_l surely > epsilon                      active
    the rest                                          undecided

J_l is the information from the parent, I_l the information about the datum, U_l the decoder's reading
(`hvae.diagnostics.information`, `hvae.diagnostics.usage`). The verdict never rests on the rate: bottom-up a layer that
carries everything may have a negative one. "Surely" means that the whole interval lies on one side.
"""

from hvae.numerics import FloatArray
from hvae.vocabulary import ACTIVE, COLLAPSED, CONSTANT, NOISE_ONLY, UNDECIDED, UNREAD


def verdict(
    from_parent: FloatArray, about_datum: FloatArray, read: FloatArray, from_standard: FloatArray, epsilon: float
) -> str:
    """One phrase of `hvae.vocabulary` from the intervals (low, middle, high) of J_l, I_l, U_l, KL to N(0, I), nats.

    >>> much, little = (0.5, 0.6, 0.7), (0.0, 0.0, 0.01)
    >>> verdict(from_parent=much, about_datum=much, read=little, from_standard=much, epsilon=0.1)
    'coded but unread'
    """
    if from_parent[2] < epsilon:
        return COLLAPSED if from_standard[2] < epsilon else CONSTANT
    if about_datum[2] < epsilon and from_parent[0] > epsilon:
        return NOISE_ONLY
    if about_datum[0] > epsilon and read[2] < epsilon:
        return UNREAD
    if about_datum[0] > epsilon and read[0] > epsilon:
        return ACTIVE
    return UNDECIDED
