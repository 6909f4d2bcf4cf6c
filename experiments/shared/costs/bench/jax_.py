"""The same stack in JAX: jit, optax's Adam, replicas by vmap, L_K in blocks of 1000 rows by lax.map."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from hvae.experiments.shared.costs.bench.floor import BLOCK
from hvae.experiments.shared.costs.bench.stacks import Array, Stack, batch_of


def _functions() -> tuple[Any, Any]:
    """The log-weight ``[K, B]`` of noise, and the noise of a key."""
    import jax
    import jax.numpy as jnp

    def through(net: Any, h: Any) -> Any:
        for weight, bias in net[:-1]:
            h = jnp.tanh(h @ weight.T + bias)
        weight, bias = net[-1]
        return h @ weight.T + bias

    def log_normal(z: Any, mean: Any, log_variance: Any) -> Any:
        white = jnp.square(z - mean) * jnp.exp(-log_variance)
        return -0.5 * (white + log_variance + math.log(2 * math.pi)).sum(-1)

    def log_weight(weights: Any, x: Any, noise: Any) -> Any:
        encoder, decoder = weights
        h, found, draws = x[None], 0.0, []
        for net, eps in zip(encoder, noise, strict=True):
            mean, log_variance = jnp.split(through(net, h), 2, -1)
            h = mean + jnp.exp(log_variance / 2) * eps
            found = found - log_normal(h, mean, log_variance)
            draws.append(h)
        found = found + log_normal(draws[-1], 0.0, 0.0)
        for layer in range(len(draws) - 1, 0, -1):
            found = found + log_normal(draws[layer - 1], *jnp.split(through(decoder[layer], draws[layer]), 2, -1))
        logits = through(decoder[0], draws[0])
        return found + (x * logits - jax.nn.softplus(logits)).sum(-1)

    def noise_of(key: Any, widths: list[int], n_samples: int, n_data: int) -> list[Any]:
        keys = jax.random.split(key, len(widths))
        return [jax.random.normal(each, (n_samples, n_data, width)) for each, width in zip(keys, widths, strict=True)]

    return log_weight, noise_of


def _weights(stack: Stack) -> tuple[Any, Any]:
    import jax

    found: tuple[Any, Any] = jax.tree.map(jax.numpy.asarray, (stack.encoder, stack.decoder))
    return found


def log_weight(stack: Stack, x: Array, noise: list[Array]) -> Array:
    weigh, _ = _functions()
    return np.asarray(weigh(_weights(stack), x, noise))


def training(stacks: list[Stack], n_batch: int, n_samples: int, x: Array) -> Callable[[], object]:
    """One step of as many replicas as there are stacks."""
    import jax
    import jax.numpy as jnp
    import optax

    weigh, noise_of = _functions()
    widths, optimiser = stacks[0].widths, optax.adam(1e-3)
    weights = jax.tree.map(lambda *each: jnp.stack(each), *(_weights(stack) for stack in stacks))
    state = optimiser.init(weights)

    def loss(weights: Any, x: Any, key: Any) -> Any:
        f = weigh(weights, x, noise_of(key, widths, n_samples, len(x)))
        return -(jax.nn.logsumexp(f, 0) - math.log(n_samples)).mean()

    @jax.jit
    def move(weights: Any, state: Any, x: Any, keys: Any) -> Any:
        values, gradients = jax.vmap(jax.value_and_grad(loss), (0, None, 0))(weights, x, keys)
        updates, state = optimiser.update(gradients, state)
        return optax.apply_updates(weights, updates), state, values

    held = [weights, state, 0]

    def call() -> list[float]:
        keys = jax.random.split(jax.random.key(held[2]), len(stacks))
        held[0], held[1], values = move(held[0], held[1], x[batch_of(len(x), n_batch, held[2])], keys)
        held[2] += 1
        return [float(value) for value in values]

    return call


def bound(stack: Stack, x: Array, n_samples: int) -> Callable[[], object]:
    import jax

    weigh, noise_of = _functions()
    weights, widths = _weights(stack), stack.widths

    @jax.jit
    def of_datum(x: Any, key: Any) -> Any:
        blocks = jax.lax.map(
            lambda one: weigh(weights, x[None], noise_of(one, widths, BLOCK, 1))[:, 0],
            jax.random.split(key, n_samples // BLOCK),
        )
        return jax.nn.logsumexp(blocks) - math.log(n_samples)

    return lambda: [float(of_datum(datum, jax.random.key(place))) for place, datum in enumerate(x)]
