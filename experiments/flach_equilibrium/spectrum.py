"""The mutual information of every Bernoulli unit of a layer with its parents.

    MI_u = I(v_u; parents) = H(E pi_u) - E H(pi_u),    pi_u = P(v_u = 1 | parents),    0 <= MI_u <= log 2

with H the entropy of a Bernoulli unit and E over the parents: latents of q on data or of p on its own samples. (The
authors' code of Flach et al. 2024 records it during training.) Given the parents the units are independent. So H(pi_u)
is exact and only E needs draws. The plug-in of n draws is never negative. It is too low by about
``Var(pi_u) / (2 n m (1 - m))``, m the mean of pi_u: at most 1 / 2n. Sorted, the MI_u of a layer are its spectrum. Nats.
"""

import numpy as np
from scipy import special

from hvae.families import Bernoulli
from hvae.network import Site
from hvae.numerics import FloatArray, bernoulli_entropy, mean_interval


def probabilities(site: Site, n: int) -> FloatArray:
    """``pi [D, n]`` along the first path of each of ``n`` draws of the parents.

    Raises TypeError for families other than `Bernoulli`.
    """
    if not isinstance(site.family, Bernoulli):
        raise TypeError(f"a {type(site.family).__name__} has no Bernoulli units, so no information unit by unit.")
    pi: FloatArray = site.mean.detach().double().expand(len(site.value), n, site.family.units)[0].cpu().numpy()
    return pi.T


def bernoulli_information(pi: FloatArray) -> FloatArray:
    """(low, middle, high) ``[D, 3]`` of MI_u from ``pi [D, n]``: the plug-in, the mean of KL(pi ‖ mean of pi).

    The error of the mean of pi is of second order, so the terms count as independent.
    """
    mean = pi.mean(-1, keepdims=True)
    terms = -special.xlogy(pi, mean) - special.xlogy(1 - pi, 1 - mean) - bernoulli_entropy(pi)
    interval: FloatArray = np.maximum(mean_interval(terms), 0.0)
    return interval
