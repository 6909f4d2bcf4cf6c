"""Discrete stacks for tests, and every answer about them by listing all joint states.

Reads the weights itself and shares no arithmetic with `hvae`: the log-probabilities of each joint state in plain torch,
as the exact gradient is wanted too, and all answers from the full joint table in numpy.
"""

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from scipy.special import logsumexp
from torch import Tensor, nn

from hvae.families import Autoregressive, Bernoulli, Categorical, DiagonalGaussian, Family
from hvae.nets import Root
from hvae.network import BeliefNetwork, Conditional
from hvae.posterior import Ladder, NetworkPosterior, Posterior, alone, shared

Array = np.ndarray

KINDS = ("bottom-up", "bottom-up sees x", "mean field", "mean field top-down", "top-down", "ladder", "shared")

LADDERS = {"ladder": alone, "shared": shared}


def net(n_in: int, n_out: int, source: torch.Generator, scale: float, *, hidden: int = 0) -> nn.Module:
    layers = [(n_in, n_out)] if not hidden else [(n_in, hidden), (hidden, n_out)]
    modules: list[nn.Module] = []
    for rows, columns in layers:
        linear = nn.Linear(rows, columns, dtype=torch.float64)
        with torch.no_grad():
            linear.weight.copy_(scale * torch.randn(columns, rows, generator=source, dtype=torch.float64))
            linear.bias.copy_(scale * torch.randn(columns, generator=source, dtype=torch.float64) / 2)
        modules += [linear, nn.Tanh()]
    return nn.Sequential(*modules[:-1])


def decoder(families: Sequence[Family], *, seed: int = 0, scale: float = 1.5) -> BeliefNetwork:
    """p(zL) … p(z1|z2) p(x|z1) with the families of (x, z1, …, zL); every second net has a hidden layer."""
    source = torch.Generator().manual_seed(seed)
    names = ["x", *(f"z{layer}" for layer in range(1, len(families)))]
    top = scale * torch.randn(families[-1].n_outputs, generator=source, dtype=torch.float64)
    conditionals = [Conditional(names[-1], [], Root(top, learned=True), families[-1])]
    for layer in range(len(families) - 2, -1, -1):
        family, parent = families[layer], families[layer + 1]
        mapped = net(parent.width, family.n_outputs, source, scale, hidden=3 * (layer % 2))
        conditionals.append(Conditional(names[layer], [names[layer + 1]], mapped, family))
    return BeliefNetwork(conditionals)


def posterior(kind: str, families: Sequence[Family], *, seed: int = 100, scale: float = 1.0) -> Posterior:
    """q of one of the `KINDS` over latents with the families of (x, z1, …, zL)."""
    source = torch.Generator().manual_seed(seed)
    of = {"x": families[0], **{f"z{layer}": family for layer, family in enumerate(families[1:], 1)}}
    latents = list(of)[1:]
    order = latents[::-1] if "top-down" in kind else latents
    conditionals = []
    for position, name in enumerate(order):
        before = [] if position == 0 or "mean field" in kind else [order[position - 1]]
        parents = before if before and kind in ("bottom-up", *LADDERS) else [*before, "x"]
        n_in = sum(of[parent].width for parent in parents)
        mapped = net(n_in, of[name].n_outputs, source, scale, hidden=3 * (position % 2))
        conditionals.append(Conditional(name, parents, mapped, of[name]))
    network = BeliefNetwork(conditionals)
    return Ladder(network, LADDERS[kind]) if kind in LADDERS else NetworkPosterior(network)


def observations(family: Family, n: int, seed: int = 5) -> Tensor:
    source = torch.Generator().manual_seed(seed)
    if isinstance(family, DiagonalGaussian):
        return 2 * torch.randn(n, family.width, generator=source, dtype=torch.float64)
    every = torch.tensor(states(family), dtype=torch.float64)
    return every[torch.randint(len(every), (n,), generator=source)]


def states(family: Family) -> list[tuple[float, ...]]:
    """Every value of a family, in an order of its own."""
    if isinstance(family, Autoregressive):
        return states(family.unit)
    if isinstance(family, Bernoulli):
        return list(itertools.product((0.0, 1.0), repeat=family.units))
    assert isinstance(family, Categorical)
    die = [tuple(float(i == face) for i in range(family.n_classes)) for face in range(family.n_classes)]
    return [sum(faces, ()) for faces in itertools.product(die, repeat=family.units)]


