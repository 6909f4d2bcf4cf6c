"""The gap of the ELBO, split by layer: the cost of each layer of q, with its doubt.

With the latents visited in the order v_1 … v_L of the posterior and ``P_k = log p(v_1 … v_k, x)``, the chain rule
gives, for every order and every decoder, Markov or with skips (`hvae.exact.answers`),

    log p(x) - ELBO = sum_k G_k,    G_k = E_q [log q(v_k | v_<k, x) - (P_k - P_{k-1})]
                                        = E_q KL(q(v_k | v_<k, x) ‖ p(v_k | v_<k, x)),
    R_k = E_q [P_k - (log p(z, x) - log q(v_>k | v_<=k, x))],

R_k the rest of the gap after v_k (D_l bottom-up, F_l top-down). P_L = log p(z, x) is known along a draw. The others
are evidences of smaller stacks: sums over states where they are few, else estimated from below (`proposals`), so R_k is
a lower bound. G_k is a
difference of two estimates and errs either way: by about `bias`, its leading estimate, where it is trusted. Nats.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hvae.diagnostics.draws import Sampler
from hvae.diagnostics.marginals import Marginal, Sampling, best_marginal, measured, settled
from hvae.diagnostics.terms import Term
from hvae.evidence import HVAE, Evidence
from hvae.exact.answers import Reference
from hvae.exact.discrete_visits import has_states
from hvae.likelihood.annealing import Annealed
from hvae.likelihood.estimate import Estimate
from hvae.numerics import FloatArray

SURE = 1e-6
"""chance of a path not drawn below which the draws of a discrete q are all there is"""


@dataclass(frozen=True)
class LayerGap:
    """A term of the gap, and the estimates that it rests on (none: it is exact but for the draws of q).

    >>> layer = LayerGap(Term.of(np.array([[1.0, 3.0], [2.0, 4.0]])), marginals=())  # 2 draws for each of 2 data
    >>> layer.interval()[1], layer.trusted
    (2.5, True)
    """

    term: Term
    marginals: tuple[Marginal, ...]

    @property
    def datum_nats(self) -> FloatArray:
        """``[n]``."""
        return self.term.datum_nats

    @property
    def standard_error(self) -> FloatArray:
        """``[n]``, from the draws of q and of the proposals."""
        return self.term.standard_error

    @property
    def bias(self) -> FloatArray:
        """``[n]``, the estimated biases of its marginals (`Marginal.bias_datum_nats`), added up."""
        return self.term.bias

    def interval(self, level: float = 0.95) -> tuple[float, float, float]:
        """(low, middle, high) of the mean over the n data, `Term.interval`."""
        return self.term.interval(level)

    @property
    def trusted(self) -> bool:
        """Whether every estimate in it is, and its own draws differ."""
        return not self.reason

    @property
    def reason(self) -> str:
        """Why it is not trusted; empty where it is."""
        reasons = [marginal.reason for marginal in self.marginals if not marginal.trusted]
        return " ".join([*reasons, *([self.term.reason] if self.term.reason else [])])

    @property
    def proposal(self) -> str:
        """The proposals used, such as ``log p(x): full, log p(x, z1): widened``."""
        return ", ".join(f"{marginal.what}: {marginal.proposal}" for marginal in self.marginals)

    @property
    def halving_nats(self) -> float:
        """The largest mean change of an estimate when its draws are halved."""
        return max((marginal.halving_nats for marginal in self.marginals), default=0.0)

    @property
    def median_ess(self) -> float:
        """The smallest of the estimates' median effective sample sizes; inf without estimates."""
        return min((float(np.median(marginal.estimate.ess)) for marginal in self.marginals), default=np.inf)

    @property
    def median_pareto_k(self) -> float:
        """The largest of the estimates' median k-hats, where defined; nan without."""
        found = [marginal.estimate.pareto_k for marginal in self.marginals]
        medians = [float(np.median(k[~np.isnan(k)])) for k in found if not np.isnan(k).all()]
        return max(medians, default=np.nan)

    @property
    def doubtful_share(self) -> float:
        """The largest share of evaluations with too few effective draws or too heavy a tail."""
        return max((marginal.doubtful_share for marginal in self.marginals), default=0.0)


@dataclass(frozen=True)
class Gap:
    """log p(x) - ELBO of n data, in all and by layer.

    >>> from hvae.exact.known_stacks import linear_stack
    >>> stack = linear_stack(1.0, "over-confident", seed=0, widths=(6, 4, 3))
    >>> gap = split_gap(stack.model, stack.x, 5, Sampling(400, seed=0, proposals=("q", "widened")))
    >>> np.allclose(gap.total.datum_nats, sum(layer.datum_nats for layer in gap.layers.values()))
    True
    """

    log_px: Marginal
    elbo: Term
    total: LayerGap
    layers: Mapping[str, LayerGap]
    """G_l, in the order of the visit"""
    remaining: Mapping[str, LayerGap]
    """R_l once z_l is visited: lower bounds; 0 for the last"""


