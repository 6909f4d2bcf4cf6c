"""Every interval of a diagnosis of a planted stack, and its verdict, on many sets of images at once. Nats."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from hvae.diagnostics import rates, units, usage
from hvae.diagnostics.critic import decoder_use
from hvae.diagnostics.draws import Sampler, per_datum
from hvae.diagnostics.information import information
from hvae.diagnostics.knockouts import Knockouts
from hvae.diagnostics.redrawn import redrawn_information
from hvae.diagnostics.verdict import Found
from hvae.evidence import HVAE, Evidence
from hvae.experiments.truth.planted import Link, Planted
from hvae.experiments.truth.tally import EPSILON
from hvae.families import DiagonalGaussian, kl
from hvae.nets import Root
from hvae.network import BeliefNetwork, Conditional
from hvae.numerics import FloatArray, log_mean_exp, mean_interval
from hvae.posterior import NetworkPosterior
from hvae.vocabulary import FEWEST_FOR_ABSENCE, TO_ANOTHER, UNDECIDED

LAYERS = ("z1", "z2")
N_PATHS = 8

Interval = Callable[..., FloatArray]


@dataclass(frozen=True)
class Effort:
    """What V and the nested bounds take.

    >>> Effort(16, 2, 16).n_walks
    2
    """

    n_alternatives: int
    n_walks: int
    max_paths: int


@torch.no_grad()
def intervals(
    model: HVAE, x: Tensor, others: Tensor, seed: int, effort: Effort, interval: Interval = mean_interval
) -> tuple[dict[tuple[str, str], FloatArray], dict[str, list[str]]]:
    """(layer, quantity) -> ends ``[R, 2]`` of every interval, and layer -> R verdicts, on R sets of n images.

    ``x [R, n, 1]``; ``others [R, m, 1]`` are images beside them. Whatever is a term of an image, or of a pair, is made
    of all R n images at once: the same terms, as n is even. What depends on the whole set is made set by set: V's
    critic, and the mixtures of I and J.
    """
    n_sets, n = x.shape[:2]
    sampler = Sampler(model, x.flatten(0, 1), seed)
    evidence = sampler.evidence(N_PATHS, "diagnostics")
    read, knockouts = usage.use(sampler, evidence), Knockouts(sampler, evidence)
    found: dict[tuple[str, str], FloatArray] = {}
    apart: dict[str, FloatArray] = {}
    for name in LAYERS:
        of_rates, site = rates.rates(evidence, name), evidence.q[name]
        one, other = (mean.reshape(n_sets, n) for mean in units.mean_variance(site, n_sets * n))
        if not model.bottom_up:
            other = units.residual(evidence, name).reshape(n_sets, n)
        of_units = [
            ("Burda's variance", one, one),
            ("twins", one, other) if model.bottom_up else ("residual", other, other),
        ]
        terms = {
            "rate": of_rates["rate_nats"],
            "KL to N(0, I)": of_rates["kl_standard_nats"],
            "encoder knock-out": knockouts.encoder(name),
        }
        if name == "z1":
            terms["L_8"] = per_datum(log_mean_exp(evidence.log_weight, 0).unsqueeze(0), n_sets * n)
        found |= {(name, what): interval(values.reshape(n_sets, n)) for what, values in terms.items()}
        found[name, "U"] = interval(read[name].reshape(n_sets, n), clusters=sampler.pairs[:n])
        found |= {(name, what): _covariances(a, b) for what, a, b in of_units}
        apart[name] = _own_divergence(model, evidence, name, n_sets)
    by_set = ("V", "I", "J", "share of images")
    found |= {(name, what): np.full((n_sets, 3), np.nan) for name in LAYERS for what in by_set}
    verdicts: dict[str, list[str]] = {name: [] for name in LAYERS}
    for row in range(n_sets):
        one_set = Sampler(model, x[row], seed + row)
        first = one_set.evidence(1, "use")
        used = decoder_use(
            one_set, first, others[row], n_alternatives=effort.n_alternatives, n_walks=effort.n_walks
        )  # fmt: skip
        carried = information(one_set, epsilon=EPSILON, max_paths=effort.max_paths)
        for name in LAYERS:
            known = Found(
                n, used=interval(used[name].terms), from_parent=carried[name].from_parent,
                about_datum=carried[name].about_datum, read=found[name, "U"][row],
                divergences={TO_ANOTHER: apart[name][row]},
            )  # fmt: skip
            found[name, "V"][row], found[name, "share of images"][row] = known.used, known.moved_share(EPSILON)
            found[name, "I"][row], found[name, "J"][row] = known.about_datum, known.from_parent
            if n >= FEWEST_FOR_ABSENCE and known.about_datum[0] > EPSILON and known.verdict(EPSILON) == UNDECIDED:
                comes_back = redrawn_information(one_set, first, [name], others[row])[name]
                known = replace(known, comes_back=interval(comes_back))
            verdicts[name].append(known.verdict(EPSILON))
    return {key: ends[:, [0, 2]] for key, ends in found.items()}, verdicts


def _covariances(a: FloatArray, b: FloatArray) -> FloatArray:
    """Set by set ``[R, 3]``: sets stand where units do."""
    return units.covariance_interval(a, b, len(a))


def _own_divergence(model: HVAE, evidence: Evidence, name: str, n_sets: int) -> FloatArray:
    """``[R, n]``: from p(z_l | z_{>l}) where q visits the layers above first, else from the moment match of all."""
    site, n_images = evidence.q[name], evidence.p["x"].value.shape[1]
    terms = kl(site.distribution, site.family.match(site.distribution)) if model.bottom_up else evidence.kl(name)
    return per_datum(terms, n_images).reshape(n_sets, -1)


def built(stack: Planted) -> HVAE:
    """The stack in the core's modules, float64."""
    decoder = BeliefNetwork([_conditional(name, link) for name, link in stack.p.items()])
    posterior = NetworkPosterior(BeliefNetwork([_conditional(name, link) for name, link in stack.q.items()]))
    return HVAE(decoder, posterior).requires_grad_(False).eval()


def _conditional(name: str, link: Link) -> Conditional:
    outputs = torch.tensor([0.0, math.log(link.variance)], dtype=torch.float64)
    if not link.weights:
        return Conditional(name, [], Root(outputs, learned=False), DiagonalGaussian(1))
    net = nn.Linear(len(link.weights), 2, dtype=torch.float64)
    with torch.no_grad():
        net.weight.copy_(torch.tensor([list(link.weights.values()), [0.0] * len(link.weights)]))
        net.bias.copy_(outputs)
    return Conditional(name, list(link.weights), net, DiagonalGaussian(1))