def outputs(module: nn.Module, value: Tensor | None) -> Tensor:
    if isinstance(module, Root):
        return module.outputs
    assert isinstance(module, nn.Sequential) and value is not None
    for layer in module:
        value = torch.tanh(value) if isinstance(layer, nn.Tanh) else value @ layer.weight.T + layer.bias
    return value


def log_softmax(logits: Tensor) -> Tensor:
    top = logits.max(-1, keepdim=True).values
    return logits - top - torch.log(torch.exp(logits - top).sum(-1, keepdim=True))


def log_prob(family: Family, logits: Tensor, value: Tensor) -> Tensor:
    if isinstance(family, Autoregressive):
        return log_prob(family.unit, given_before(family, logits, value), value)
    if isinstance(family, Bernoulli):
        zero = torch.zeros_like(logits)
        return (value * -torch.logaddexp(zero, -logits) + (1 - value) * -torch.logaddexp(zero, logits)).sum(-1)
    if isinstance(family, Categorical):
        split = (*logits.shape[:-1], family.units, family.n_classes)
        return (value * log_softmax(logits.reshape(split)).flatten(-2)).sum(-1)
    assert isinstance(family, DiagonalGaussian) and isinstance(family.log_variance, Tensor)
    log_variance = family.log_variance
    return -((value - logits) ** 2 / log_variance.exp() + log_variance + np.log(2 * np.pi)).sum(-1) / 2


def given_before(family: Autoregressive, outputs: Tensor, value: Tensor) -> Tensor:
    """Logits of every unit, one unit after the other: what a unit may see is cut out of ``value``, not masked."""
    size, n_units = family.width // family.units, family.units
    offset, bias = outputs[..., : family.width], outputs[..., family.width :]
    found = []
    for unit in range(n_units):
        own, before = slice(unit * size, (unit + 1) * size), slice(0, unit * size)
        logits = offset[..., own] + value[..., before] @ family.direct[own, before].T
        for h in range(bias.shape[-1]):
            last = h % max(n_units - 1, 1)
            if last < unit:
                seen = slice(0, (last + 1) * size)
                hidden = torch.tanh(bias[..., h] + value[..., seen] @ family.inward[h, seen])
                logits = logits + hidden.unsqueeze(-1) * family.outward[own, h]
        found.append(logits)
    return torch.cat(found, -1)


def mean(family: Family, logits: Tensor) -> Tensor:
    if isinstance(family, Bernoulli):
        return 1 / (1 + torch.exp(-logits))
    assert isinstance(family, Categorical)
    split = (*logits.shape[:-1], family.units, family.n_classes)
    return log_softmax(logits.reshape(split)).exp().flatten(-2)