@torch.no_grad()
def split_gap(model: HVAE, x: Tensor, n_draws: int, sampling: Sampling, known: Marginal | None = None) -> Gap:
    """The gap of `x [n, D]`, each P_k on each of ``n_draws`` paths of q per datum by the best proposal of ``sampling``.

    ``known`` is log p(x) from elsewhere (`exact_marginal`, `annealed_marginal`). It is taken if it is exact; else it is
    a candidate of `marginals.settled`. Raises ValueError for fewer than two paths, and for weights that are not finite.
    """
    if n_draws < 2:
        raise ValueError(f"n_draws is {n_draws}; give at least 2, else nothing is known of the error.")
    order, evidence = model.posterior.order, Sampler(model, x, sampling.seed).evidence(n_draws, "gap")
    log_weight = _array(evidence.log_weight)
    if not np.isfinite(log_weight).all():
        name = next((n for n in order if not np.isfinite(_array(evidence.rate(n))).all()), "x")
        raise ValueError(f"The log-density of {name} along draws of q is not finite; look for broken parameters.")
    log_q = {name: _array(evidence.q[name].log_prob.expand(n_draws, len(x))) for name in order}
    certain = _drawn_share(evidence, np.sum([*log_q.values()], 0)) > 1 - SURE

    marginals = [_first(model, x, sampling, known)]
    paths = [marginals[0].estimate.log_px + np.zeros_like(log_weight)]
    for k in range(1, len(order)):
        given = {name: evidence.q[name].value.flatten(0, 1).unsqueeze(0) for name in order[:k]}
        marginals.append(best_marginal(model, x.repeat(n_draws, 1), given, sampling))
        paths.append(marginals[k].estimate.log_px.reshape(n_draws, len(x)))
    paths.append(log_weight + sum(log_q.values()))

    def term(draws: FloatArray, *used: int) -> LayerGap:
        """A mean of ``draws [M, n]`` in which the estimates numbered ``used`` stand."""
        found = [marginals[k] for k in used if k < len(order)]
        shared = np.square(marginals[0].estimate.standard_error) if 0 in used else 0.0
        bias = sum((marginal.bias_datum_nats.reshape(-1, len(x)).mean(0) for marginal in found), start=np.zeros(len(x)))
        estimated = tuple(marginal for marginal in found if marginal.estimate.direction != "exact")
        constant = not any(k < len(order) for k in used)  # R_L is 0 by definition
        return LayerGap(Term.of(draws, shared, bias, certain | constant), estimated)

    later = [sum((log_q[name] for name in order[k:]), start=np.zeros_like(log_weight)) for k in range(len(order) + 1)]
    return Gap(
        log_px=marginals[0],
        elbo=Term.of(log_weight, certain=certain),
        total=term(paths[0] - log_weight, 0),
        layers={name: term(log_q[name] - paths[k + 1] + paths[k], k, k + 1) for k, name in enumerate(order)},
        remaining={name: term(paths[k + 1] - paths[-1] + later[k + 1], k + 1) for k, name in enumerate(order)},
    )


def exact_marginal(reference: Reference, x: Tensor) -> Marginal:
    """log p(x) of a reference; how far it may lie off is its bias."""
    log_px, error = _array(reference.log_px(x)), _array(reference.log_px_error(x))
    zero, undefined = np.zeros_like(log_px), np.full_like(log_px, np.nan)
    return Marginal("log p(x)", Estimate(log_px, "exact", zero, zero + np.inf, undefined, 0), error, "exact")


def annealed_marginal(annealed: Annealed) -> Marginal:
    """log p(x) of annealed chains."""
    log_weight = annealed.log_weight
    return measured("log p(x)", "annealed", lambda _, k: log_weight[:k], len(log_weight), len(log_weight))


def _first(model: HVAE, x: Tensor, sampling: Sampling, known: Marginal | None) -> Marginal:
    if known is not None and known.estimate.direction == "exact":
        return known
    found = best_marginal(model, x, {}, sampling)
    return found if known is None or found.estimate.direction == "exact" else settled([found, known])


def _drawn_share(evidence: Evidence, log_q: FloatArray) -> FloatArray:
    """``[n]``, the probability under a discrete q of the paths that were drawn; 0 for other families."""
    sites = list(evidence.q.values())
    if not all(has_states(site.family) for site in sites):
        return np.zeros(log_q.shape[1])
    paths = np.concatenate([_array(site.value.expand(*log_q.shape, -1)) for site in sites], -1)
    firsts = [np.unique(paths[:, i], axis=0, return_index=True)[1] for i in range(log_q.shape[1])]
    return np.array([np.exp(log_q[first, i]).sum() for i, first in enumerate(firsts)])


def _array(values: Tensor) -> FloatArray:
    found: FloatArray = values.detach().double().cpu().numpy()
    return found
