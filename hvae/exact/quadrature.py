"""Exact answers for small non-linear Gaussian stacks: expectations over normal noise as sums over nodes.

Quadrature is a choice of noise: equally spaced nodes (`hvae.exact.nodes`) go through the same walk as draws, each
latent's along an axis of its own in place of K. Answers are computed twice, the second time with twice as
many nodes, and the largest change is their error: in truth that of the first grid, and so more than that of the
answers given. ReLU-like nets are refused, as their kinks converge slowly or never. Doubling does not show a
feature between the nodes of both grids, such as a decoder that jumps within a hundredth of a standard deviation. Nats.
"""

import copy
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hvae.evidence import HVAE, Evidence
from hvae.exact.answers import Gaps, NoReferenceError, Reference
from hvae.exact.nodes import Placement, node_axes
from hvae.network import BeliefNetwork, Conditional
from hvae.posterior import NetworkPosterior, Posterior
from hvae.rng import NoiseSpecs
from hvae.shapes import LogProb, Noise, PerDatum, Value

MAX_DIMENSIONS = 3
DEFAULT_NODES = {1: 400, 2: 100, 3: 40}
"""nodes in each dimension before they are doubled, by the number of dimensions"""
MAX_ERROR = 1e-3
"""nats; answers that move by more when the nodes are doubled are refused"""
MAX_NODES = 2**24
DOUBLED = "answers change"
SEARCH_NODES = 16
"""nodes in each dimension that look for an exact conditional"""
MEMORY = 2**24
"""numbers held by one array, by which data are split"""
NOT_SMOOTH = (
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.RReLU, nn.Threshold, nn.Hardtanh, nn.Hardsigmoid, nn.Hardswish),
    *(nn.ELU, nn.CELU, nn.SELU, nn.Softsign, nn.Hardshrink, nn.Softshrink),  # some derivative jumps at 0
)