class Enumerated:
    """log p and log q of every joint state: terms `[B, S_1, …, S_L]` by variable, then every answer from them."""

    def __init__(self, network: BeliefNetwork, visits: Posterior, x: Tensor) -> None:
        self.latents = [name for name in reversed(network.variables) if name != "x"]
        self.order = list(visits.order)
        self.states = {name: states(network[name].family) for name in self.latents}
        joint = list(itertools.product(*self.states.values()))
        self.shape = (len(x), *(len(found) for found in self.states.values()))
        columns = zip(*joint, strict=True)
        values = {
            name: torch.tensor(column, dtype=torch.float64).expand(len(x), -1, -1)
            for name, column in zip(self.latents, columns, strict=True)
        }
        values["x"] = x.unsqueeze(1).expand(-1, len(joint), -1)
        self.log_p = {name: self._score(network[name], values) for name in network.variables}
        if isinstance(visits, Ladder):
            self.log_q = self._ladder(network, visits, values)
        else:
            assert isinstance(visits, NetworkPosterior)
            self.log_q = {name: self._score(visits.network[name], values) for name in self.order}

    def _score(self, conditional: Conditional, values: Mapping[str, Tensor], more: Tensor | float = 0.0) -> Tensor:
        seen = [values[parent] for parent in conditional.parents]
        found = outputs(conditional.net, torch.cat(seen, -1) if seen else None) + more
        terms = log_prob(conditional.family, found, values[conditional.name])
        return terms.reshape(self.shape)

    def _ladder(self, network: BeliefNetwork, ladder: Ladder, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        means, found = values["x"], {}
        for name in self.latents:
            upward = outputs(ladder.upward[name].net, means)
            means = mean(ladder.upward[name].family, upward)
            found[name] = upward
        top = self.latents[-1]
        outputs_of_top = found[top] + outputs(network[top].net, None) if ladder.top is shared else found[top]
        terms = {top: log_prob(network[top].family, outputs_of_top, values[top]).reshape(self.shape)}
        terms |= {name: self._score(network[name], values, found[name]) for name in self.latents[:-1]}
        return {name: terms[name] for name in self.order}

    def elbo(self) -> Tensor:
        """Differentiable `[B]`."""
        log_q = sum(self.log_q.values(), start=torch.zeros(()))
        return (log_q.exp() * (sum(self.log_p.values()) - log_q)).flatten(1).sum(-1)

    def _axes(self, names: Sequence[str]) -> tuple[int, ...]:
        return tuple(1 + self.latents.index(name) for name in names)

    def _kept(self, log_joint: Array, names: Sequence[str]) -> Array:
        """log of the sum over all latents but `names`, on all axes."""
        gone = self._axes([name for name in self.latents if name not in names])
        return logsumexp(log_joint, axis=gone, keepdims=True) if gone else log_joint

    def answers(self) -> dict[str, Array]:
        """log_px, elbo, and by latent: rate, layer, remaining `[B]`, marginal, posterior, reverse (all log)."""
        log_p = {name: terms.detach().numpy() for name, terms in self.log_p.items()}
        log_q = {name: terms.detach().numpy() for name, terms in self.log_q.items()}
        joint, q = sum(log_p.values()), np.exp(sum(log_q.values()))
        prior = joint - log_p["x"]

        def under_q(f: Array) -> Array:
            return (q * f).reshape(len(q), -1).sum(-1)

        found = {"log_px": self._kept(joint, []).ravel(), "elbo": under_q(joint - sum(log_q.values()))}
        for position, name in enumerate(self.order):
            before, rest = self.order[:position], self.order[position + 1 :]
            with_it, without = self._kept(joint, [*before, name]), self._kept(joint, before)
            found["rate", name] = under_q(log_q[name] - log_p[name])
            found["layer", name] = under_q(log_q[name] - (with_it - without))
            found["remaining", name] = under_q(with_it - joint + sum((log_q[n] for n in rest), np.zeros(())))
            found["posterior", name] = (self._kept(joint, [name]) - self._kept(joint, [])).reshape(len(q), -1)
            found["marginal", name] = self._kept(prior, [name])[0].ravel()
        for below, name in itertools.pairwise(self.latents):
            reverse = self._kept(prior, [below, name]) - self._kept(prior, [below])
            found["reverse", name] = reverse[0].reshape(len(self.states[below]), -1)
        return found

    def informations(self) -> dict[str, dict[str, float]]:
        """I_q of the verdict, by entropies of the joint of image and latents."""
        pair = np.exp(sum(terms.detach().numpy() for terms in self.log_q.values())) / self.shape[0]

        def entropy(names: Sequence[str]) -> float:
            axes = {0, *self._axes(self.latents)} - {0 if name == "x" else self._axes([name])[0] for name in names}
            p = pair.sum(tuple(axes)).ravel()
            return float(-(p[p > 0] * np.log(p[p > 0])).sum())

        def information(a: str, b: str, given: Sequence[str] = ()) -> float:
            return entropy([a, *given]) + entropy([b, *given]) - entropy([a, b, *given]) - entropy(given)

        bottom_up = self.order == self.latents
        found: dict[str, dict[str, float]] = {"about_datum": {}, "from_parent": {}, "marginal": {}}
        for position, name in enumerate(self.order):
            found["marginal"][name] = information("x", name)
            if bottom_up:
                seen = ["x", *self.order[:position][-1:]]  # all that any distribution of these orders may see
                found["from_parent"][name] = entropy(seen) + entropy([name]) - entropy([*seen, name])
                found["about_datum"][name] = found["marginal"][name]
            else:
                found["from_parent"][name] = information("x", name, self.order[:position])
                found["about_datum"][name] = found["from_parent"][name]
        return found
