"""Stacks of Bernoulli units trained without noise: every state of every layer at once, many stacks at once.

A bottom-up posterior and a Markov decoder over enumerable layers are tables. The data have the distribution w(x), and
β_l weighs the rate of layer l. Then the bound is a sum along the chain,

    B = sum_x w(x) E_q [log p(x | z_1) - sum_l β_l (log q(z_l | z_{l-1}) - log p(z_l | z_{l+1}))],    z_0 = x.

Its maximum over *all* bottom-up q is known by recursion from the top: with V_L = β_L log p(z_L) and β_0 = 1,

    V_{l-1}(z_{l-1}) = β_l log sum over z_l of exp((β_{l-1} log p(z_{l-1} | z_l) + V_l(z_l)) / β_l),

so `best_bound` = sum_x w(x) V_0(x) is the bound under exact inference; with all β = 1 it is E_w log p(x).
`DiscreteChain` answers about one stack and checks its input. This module has no branch on data, so it runs under `vmap`
over stacks of one shape. float64, nats.

Axes: X states of x, S states of a latent, R stacks.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from hvae.exact.discrete_visits import log_table, parameters
from hvae.experiments.shared.ascent import ascend
from hvae.network import BeliefNetwork, Conditional


def bernoulli_states(n_units: int) -> Tensor:
    """All states `[2^D, D]` of D Bernoulli units, the first changing fastest, as `DiscreteChain.states` has them."""
    return (torch.arange(2**n_units).unsqueeze(-1) // 2 ** torch.arange(n_units) % 2).double()


@dataclass(frozen=True)
class Tables:
    """A decoder over x and the latents z1, z2, …, and a bottom-up posterior, as log-probabilities."""

    down: Sequence[Tensor]
    """log p(x | z_1) `[S_1, X]`, log p(z_1 | z_2) `[S_2, S_1]`, …"""
    top: Tensor
    """log p(z_L) `[S_L]`"""
    up: Sequence[Tensor] = ()
    """log q(z_1 | x) `[X, S_1]`, log q(z_2 | z_1) `[S_1, S_2]`, …; empty without a posterior"""

    def bound(self, weight: Tensor, betas: Sequence[float] | Tensor) -> Tensor:
        """B for data of distribution ``weight [X]``, ``betas`` of z1, z2, …."""
        found, above = weight.new_zeros(()), 1.0
        for down, up, beta in zip(self.down, self.up, betas, strict=True):
            q = up.exp()
            found = found + (weight.unsqueeze(-1) * q * (above * down.mT - beta * up)).sum()
            weight, above = weight @ q, beta
        return found + above * (weight * self.top).sum()

    def best_bound(self, weight: Tensor, betas: Sequence[float] | Tensor) -> Tensor:
        """The largest B of any bottom-up posterior."""
        return (weight * betas[0] * self._scores(betas)[0].logsumexp(-1)).sum()

    def best(self, betas: Sequence[float] | Tensor) -> "Tables":
        """This decoder with the posterior that reaches `best_bound`; with all β = 1 the exact posterior."""
        return replace(self, up=[score.log_softmax(-1) for score in self._scores(betas)])

    def _scores(self, betas: Sequence[float] | Tensor) -> list[Tensor]:
        """(β_{l-1} log p(z_{l-1} | z_l) + V_l(z_l)) / β_l `[S_{l-1}, S_l]` for l = 1, 2, …."""
        beta = [1.0, *betas]
        value, found = beta[-1] * self.top, []
        for layer in range(len(self.down), 0, -1):
            found.append((beta[layer - 1] * self.down[layer - 1].mT + value) / beta[layer])
            value = beta[layer] * found[-1].logsumexp(-1)
        return found[::-1]

    def rates(self, weight: Tensor) -> Tensor:
        """E log q(z_l | z_{l-1}) - log p(z_l | z_{l+1}) `[L]` on data of distribution ``weight``.

        At the top it is a divergence.
        """
        one = torch.eye(len(self.up), dtype=weight.dtype)
        return self.bound(weight, torch.zeros_like(one[0])) - torch.stack([self.bound(weight, beta) for beta in one])

    def marginals(self) -> list[Tensor]:
        """log p(x) `[X]`, log p(z_1), …, log p(z_L)."""
        found = [self.top]
        for down in reversed(self.down):
            found.append((found[-1].unsqueeze(-1) + down).logsumexp(0))
        return found[::-1]

    def gaps(self, weight: Tensor) -> Tensor:
        """G_l `[L]` of the posterior on data of distribution ``weight``, from divergences to the exact conditionals."""
        found = []
        for down, up, above in zip(self.down, self.up, self.marginals()[1:], strict=True):
            exact, q = (down.mT + above).log_softmax(-1), up.exp()
            found.append((weight.unsqueeze(-1) * q * (up - exact)).sum())
            weight = weight @ q
        return torch.stack(found)

    def couplings(self) -> Tensor:
        """I_p(x; z_1), I_p(z_1; z_2), … `[L]`."""
        marginals = self.marginals()
        return torch.stack(
            [
                _mutual(above.unsqueeze(-1) + down, above, below)
                for down, below, above in zip(self.down, marginals, marginals[1:], strict=False)
            ]
        )

    def about_x(self) -> Tensor:
        """I_p(x; z_1), I_p(x; z_2), … `[L]`."""
        marginals, found = self.marginals(), [self.down[0]]
        for down in self.down[1:]:
            found.append((down.unsqueeze(-1) + found[-1]).logsumexp(1))
        return torch.stack(
            [
                _mutual(above.unsqueeze(-1) + on_x, above, marginals[0])
                for on_x, above in zip(found, marginals[1:], strict=True)
            ]
        )


def _mutual(pair: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    return (pair.exp() * (pair - rows.unsqueeze(-1) - columns)).sum()


class Enumeration(nn.Module):
    """A decoder and a bottom-up encoder over layers of Bernoulli units; a call makes their tables.

    Exact inference has no encoder.
    """

    def __init__(self, decoder: BeliefNetwork, encoder: BeliefNetwork | None) -> None:
        super().__init__()
        self.decoder, self.encoder = decoder, encoder

    def forward(self) -> Tables:
        names = self.decoder.variables[::-1]
        states = {name: bernoulli_states(self.decoder[name].family.units) for name in names}
        downward = [_table(self.decoder[name], states) for name in names]
        upward = [] if self.encoder is None else [_table(self.encoder[name], states) for name in names[1:]]
        return Tables(downward[:-1], downward[-1][0], upward)


def _table(conditional: Conditional, states: Mapping[str, Tensor]) -> Tensor:
    """log-probabilities `[parents, S]`."""
    told = parameters(conditional.family, conditional(states))
    return log_table(conditional.family, told.reshape(-1, told.shape[-1]), states[conditional.name])


@dataclass(frozen=True)
class Fit:
    """R stacks after training."""

    stacks: Sequence[Enumeration]
    bound: Tensor
    """`[R]`"""
    change: Tensor
    """`[R]`, what the last tenth of the steps still gained"""
    gradient: Tensor
    """`[R]`, Euclidean norm of the gradient at the end"""


def fit(
    stacks: Sequence[Enumeration],
    weight: Tensor,
    betas: Sequence[float] | Tensor,
    n_steps: int,
    learning_rate: float,
    *,
    decoder: bool = True,
) -> Fit:
    """Raise the bound by `ascend` on data of distribution ``weight [R, X]``; ``betas [L]`` or `[R, L]` weigh the rates.

    A stack without encoder has exact inference. ``decoder=False`` trains the encoder alone. Given stacks do not change.
    """
    parameters, buffers = stack_module_state(list(stacks))
    trained = {name: value.detach().clone() for name, value in parameters.items()}
    free = [name for name in trained if decoder or name.startswith("encoder.")]
    for name in free:
        trained[name].requires_grad_(True)
    template = copy.deepcopy(stacks[0]).to("meta")
    exact = template.encoder is None
    every_beta = torch.as_tensor(betas, dtype=weight.dtype).expand(len(stacks), -1)

    def bound(values: dict[str, Tensor], constants: dict[str, Tensor], weight: Tensor, betas: Tensor) -> Tensor:
        tables: Tables = functional_call(template, (values, constants), ())
        return tables.best_bound(weight, betas) if exact else tables.bound(weight, betas)

    def bounds() -> Tensor:
        found: Tensor = vmap(bound)(trained, buffers, weight, every_beta)
        return found

    last, change = ascend([trained[name] for name in free], bounds, n_steps, learning_rate)
    square = torch.stack([_gradient(trained[name]).flatten(1).square().sum(-1) for name in free]).sum(0)
    made = [copy.deepcopy(stack) for stack in stacks]
    for index, stack in enumerate(made):
        stack.load_state_dict({name: value[index].detach() for name, value in trained.items()}, strict=False)
    return Fit(made, last, change, square.sqrt())


def _gradient(parameter: Tensor) -> Tensor:
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
