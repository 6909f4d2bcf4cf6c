"""Tables of a posterior over discrete layers: every distribution of q, and expectations under it.

With the latents in the order v_1, v_2, … in which q visits them, and every distribution seeing at most x and the
latent visited just before, q is a chain per datum,

    q(v_k | x) = sum over v_{k-1} of q(v_{k-1} | x) q(v_k | v_{k-1}, x),
    E_q f(v_{k-1}, v_k) = sum over v_{k-1} of q(v_{k-1} | x) sum over v_k of q(v_k | v_{k-1}, x) f(v_{k-1}, v_k),

so depth costs nothing. A weight that underflows is a term of 0: no logarithm of a sum is taken here.

Axes: B data (1: the same for all), P states of v_{k-1} (1: not seen, or nothing visited before), S states of v_k.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.func import functional_call
from torch.nn import functional as F

from hvae.exact.answers import NoReferenceError, refuse_batch_statistics
from hvae.families import Autoregressive, Bernoulli, Categorical, Family
from hvae.families.autoregressive import AutoregressiveDistribution
from hvae.network import BeliefNetwork
from hvae.posterior import Posterior
from hvae.shapes import PerDatum

CELLS = 2**24
"""numbers in the largest array: one matrix of 2^12 by 2^12 states, 128 MiB"""
N_PROBES = 16

Answer = TypeVar("Answer")
Integrands = Callable[[str, Tensor, Tensor], Sequence[Tensor]]
"""(latent, rows of data, log q [B, P, S]) -> functions of (v_{k-1}, v_k) to average, each [B or 1, P or 1, S]"""


def enumerable(family: Family) -> tuple[int, int]:
    """(units, states of one unit) of a discrete family. Raises `NoReferenceError` for any other."""
    match family:
        case Bernoulli():
            return family.units, 2
        case Categorical():
            return family.units, family.n_classes
        case Autoregressive():
            return enumerable(family.unit)
        case _:
            raise NoReferenceError(f"a {type(family).__name__} layer has no states to enumerate.")


def has_states(family: Family) -> bool:
    """Whether a family can be enumerated."""
    try:
        enumerable(family)
    except NoReferenceError:
        return False
    return True


def all_states(family: Family) -> Tensor:
    """All states `[S, width]` of a discrete family, float64, the first unit changing fastest."""
    n_units, n_classes = enumerable(family)
    place = torch.tensor([n_classes**unit for unit in range(n_units)])
    digits = torch.arange(n_classes**n_units).unsqueeze(-1) // place % n_classes
    if family.width > n_units:  # one-hot
        digits = F.one_hot(digits, n_classes).flatten(-2)
    return digits.double()


def parameters(family: Family, distribution: Distribution) -> Tensor:
    """The numbers `[..., W]` that define a distribution of ``family``: natural parameters, else the net's outputs."""
    if isinstance(distribution, AutoregressiveDistribution):
        return distribution.outputs
    return family.natural(distribution)[0]


