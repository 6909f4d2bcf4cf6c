"""Exact answers for chains of discrete layers, by transfer matrices.

A Markov decoder p(zL) … p(z1|z2) p(x|z1) over layers of Bernoulli or categorical units is a product of tables,

    log p(z_l)     = log sum over z_{l+1} of p(z_{l+1}) p(z_l | z_{l+1}),
    log p(x | z_l) = log sum over z_{l-1} of p(z_{l-1} | z_l) p(x | z_{l-1}),
    log p(x)       = log sum over z_1 of p(z_1) p(x | z_1),

so depth is free and one layer may have up to 2^12 joint states, all in the logarithm. If the posterior's distributions
see at most x and the latent visited just before, the ELBO is a sum of expectations over pairs (`discrete_visits`). The
tables are read from the very modules that are trained, computed in float64 whatever their weights are held in. So exact
ELBO and log p(x) come with their exact gradients, up to 2^8 states a layer.

No term of a table exceeds 0, so nothing cancels at any size of logits. Gaps are computed by two routes that must agree
(`answers.settled`). float64, nats.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from hvae.exact.answers import Gaps, NoReferenceError, Reference, refuse_batch_statistics, settled
from hvae.exact.discrete_information import DiscreteInformation, discrete_information
from hvae.exact.discrete_visits import (
    CELLS,
    Visits,
    all_states,
    enumerable,
    in_double,
    like_weights,
    log_table,
    parameters,
)
from hvae.families import Bernoulli, Categorical
from hvae.network import BeliefNetwork
from hvae.posterior import Posterior
from hvae.shapes import PerDatum

MOST_STATES = 2**12
MOST_STATES_WITH_GRADIENT = 2**8

Tables = Mapping[str, Tensor]
"""latent -> log p(z_l | z_{l+1}) [S_{l+1}, S_l], one row for the top"""


@dataclass(frozen=True)
class DiscreteChain(Reference):
    """Exact answers about a decoder with Bernoulli or categorical latents, autoregressive or not; x is of any family.

    Read from the modules at every call. `log_px`, `elbo` and the tables are differentiable in all parameters up
    to 2^8 states a layer; above that, and in `gaps` and `information`, they are numbers.

    >>> from hvae.exact.known_stacks import binary_decoder
    >>> chain = DiscreteChain.of(binary_decoder(1.0, (4, 3, 2), torch.Generator()))
    >>> every_x = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 4)
    >>> round(chain.log_px(every_x).exp().sum().item(), 6)
    1.0
    """

    decoder: BeliefNetwork
    latents: tuple[str, ...]
    """z1 first"""

    @staticmethod
    def of(decoder: BeliefNetwork) -> "DiscreteChain":
        """The chain of a decoder. Raises `NoReferenceError` with the reason."""
        latents = tuple(name for name in reversed(decoder.variables) if name != "x")
        chain = DiscreteChain(decoder, latents)
        if decoder.variables != (*latents[::-1], "x") or not latents:
            raise NoReferenceError(f"the decoder's variables are {list(decoder.variables)}; it needs latents, then x.")
        for name, parent in zip(("x", *latents), (*latents, None), strict=True):
            if decoder[name].parents != (() if parent is None else (parent,)):
                raise NoReferenceError(
                    f"{name} has the parents {list(decoder[name].parents)}; transfer matrices need a chain, each "
                    "variable with the next layer up as its only parent and none for the top."
                )
        for name in latents:
            n_units, n_classes = enumerable(decoder[name].family)
            if n_classes**n_units > MOST_STATES:
                raise NoReferenceError(
                    f"{name} has {n_classes}^{n_units} states; transfer matrices take at most {MOST_STATES} a layer."
                )
        return chain

    def states(self, name: str) -> Tensor:
        """All states `[S_l, width]` of a latent, the first unit changing fastest."""
        return all_states(self.decoder[name].family).to(like_weights(self.decoder, torch.zeros(())).device)

    def log_px(self, x: Tensor) -> PerDatum:
        """log p(x) `[B]` of ``x [B, D]``."""
        with self._gradient():
            marginal = self._marginals(self._tables())[self.latents[0]]
            return (marginal + self._log_likelihood(x)).logsumexp(-1)

    def log_px_error(self, x: Tensor) -> PerDatum:
        """0 `[B]`: no term cancels."""
        self._check(x)
        return x.new_zeros(len(x), dtype=torch.float64)

    def log_marginal(self, name: str) -> Tensor:
        """log p(z_l) `[S_l]`."""
        with self._gradient():
            return _named(name, self._marginals(self._tables()))

    def reverse(self, name: str) -> Tensor:
        """log p(z_l | z_{l-1}) `[S_{l-1}, S_l]`, what the bottom-up encoder should be; z1 has `posterior_marginal`."""
        if name not in self.latents[1:]:
            raise ValueError(
                f"{name!r} has no latent below; {list(self.latents[1:])} have, and posterior_marginal answers for z1."
            )
        with self._gradient():
            tables = self._tables()
            return self._reverse(name, tables, self._marginals(tables))

    def posterior_marginal(self, name: str, x: Tensor) -> Tensor:
        """log p(z_l | x) `[B, S_l]` of ``x [B, D]``."""
        with self._gradient():
            tables = self._tables()
            return (_named(name, self._marginals(tables)) + self._log_likelihoods(tables, x)[name]).log_softmax(-1)

    def elbo(self, posterior: Posterior, x: Tensor) -> PerDatum:
        """Exact ELBO `[B]` of ``x [B, D]``, with its exact gradient. Raises `NoReferenceError` as `gaps` does."""
        with self._gradient():
            visits = self._visits(posterior, x)
            links, closing = self._links(posterior.order, self._tables(), self._log_likelihood(x))
            walk = visits.walk(lambda name, rows, log_q: (log_q, _of(links[name], rows)), matrices=frozenset())
            visited = [(q, log_p - log_q) for _, q, (log_q, log_p) in walk]
            last = (visited[-1][0] * closing).sum(-1)
            return sum((term for _, term in visited), start=last)

    @torch.no_grad()
    def gaps(self, posterior: Posterior, x: Tensor) -> Gaps:
        """Every exact answer about ``posterior`` on ``x [B, D]``.

        A layer's G is a divergence to the exact conditional p(z_l | z_{l-1}) (bottom-up, p(z_1 | x) for the first)
        or p(z_l | z_{l+1}, x) (top-down), each normalised by itself; what remains is from log p(z_l) or log p(x | z_l).
        At 2^12 states a layer bottom-up takes seconds for all data, top-down a second or two for each.
        Raises `NoReferenceError` where a distribution of the posterior sees more than x and the latent visited before.
        """
        visits, tables = self._visits(posterior, x), self._tables()
        marginals = self._marginals(tables)
        order, bottom_up, first = posterior.order, posterior.bottom_up(self.decoder), self.latents[0]
        likelihoods = {first: self._log_likelihood(x)} if bottom_up else self._log_likelihoods(tables, x)
        links, closing = self._links(order, tables, likelihoods[first])
        on_x = marginals[first] + likelihoods[first]
        reverse = {name: self._reverse(name, tables, marginals).unsqueeze(0) for name in self.latents[1:] if bottom_up}
        reverse[first] = on_x.log_softmax(-1).unsqueeze(1)

        def exact(name: str, rows: Tensor) -> Tensor:
            if bottom_up:
                return _of(reverse[name], rows)
            return (tables[name] + likelihoods[name][rows].unsqueeze(1)).log_softmax(-1)

        log_q, link, layers, visited = {}, {}, {}, {}
        for name, last, means in visits.walk(
            lambda name, rows, log_q: (log_q, _of(links[name], rows), exact(name, rows)),
            matrices=frozenset(() if bottom_up else order),
        ):
            log_q[name], link[name], log_exact = means
            layers[name] = log_q[name] - log_exact
            visited[name] = (last * (marginals if bottom_up else likelihoods)[name]).sum(-1)

        rates, remaining = {}, {}
        bound = following = (last * closing).sum(-1)
        for name in reversed(order):  # bound: the terms of the ELBO that come after this latent
            remaining[name] = visited[name] - bound
            rates[name] = log_q[name] - (following if bottom_up else link[name])
            bound, following = bound + link[name] - log_q[name], link[name]
        rates, remaining = ({name: terms[name] for name in order} for terms in (rates, remaining))
        return settled(Gaps(on_x.logsumexp(-1), bound, rates, layers, remaining))

    @torch.no_grad()
    def information(self, posterior: Posterior, x: Tensor) -> DiscreteInformation:
        """Exact informations of ``posterior`` on the n images ``x [n, D]``, equally weighted."""
        return discrete_information(self._visits(posterior, x), bottom_up=posterior.bottom_up(self.decoder))

    def _gradient(self) -> torch.set_grad_enabled:
        """Gradients up to 2^8 states a layer: the tables that a backward pass keeps would not fit beyond."""
        sizes = [enumerable(self.decoder[name].family) for name in self.latents]
        few = max(n_classes**n_units for n_units, n_classes in sizes) <= MOST_STATES_WITH_GRADIENT
        return torch.set_grad_enabled(torch.is_grad_enabled() and few)

    def _visits(self, posterior: Posterior, x: Tensor) -> Visits:
        self._check(x)
        return Visits.of(self.decoder, posterior, x, {name: self.states(name) for name in self.latents})

    def _check(self, x: Tensor) -> None:
        width = self.decoder["x"].family.width
        if x.dim() != 2 or x.shape[1] != width or len(x) == 0:
            raise ValueError(f"x has the shape {list(x.shape)}; give at least one datum, [B, {width}].")
        if not x.isfinite().all():
            raise ValueError(f"x has {int((~x.isfinite()).sum())} numbers that are not finite; leave those data out.")

    def _distribution(self, name: str) -> Tensor:
        """The `parameters` `[S_{l+1} or 1, W]` of a discrete variable's distribution, for all states of its parent."""
        conditional, values = self.decoder[name], {}
        for parent in conditional.parents:
            values[parent] = like_weights(self.decoder, self.states(parent))
        told = parameters(conditional.family, conditional(values))
        if not told.isfinite().all():
            raise NoReferenceError(f"the decoder's distribution of {name} has logits that are not finite.")
        n_parents = len(next(iter(values.values()), torch.zeros(1)))
        return told.reshape(-1, told.shape[-1]).expand(n_parents, -1)

    def _tables(self) -> Tables:
        refuse_batch_statistics(self.decoder)

        def tables() -> Tables:
            return {
                name: log_table(self.decoder[name].family, self._distribution(name), self.states(name))
                for name in self.latents
            }

        return in_double(tables, self.decoder)

    def _marginals(self, tables: Tables) -> dict[str, Tensor]:
        """log p(z_l) `[S_l]` of every latent, from the top down."""
        found = {self.latents[-1]: tables[self.latents[-1]][0]}
        for name, above in zip(self.latents[-2::-1], self.latents[:0:-1], strict=True):
            found[name] = (found[above].unsqueeze(-1) + tables[name]).logsumexp(0)
        return found

    def _log_likelihood(self, x: Tensor) -> Tensor:
        """log p(x | z1) `[B, S_1]`."""
        self._check(x)
        found = in_double(lambda: self._scores(x), self.decoder)
        if not found.isfinite().all():
            raise NoReferenceError("log p(x | z1) is not finite for some state of z1; the decoder's nets overflow.")
        return found

    def _scores(self, x: Tensor) -> Tensor:
        family, first = self.decoder["x"].family, self.latents[0]
        if isinstance(family, Bernoulli | Categorical):
            found = log_table(family, self._distribution("x"), x.double()).mT
        else:  # eta and A of a narrow Gaussian nearly cancel: its terms are summed unit by unit instead
            states, values = (like_weights(self.decoder, v) for v in (self.states(first), x))
            parts = states.unsqueeze(1).split(max(1, CELLS // values.numel()))
            told = (self.decoder["x"]({first: part}) for part in parts)
            found = torch.cat([family.log_prob(each, values.unsqueeze(0)) for each in told]).mT
        return found

    def _log_likelihoods(self, tables: Tables, x: Tensor) -> dict[str, Tensor]:
        """log p(x | z_l) `[B, S_l]` of every latent, from the bottom up; a chunk of data at a time."""
        found = {self.latents[0]: self._log_likelihood(x)}
        for below, name in zip(self.latents, self.latents[1:], strict=False):
            chunks = found[below].split(max(1, CELLS // tables[below].numel()))
            found[name] = torch.cat([(tables[below] + chunk.unsqueeze(1)).logsumexp(-1) for chunk in chunks])
        return found

    def _reverse(self, name: str, tables: Tables, marginals: Mapping[str, Tensor]) -> Tensor:
        below = self.latents[self.latents.index(name) - 1]
        return (tables[below].mT + marginals[name]).log_softmax(-1)

    def _links(self, order: tuple[str, ...], tables: Tables, likelihood: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """The terms of log p(x, z), each by the latent that completes it, `[B or 1, P or 1, S]`; and the closing one.

        Bottom-up z_l completes log p(z_{l-1} | z_l), or log p(x | z_1), and log p(z_L) `[S_L]` closes; top-down z_l
        completes its own log p(z_l | z_{l+1}), and log p(x | z_1) `[B, S_1]` closes.
        """
        if order != self.latents:
            return {name: tables[name].unsqueeze(0) for name in order}, likelihood
        links = {self.latents[0]: likelihood.unsqueeze(1)}
        for below, name in zip(self.latents, self.latents[1:], strict=False):
            links[name] = tables[below].mT.unsqueeze(0)
        return links, tables[self.latents[-1]][0]


def _of(table: Tensor, rows: Tensor) -> Tensor:
    """The rows of a table that has one for every datum; all of it where it is the same for all."""
    return table[rows] if len(table) > 1 else table


def _named(name: str, tables: Mapping[str, Tensor]) -> Tensor:
    if name not in tables:
        raise ValueError(f"{name!r} is not among the latents {sorted(tables)}.")
    return tables[name]