@dataclass(frozen=True)
class Quadrature(Reference):
    """Answers by quadrature about a decoder with Gaussian latents of three dimensions in all at most.

    Every answer is computed with ``n_nodes`` and with twice as many in each dimension; the latter is given, and
    `NoReferenceError` raised where the two differ by more than 1e-3 nats.

    >>> from hvae.exact.known_stacks import linear_stack
    >>> stack = linear_stack(1.0, "best", seed=0, widths=(3, 1))
    >>> torch.allclose(Quadrature.of(stack.model.decoder).log_px(stack.x), stack.reference.log_px(stack.x))
    True
    """

    decoder: BeliefNetwork
    """a copy, on the CPU, in float64 and evaluation mode"""
    n_nodes: int

    @staticmethod
    def of(decoder: BeliefNetwork, n_nodes: int | None = None) -> "Quadrature":
        """The reference of a decoder: Gaussian latents, smooth nets, x of any family.

        ``n_nodes`` counts the nodes of one dimension before doubling; by default 400, 100 or 40 in one, two or three
        dimensions. Raises `NoReferenceError` with the reason, ValueError for nodes too few or too many.
        """
        network = copy.deepcopy(decoder).to("cpu", torch.float64).eval()
        n_dimensions = _dimensions(_latent_specs(network))
        n_nodes = DEFAULT_NODES[n_dimensions] if n_nodes is None else n_nodes
        if not 4 <= n_nodes or (2 * n_nodes) ** n_dimensions > MAX_NODES:
            most = int(MAX_NODES ** (1 / n_dimensions)) // 2
            raise ValueError(f"n_nodes is {n_nodes}; in {n_dimensions} dimensions give 4 to {most}.")
        _refuse_kinks(network[name] for name in network.variables)
        return Quadrature(network, n_nodes)

    @torch.no_grad()
    def log_px(self, x: Tensor) -> PerDatum:
        """log p(x) `[B]` of `x [B, D]`: `log sum_k w_k p(x | z_k)` over the nodes of the prior."""
        return self._coarse_and_fine(x)[1]

    @torch.no_grad()
    def log_px_error(self, x: Tensor) -> PerDatum:
        """`[B]`: the change when the nodes are doubled."""
        coarse, fine = self._coarse_and_fine(x)
        return (fine - coarse).abs()

    @torch.no_grad()
    def gaps(self, posterior: Posterior, x: Tensor) -> Gaps:
        """Every exact answer about ``posterior`` on `x [B, D]`, for a Markov decoder.

        With r_k the log-ratio of the exact conditional, not normalised, to q's,

            G_k = E_q [log E_q(v_k | v_<k, x) exp r_k - r_k],
            r_k = log p(z_{l-1} | z_l) p(z_l) - log q(z_l | ·)        bottom-up, z_0 = x,
            r_k = log p(z_l | z_{l+1}) p(x | z_l) - log q(z_l | ·)    top-down,

        so the exact conditional is normalised over the nodes of its own variable, while R_k takes `log p(z_l)` from
        the nodes above z_l, `log p(x | z_l)` from those below. Raises `NoReferenceError` with the reason: skips in the
        decoder, an order that is neither bottom-up nor top-down, kinks, nodes that do not resolve an answer, or
        R_{k-1} - R_k off G_k by more than 1e-3 nats; ValueError for an x that does not fit.
        """
        x = self._observed(x)
        model = HVAE(self.decoder, copy.deepcopy(posterior).to("cpu", torch.float64).eval())
        order, n_dimensions = model.posterior.order, _dimensions(model.noise_specs())
        self._refuse_unless_chain(order)
        if isinstance(model.posterior, NetworkPosterior):
            _refuse_kinks(model.posterior.network[name] for name in order)
        coarse, fine = (
            torch.cat([self._answers(model, part, n) for part in x.split(_rows(n**n_dimensions, model))], -1)
            for n in (self.n_nodes, 2 * self.n_nodes)
        )
        error = _resolved(self.n_nodes, fine - coarse, DOUBLED)
        log_px, elbo = fine[:2]
        rates, layers, remaining = fine[2:].unflatten(0, (3, -1))
        before = torch.cat([(log_px - elbo).unsqueeze(0), remaining[:-1]])
        _resolved(self.n_nodes, before - remaining - layers, "two ways to a layer's gap differ")
        rates, layers, remaining = (dict(zip(order, block, strict=True)) for block in (rates, layers, remaining))
        return Gaps(log_px, elbo, rates, layers, remaining, error)

    def _coarse_and_fine(self, x: Tensor) -> tuple[PerDatum, PerDatum]:
        """log p(x) by the nodes, and by twice as many."""
        x, n_dimensions = self._observed(x), _dimensions(_latent_specs(self.decoder))
        coarse, fine = (
            torch.cat([self._log_px(part, n) for part in x.split(_rows(n**n_dimensions, self.decoder))])
            for n in (self.n_nodes, 2 * self.n_nodes)
        )
        _resolved(self.n_nodes, fine - coarse, DOUBLED)
        return coarse, fine

    def _log_px(self, x: Value, n_nodes: int) -> PerDatum:
        return _log_marginal([self.decoder[name] for name in self.decoder.variables], {"x": x}, n_nodes)

    def _answers(self, model: HVAE, x: Value, n_nodes: int) -> Tensor:
        """log p(x), ELBO, then every rate, G_k and R_k in the order of visits: `[2 + 3L, B]`."""
        order = model.posterior.order
        noise, log_weights = node_axes(model.noise_specs(), n_nodes, 1)
        weight = sum(log_weights.values(), start=x.new_zeros(1)).exp()
        axes = tuple(range(len(order)))

        def mean(terms: LogProb) -> PerDatum:
            return (weight * terms).sum(axes)

        evidence = model(x, noise)
        if not evidence.log_weight.isfinite().all():
            raise NoReferenceError("log-weights are not finite at every node; give finite weights and biases.")
        rates, layers, remaining = [mean(evidence.rate(name)) for name in order], [], []
        for position, name in enumerate(order):
            ratio, unexplained = self._ratio(evidence, name, x, n_nodes)
            normaliser = self._normaliser(model, evidence, name, x, n_nodes)
            layers.append(mean(normaliser - ratio))
            remaining.append(mean(unexplained) + sum(rates[position + 1 :]))
        return torch.stack([self._log_px(x, n_nodes), mean(evidence.log_weight), *rates, *layers, *remaining])

    def _ratio(self, evidence: Evidence, name: str, x: Value, n_nodes: int) -> tuple[LogProb, LogProb]:
        """r_k, and the marginal that it holds less the same along the draw: ``log p(z_l) - log p(z_l | z_{l+1})``
        bottom-up, ``log p(x | z_l) - log p(x | z1)`` top-down."""
        site, prior = evidence.q[name], evidence.p[name].log_prob
        position = self.decoder.variables.index(name)
        if tuple(evidence.q) == evidence.latents:
            above = [self.decoder[other] for other in self.decoder.variables[: position + 1]]
            marginal = _log_marginal(above, {name: site.value}, n_nodes)
            child = evidence.p[self.decoder.variables[position + 1]].log_prob
            return marginal + child - site.log_prob, marginal - prior
        below = [self.decoder[other] for other in self.decoder.variables[position + 1 :]]
        marginal = _log_marginal(below, {name: site.value, "x": x}, n_nodes)
        return marginal + prior - site.log_prob, marginal - evidence.p["x"].log_prob

    def _normaliser(self, model: HVAE, evidence: Evidence, name: str, x: Value, n_nodes: int) -> LogProb:
        """``log E_q(v_k | v_<k, x) exp r_k`` for each v_<k and x, over nodes of q's noise.

        They are moved to where the exact conditional has its mass, which a few nodes look for first, so that a q much
        narrower, wider or elsewhere does no harm.
        """
        sites, axis = list(evidence.q.items()), model.posterior.order.index(name)
        # nothing here depends on what is visited later: any value will do
        given = {
            other: site.value if k < axis else x.new_zeros(site.value.shape[-1])
            for k, (other, site) in enumerate(sites)
        }
        del given[name]

        def look(placement: Placement, n: int) -> tuple[Noise, LogProb, LogProb]:
            noise, log_weights = node_axes(model.noise_specs(), n, 1)
            moved, log_weight = placement.place(noise[name], log_weights[name])
            visit = model.weigh(model.infer(x, {name: moved}, given), x)
            return noise[name], log_weights[name], log_weight + self._ratio(visit, name, x, n_nodes)[0]

        width = model.noise_specs()[name][1]
        placement = Placement(x.new_zeros(width), torch.eye(width, dtype=x.dtype))
        for by in ("moments", "curvature", "moments", "moments"):
            grid, log_weight, terms = look(placement, SEARCH_NODES)
            if by == "moments":
                placement = placement.to_moments(grid, terms, axis)
            else:
                placement = placement.to_curvature(grid, log_weight, terms, axis)
        return look(placement, n_nodes)[2].logsumexp(axis, keepdim=True)

    def _refuse_unless_chain(self, order: tuple[str, ...]) -> None:
        names = self.decoder.variables
        for above, name in itertools.pairwise(names):
            if self.decoder[name].parents != (above,):
                raise NoReferenceError(
                    f"{name} has the parents {', '.join(self.decoder[name].parents) or 'none'} in the decoder; gaps "
                    f"by quadrature need a chain, where its only parent is {above}."
                )
        if order not in (names[:-1], names[-2::-1]):
            raise NoReferenceError(
                f"the posterior visits {', '.join(order)}; gaps by quadrature need the order {', '.join(names[:-1])} "
                "or its reverse."
            )

    def _observed(self, x: Tensor) -> Value:
        width = self.decoder["x"].family.width
        if x.ndim != 2 or x.shape[1] != width or not len(x) or not x.isfinite().all():
            raise ValueError(
                f"x is {list(x.shape)}{'' if x.isfinite().all() else ' and not finite'}; give finite [B, {width}]."
            )
        return x.to("cpu", torch.float64)


