"""The same stack as most would write it: torch.distributions, autograd, Adam."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, Distribution, Normal

from hvae.experiments.shared.costs.bench.stacks import Array, Net, Stack, batch_of


def sequential(net: Net) -> nn.Sequential:
    """A net as torch's modules."""
    layers: list[nn.Module] = []
    for weight, bias in net:
        linear = nn.Linear(weight.shape[1], weight.shape[0])
        with torch.no_grad():
            linear.weight.copy_(torch.from_numpy(weight))
            linear.bias.copy_(torch.from_numpy(bias))
        layers += [linear, nn.Tanh()]
    return nn.Sequential(*layers[:-1])


class Plain(nn.Module):
    def __init__(self, stack: Stack) -> None:
        super().__init__()
        self.encoder = nn.ModuleList(sequential(net) for net in stack.encoder)
        self.decoder = nn.ModuleList(sequential(net) for net in stack.decoder)
        self.top = stack.widths[-1]

    def forward(self, x: Tensor, n_samples: int, noise: Sequence[Tensor] | None = None) -> Tensor:
        """log p(x, z) - log q(z | x) of draws z: ``[K, B]``."""
        h, found, draws = x.expand(n_samples, *x.shape), torch.zeros(()), []
        for layer, net in enumerate(self.encoder):
            q = normal(net(h))
            z = q.rsample() if noise is None else q.mean + q.stddev * noise[layer]
            found = found - q.log_prob(z).sum(-1)
            draws.append(z)
            h = z
        found = found + Normal(torch.zeros(self.top), torch.ones(self.top)).log_prob(draws[-1]).sum(-1)
        for layer in range(len(draws) - 1, 0, -1):
            found = found + normal(self.decoder[layer](draws[layer])).log_prob(draws[layer - 1]).sum(-1)
        return found + Bernoulli(logits=self.decoder[0](draws[0])).log_prob(x).sum(-1)


def normal(outputs: Tensor) -> Distribution:
    mean, log_variance = outputs.chunk(2, -1)
    return Normal(mean, (log_variance / 2).exp())


def log_weight(stack: Stack, x: Array, noise: list[Array]) -> Array:
    with torch.no_grad():
        found: Array = Plain(stack)(torch.from_numpy(x), len(noise[0]), [torch.from_numpy(e) for e in noise]).numpy()
    return found


def training(stack: Stack, n_batch: int, n_samples: int, x: Array) -> Callable[[], object]:
    model, data, step = Plain(stack), torch.from_numpy(x), [0]
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)

    def call() -> float:
        log_weight = model(data[torch.from_numpy(batch_of(len(data), n_batch, step[0]))], n_samples)
        loss = -(torch.logsumexp(log_weight, 0) - math.log(n_samples)).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        step[0] += 1
        return loss.item()

    return call


def bound(stack: Stack, x: Array, n_samples: int) -> Callable[[], object]:
    model, data = Plain(stack), torch.from_numpy(x)

    @torch.no_grad()
    def call() -> list[Tensor]:
        return [torch.logsumexp(model(datum.unsqueeze(0), n_samples), 0) - math.log(n_samples) for datum in data]

    return call