def log_table(family: Family, told: Tensor, states: Tensor) -> Tensor:
    """log-probability `[..., S]`, float64, of every value `[S, width]` under distributions of `parameters` ``told``.

    Factorised units take products of matrices in which no term exceeds 0, so nothing cancels, at any logit.
    Autoregressive distributions score each state, in parts.
    """
    if isinstance(family, Bernoulli):
        told = told.double()
        return F.logsigmoid(told) @ states.mT + F.logsigmoid(-told) @ (1 - states).mT
    if isinstance(family, Categorical):
        units = told.double().unflatten(-1, (family.units, family.n_classes))
        table: Tensor = units.log_softmax(-1).flatten(-2) @ states.mT
        return table
    values, distributions = states.to(told), told.flatten(end_dim=-2).unsqueeze(-2)
    parts = distributions.split(max(1, CELLS // (len(states) * distributions.shape[-1])))
    found = torch.cat([family.log_prob(family.distribution(part), values) for part in parts])
    return found.double().reshape(*told.shape[:-1], len(states))


def in_double(answer: Callable[[], Answer], *modules: nn.Module) -> Answer:
    """``answer()`` while the weights of ``modules`` are float64, with the gradient in the weights that they have."""

    class Call(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.held = nn.ModuleList(modules)

        def forward(self) -> Answer:
            return answer()

    call = Call()
    state = {**dict(call.named_parameters()), **dict(call.named_buffers())}
    wide = {name: value.double() if value.is_floating_point() else value for name, value in state.items()}
    found: Answer = functional_call(call, wide, ())
    return found


def like_weights(module: nn.Module, value: Tensor) -> Tensor:
    """``value`` in the dtype and on the device of the weights of ``module``."""
    weights = next(chain(module.parameters(), module.buffers()), None)
    return value if weights is None else value.to(weights)


@dataclass(frozen=True)
class Visits:
    """q(z | x) on ``x [B, D]``, read from the live modules; made by `of`, which checks what the distributions see.

    >>> from hvae.exact.known_stacks import binary_decoder, binary_encoder
    >>> source = torch.Generator().manual_seed(0)
    >>> decoder, posterior = binary_decoder(1.0, (3, 2), source), binary_encoder((3, 2), source)
    >>> states = torch.cartesian_prod(*[torch.tensor([0.0, 1.0]).double()] * 2)
    >>> visits = Visits.of(decoder, posterior, torch.eye(3), {"z1": states})
    >>> visits.log_q("z1", torch.arange(3)).shape  # [B, P, S]
    torch.Size([3, 1, 4])
    """

    decoder: BeliefNetwork
    posterior: Posterior
    x: Tensor
    states: Mapping[str, Tensor]
    pairwise: frozenset[str]
    """latents that see both x and the latent visited before: a matrix for every datum"""

    @staticmethod
    def of(decoder: BeliefNetwork, posterior: Posterior, x: Tensor, states: Mapping[str, Tensor]) -> "Visits":
        """Raises `NoReferenceError`, with the reason, for a posterior that is no chain over these states."""
        latents = tuple(states)
        if posterior.order not in (latents, latents[::-1]):
            raise NoReferenceError(
                f"the posterior visits {list(posterior.order)}; exact answers need {list(latents)} or the reverse."
            )
        refuse_batch_statistics(posterior)
        visits = Visits(decoder, posterior, x, states, frozenset())
        with torch.no_grad():
            shapes = {name: visits._shape(name) for name in posterior.order}
        pairwise = frozenset(name for name, shape in shapes.items() if min(shape[:2]) > 1)
        return Visits(decoder, posterior, x, states, pairwise)

    def previous(self, name: str) -> str | None:
        """The latent visited just before; None for the first."""
        position = self.posterior.order.index(name)
        return self.posterior.order[position - 1] if position else None

    def n_previous(self, name: str) -> int:
        """P, 1 for the first."""
        previous = self.previous(name)
        return 1 if previous is None else len(self.states[previous])

    def log_q(self, name: str, rows: Tensor) -> Tensor:
        """log q(v_k | v_{k-1}, x) `[B or 1, P or 1, S]` for some rows of the data, nats."""
        given, previous = self._given(name, torch.zeros(1, dtype=torch.long)), self.previous(name)
        if previous is not None:
            given[previous] = self.states[previous].unsqueeze(1)

        def table() -> Tensor:
            family, told = self._distribution(name, given, self.x[rows])
            return log_table(family, told.transpose(0, 1), self.states[name])

        return in_double(table, self.decoder, self.posterior)

    def chunks(self, name: str, weight: Tensor, *, cells: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """(rows, ``weight [B, P]`` of the rows, log q) over all data, where callers hold ``cells`` numbers a datum."""
        if name in self.pairwise:
            cells = max(cells, self.n_previous(name) * len(self.states[name]))
        for rows in torch.arange(len(self.x), device=weight.device).split(max(1, CELLS // cells)):
            yield rows, weight[rows], self.log_q(name, rows)

    def walk(self, integrands: Integrands, *, matrices: frozenset[str]) -> Iterator[tuple[str, Tensor, list[PerDatum]]]:
        """Visit the latents: (name, q(v_k | x) `[B, S]`, the expectations `[B]` of the integrands).

        ``matrices`` names the latents with integrands that are a matrix for every datum, to keep within memory.
        """
        weight = self.x.new_ones(len(self.x), 1, dtype=torch.float64)
        for name in self.posterior.order:
            n_previous, n_states = self.n_previous(name), len(self.states[name])
            cells = n_previous * n_states if name in matrices else n_previous + n_states
            parts = []
            for rows, w, log_q in self.chunks(name, weight, cells=cells):
                q = log_q.exp()
                parts.append([_push(w, q), *(_mean(w, q, f) for f in integrands(name, rows, log_q))])
            weight, *means = (torch.cat(column) for column in zip(*parts, strict=True))
            yield name, weight, means

    def _distribution(self, name: str, given: Mapping[str, Tensor], x: Tensor) -> tuple[Family, Tensor]:
        """The family of a latent and the `parameters` `[P or 1, B or 1, W]` of its distribution, all latents given."""
        values = {key: like_weights(self.posterior, value) for key, value in {**given, "x": x.unsqueeze(0)}.items()}
        site = self.posterior.walk(self.decoder, values, {})[name]
        own = self.decoder[name].family
        discrete = isinstance(site.family, Autoregressive | Bernoulli | Categorical)
        if not discrete or enumerable(site.family) != enumerable(own) or site.family.width != own.width:
            raise NoReferenceError(
                f"the posterior draws {name} from a {type(site.family).__name__} of {site.family.units} units where "
                f"the decoder has a {type(own).__name__} of {own.units}; the two must have the same states."
            )
        told = parameters(site.family, site.distribution)
        if not told.isfinite().all():
            raise NoReferenceError(f"the posterior's distribution of {name} has logits that are not finite.")
        return site.family, told.reshape(*(1,) * (3 - told.dim()), *told.shape)

    def _given(self, name: str, index: Tensor) -> dict[str, Tensor]:
        """All latents at the states ``index [K]`` (taken modulo their number), as `[K, 1, width]`."""
        return {key: states[index.to(states.device) % len(states)].unsqueeze(1) for key, states in self.states.items()}

    def _shape(self, name: str) -> torch.Size:
        """Shape of the distribution's parameters, after the latents that it must not see changed nothing."""
        source, previous = torch.Generator().manual_seed(0), self.previous(name)
        x = self.x[:2]

        def index() -> Tensor:
            return torch.randint(2**31, (N_PROBES,), generator=source)

        seen = self._given(name, index())
        kept = {} if previous is None else {previous: seen[previous]}
        told = [
            in_double(lambda given=given: self._distribution(name, given, x)[1], self.decoder, self.posterior)  # type: ignore[misc]
            for given in ({**self._given(name, index()), **kept} for _ in range(2))
        ]
        # the same inputs in batches of one shape: what differs beyond the rounding of a long sum was seen
        rounding = 64 * torch.finfo(torch.float64).eps * (1 + told[0].abs().max())
        if (told[0] - told[1]).abs().max() > rounding:
            before = "no other latent" if previous is None else f"no other latent than {previous}"
            raise NoReferenceError(
                f"the posterior's distribution of {name} sees more than it may: exact answers need it to see x and "
                f"{before}."
            )
        return told[0].shape


def _push(weight: Tensor, q: Tensor) -> Tensor:
    """q(v_k | x) `[B, S]` from q(v_{k-1} | x) `[B, P]`."""
    if q.shape[1] == 1:
        return q[:, 0].expand(len(weight), -1)
    if len(q) == 1:
        return weight @ q[0]
    return (weight.unsqueeze(1) @ q).squeeze(1)


def _mean(weight: Tensor, q: Tensor, f: Tensor) -> PerDatum:
    """E_q f `[B]` of ``f [B or 1, P or 1, S]``; two independent latents never become a matrix for every datum."""
    inner = q[:, 0] @ f[0].mT if q.shape[1] == 1 and len(f) == 1 else (q * f).sum(-1)
    return (weight * inner).sum(-1)
