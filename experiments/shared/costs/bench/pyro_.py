"""The same stack in Pyro: Trace_ELBO, and RenyiELBO(alpha=0) with all samples at once for K > 1 and for L_K."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from hvae.experiments.shared.costs.bench.plain import Plain
from hvae.experiments.shared.costs.bench.stacks import Array, Stack, batch_of


def _model_and_guide(net: Plain) -> tuple[Callable[[Tensor], None], Callable[[Tensor], None]]:
    import pyro
    from pyro import distributions as dist

    n_layers = len(net.encoder)

    def normal(outputs: Tensor) -> object:
        mean, log_variance = outputs.chunk(2, -1)
        return dist.Normal(mean, (log_variance / 2).exp()).to_event(1)

    def model(x: Tensor) -> None:
        pyro.module("stack", net)
        with pyro.plate("data", len(x)):
            z = pyro.sample(f"z{n_layers}", dist.Normal(torch.zeros(net.top), torch.ones(net.top)).to_event(1))
            for layer in range(n_layers - 1, 0, -1):
                z = pyro.sample(f"z{layer}", normal(net.decoder[layer](z)))
            pyro.sample("x", dist.Bernoulli(logits=net.decoder[0](z)).to_event(1), obs=x)

    def guide(x: Tensor) -> None:
        pyro.module("stack", net)
        with pyro.plate("data", len(x)):
            h = x
            for layer in range(n_layers):
                h = pyro.sample(f"z{layer + 1}", normal(net.encoder[layer](h)))

    return model, guide


def log_weight(stack: Stack, x: Array, noise: list[Array]) -> Array:
    """Of the draws that the noise becomes, one sample of each datum after another."""
    import numpy as np
    import pyro
    from pyro import poutine

    pyro.clear_param_store()
    net, data, rows = Plain(stack), torch.from_numpy(x), []
    model, guide = _model_and_guide(net)
    with torch.no_grad():
        for k in range(len(noise[0])):
            h, draws = data, {}
            for layer, encoder in enumerate(net.encoder):
                mean, log_variance = encoder(h).chunk(2, -1)
                h = draws[f"z{layer + 1}"] = mean + (log_variance / 2).exp() * torch.from_numpy(noise[layer][k])
            found = torch.zeros(len(data))
            for function, sign in ((model, 1.0), (guide, -1.0)):
                trace = poutine.trace(poutine.condition(function, data=draws)).get_trace(data)
                trace.compute_log_prob()
                for node in trace.nodes.values():
                    if node["type"] == "sample" and node["name"] != "data":
                        found = found + sign * node["log_prob"]
            rows.append(found.numpy())
    return np.stack(rows)


def training(stack: Stack, n_batch: int, n_samples: int, x: Array) -> Callable[[], object]:
    import pyro
    from pyro.infer import SVI, RenyiELBO, Trace_ELBO
    from pyro.optim import Adam

    pyro.clear_param_store()
    model, guide = _model_and_guide(Plain(stack))
    several = RenyiELBO(alpha=0, num_particles=n_samples, vectorize_particles=True, max_plate_nesting=1)
    steps = SVI(model, guide, Adam({"lr": 1e-3}), several if n_samples > 1 else Trace_ELBO(max_plate_nesting=1))
    data, step = torch.from_numpy(x), [0]

    def call() -> float:
        loss = steps.step(data[torch.from_numpy(batch_of(len(data), n_batch, step[0]))])
        step[0] += 1
        return float(loss)

    return call


def bound(stack: Stack, x: Array, n_samples: int) -> Callable[[], object]:
    import pyro
    from pyro.infer import RenyiELBO

    pyro.clear_param_store()
    model, guide = _model_and_guide(Plain(stack))
    renyi = RenyiELBO(alpha=0, num_particles=n_samples, vectorize_particles=True, max_plate_nesting=1)
    data = torch.from_numpy(x)

    @torch.no_grad()
    def call() -> list[float]:
        return [-float(renyi.loss(model, guide, datum.unsqueeze(0))) for datum in data]

    assert all(math.isfinite(value) for value in call())
    return call
