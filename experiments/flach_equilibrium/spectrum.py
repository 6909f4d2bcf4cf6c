"""The mutual information of every Bernoulli unit of a layer with its parents.

    MI_u = I(v_u; parents) = H(E pi_u) - E H(pi_u),    pi_u = P(v_u = 1 | parents),    0 <= MI_u <= log 2

with H the entropy of a Bernoulli unit and E over the parents: latents of q on data or of p on dreams. (The authors'
code of Flach et al. 2024 records it during training.) Given the parents the units are independent, so H(pi_u) is exact
and only E needs draws. The plug-in of n draws is never negative. It is too low by about
``Var(pi_u) / (2 n m (1 - m))``, m the mean of pi_u: at most 1 / 2n. Sorted, the MI_u of a layer are its spectrum. Nats.
"""

import numpy as np

from hvae.families import Bernoulli
from hvae.network import Site
from hvae.numerics import FloatArray, bernoulli_entropy, bootstrap_means


def probabilities(site: Site, n: int) -> FloatArray:
    """``pi [D, n]`` along the first path of each of ``n`` draws of the parents.

    Raises TypeError for families other than `Bernoulli`.
    """
    if not isinstance(site.family, Bernoulli):
        raise TypeError(f"a {type(site.family).__name__} has no Bernoulli units, so no information unit by unit.")
    pi: FloatArray = site.mean.detach().double().expand(len(site.value), n, site.family.units)[0].cpu().numpy()
    return pi.T


def bernoulli_information(pi: FloatArray, n_bootstrap: int, seed: int) -> FloatArray:
    """(low, middle, high) ``[D, 3]`` of MI_u from ``pi [D, n]``: the plug-in, percentiles of its bootstrap."""
    entropy = bernoulli_entropy(pi)
    middle = bernoulli_entropy(pi.mean(-1)) - entropy.mean(-1)
    means, entropies = (bootstrap_means(values, n_bootstrap, seed) for values in (pi, entropy))
    low, high = np.percentile(bernoulli_entropy(means) - entropies, [2.5, 97.5], axis=-1)
    return np.stack([low, np.maximum(middle, 0.0), high], axis=-1)  # rounding may say -1e-17