def _log_marginal(conditionals: Sequence[Conditional], given: Mapping[str, Value], n_nodes: int) -> LogProb:
    """log-probability of the last variable, where it stands in ``given``; all others are summed over their nodes."""
    network = BeliefNetwork(conditionals)
    *others, last = network.variables
    specs = network.noise_specs()
    n_axes = max(value.ndim for value in given.values()) - 1
    noise, log_weights = node_axes({name: specs[name] for name in others}, n_nodes, n_axes)
    log_prob = network.walk(given, noise)[last].log_prob
    if not others:
        return log_prob
    return (log_prob + sum(log_weights.values(), start=log_prob.new_zeros(1))).logsumexp(tuple(range(len(others))))


def _latent_specs(decoder: BeliefNetwork) -> NoiseSpecs:
    return {name: spec for name, spec in decoder.noise_specs().items() if name != "x"}


def _dimensions(specs: NoiseSpecs) -> int:
    """Numbers of noise in all, 1 to 3. Raises `NoReferenceError` where they are more, or not normal."""
    for name, (kind, _) in specs.items():
        if kind != "normal":
            raise NoReferenceError(f"{name} is drawn from {kind} noise; quadrature needs Gaussian latents throughout.")
    total = sum(width for _, width in specs.values())
    if total > MAX_DIMENSIONS:
        raise NoReferenceError(f"the latents have {total} dimensions in all; quadrature has {MAX_DIMENSIONS} at most.")
    return total


def _refuse_kinks(conditionals: Iterable[Conditional]) -> None:
    """Refuse nets that are not smooth in a latent; of x, which is fixed, they may be what they like."""
    for conditional in conditionals:
        kinks = [type(module).__name__ for module in conditional.net.modules() if isinstance(module, NOT_SMOOTH)]
        if kinks and set(conditional.parents) - {"x"}:
            raise NoReferenceError(
                f"the net of {conditional.name} contains {kinks[0]}, whose kink equally spaced nodes never resolve; "
                "use tanh or softplus."
            )


def _rows(n_points: int, model: nn.Module) -> int:
    """Data at a time: the nodes times the widest array of any net stay within `MEMORY`."""
    widest = max((parameter.shape[0] for parameter in model.parameters() if parameter.ndim), default=1)
    return max(1, MEMORY // (n_points * widest))


def _resolved(n_nodes: int, difference: Tensor, what: str) -> float:
    """The largest difference `[..., B]` of two computations of the same answers, refused where it means no number."""
    error = float(difference.abs().max())
    if not error <= MAX_ERROR:
        raise NoReferenceError(
            f"{what} by {error:.2g} nats, where {MAX_ERROR} is the limit: {n_nodes} nodes doubled do not resolve this "
            "stack; give more n_nodes, or a smoother or less narrow one."
        )
    return error
