"""The rows of the table: who is in each, that they agree, and what each takes."""

import importlib.util
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

import hvae
from hvae.errors import ConfigError
from hvae.experiments.shared.costs.bench import annealed, floor, hvae_, jax_, plain, pyro_, pythae_
from hvae.experiments.shared.costs.bench.clock import Contender, in_turn
from hvae.experiments.shared.costs.bench.stacks import BURDA, FIVE, ONE, Array, Shape, Stack, draws, images

TOLERANCE_NATS = 2e-3
"""of a log-weight of some 550 nats, summed in float32"""
N_SAMPLES = 5000
N_IMAGES, FEW_IMAGES = 8, 2
"""at once; of few, what is done once a call weighs more"""
REPLICAS = (1, 4, 16)
PEERS = {"Pyro": "pyro", "JAX": "optax", "pythae": "pythae"}
"""contender -> a package that it cannot do without"""
LAYERS = (1, 2, 5, 10)


@dataclass(frozen=True)
class Row:
    """What was timed, in which unit, and contender -> CPU time."""

    name: str
    unit: str
    times: Mapping[str, float]


def missing() -> list[str]:
    """Contenders that are not installed."""
    return [name for name, package in PEERS.items() if importlib.util.find_spec(package) is None]


def check_agreement(shape: Shape, others: Mapping[str, Callable[[Stack, Array, list[Array]], Array]]) -> str:
    """Raise `ConfigError` where a contender weighs the same draws differently; else a sentence."""
    model, x = shape.model().eval(), images(5)
    stack = Stack.of(model)
    noise = draws(stack.widths, 3, len(x))
    ours = hvae_.log_weight(model, x, noise)
    largest = 0.0
    for name, weigh in others.items():
        found = weigh(stack, x, noise)
        apart = float(np.abs(found - ours[: len(found)]).max())
        if not apart < TOLERANCE_NATS:
            raise ConfigError(f"{name} weighs draws of {shape.name} {apart:.3g} nats apart; nothing was timed.")
        largest = max(largest, apart)
    names = ", ".join(others)
    return f"{shape.name}: log-weights of {names} and hvae are {largest:.1g} nats apart at most."


def agreements(absent: list[str]) -> Iterator[str]:
    """A sentence for every stack."""
    several = {"plain": plain.log_weight, "Pyro": pyro_.log_weight, "JAX": jax_.log_weight}
    here = {name: weigh for name, weigh in several.items() if name not in absent}
    yield check_agreement(BURDA, here)
    yield check_agreement(FIVE, here)
    yield check_agreement(ONE, here | ({} if "pythae" in absent else {"pythae": pythae_.log_weight}))
    model, x = ONE.model().eval(), images(5)
    (z,) = draws([50], 3, 5)
    apart = np.abs(annealed.house_log_px(model, x, z) - annealed.plain_log_px(Stack.of(model), x, z)).max()
    if not apart < TOLERANCE_NATS:
        raise ConfigError(f"log p(x | z) of the annealed stack is {apart:.3g} nats apart; nothing was timed.")
    yield f"Annealing: log p(x | z) of hvae and plain are {apart:.1g} nats apart at most."


def training(shape: Shape, n_batch: int, n_samples: int, absent: list[str], seeds: tuple[int, ...] = REPLICAS) -> Row:
    """Milliseconds of a step and seed."""
    x, stacks = images(), [Stack.of(shape.model(seed)) for seed in range(max(seeds))]
    size = (n_batch, n_samples, x)
    found = {f"hvae, R = {n}": Contender(hvae_.training(shape, n, *size), n / 1000) for n in seeds}
    found["plain"] = Contender(plain.training(stacks[0], *size), 1 / 1000)
    if "Pyro" not in absent:
        found["Pyro"] = Contender(pyro_.training(stacks[0], *size), 1 / 1000)
    if "JAX" not in absent:
        for n in sorted({1, 16} & set(seeds)):
            found[f"JAX, R = {n}"] = Contender(jax_.training(stacks[:n], *size), n / 1000)
    found["matrix products"] = Contender(floor.training(stacks[0], n_batch, n_samples), 1 / 1000)
    return Row(f"step, {shape.name}, B = {n_batch}, K = {n_samples}", "ms a step and seed", in_turn(found))


def bound(shape: Shape, absent: list[str], n_images: int = N_IMAGES) -> Row:
    """Milliseconds of L_5000 of an image."""
    model, x = shape.model().eval(), images(n_images)
    stack = Stack.of(model)
    calls = {"hvae": hvae_.bound(model, x, N_SAMPLES), "plain": plain.bound(stack, x, N_SAMPLES)}
    if "Pyro" not in absent:
        calls["Pyro"] = pyro_.bound(stack, x, N_SAMPLES)
    if "JAX" not in absent:
        calls["JAX, R = 1"] = jax_.bound(stack, x, N_SAMPLES)
    if "pythae" not in absent and len(shape.latents) == 1:
        calls["pythae"] = pythae_.bound(stack, x, N_SAMPLES, 1000)
    calls["matrix products"] = floor.bound(stack, x, N_SAMPLES)
    found = {name: Contender(call, n_images / 1000) for name, call in calls.items()}
    return Row(f"L_{N_SAMPLES}, {shape.name}, {n_images} images at once", "ms an image", in_turn(found))


def annealing() -> Row:
    """Seconds of an image and 1000 temperatures."""
    model, x = ONE.model().eval(), images(4)
    stack = Stack.of(model)
    work = len(x) * annealed.N_TEMPERATURES / 1000
    n_gradients = annealed.N_LEAPFROG * annealed.N_TEMPERATURES
    calls = {
        "hvae": annealed.house(model, x),
        "plain": annealed.plain(stack, x),
        "matrix products": floor.annealing(stack, len(x), annealed.N_CHAINS, n_gradients),
    }
    found = {name: Contender(call, work) for name, call in calls.items()}
    size = f"{annealed.N_CHAINS} chains, {annealed.N_LEAPFROG} leapfrog steps"
    return Row(f"annealing from the prior, {ONE.name}, {size}", "s an image and 1000 temperatures", in_turn(found))


def diagnosis() -> Row:
    """Seconds of a quick diagnosis, by the number of layers."""
    times = {}
    for n_layers in LAYERS:
        shape = Shape(f"{n_layers} layers", (8,) * n_layers, ((32,),) * n_layers)
        model, x = shape.model().eval(), images(300)
        call = Contender(lambda model=model, x=x: hvae.diagnose(model, x, sizes="quick", progress=False))
        times[f"{n_layers} layers"] = in_turn({"hvae": call}, rounds=1)["hvae"]
    return Row("quick diagnosis, 8 units a layer", "s", times)


def every_row(absent: list[str], say: Callable[[str], None]) -> Iterator[Row]:
    """All rows, one after another."""
    made: list[Callable[[], Row]] = [
        *(lambda s=s, b=b: training(s, b, 1, absent) for s in (BURDA, FIVE) for b in (20, 100)),
        lambda: training(BURDA, 20, 50, absent, (1, 4)),
        lambda: bound(BURDA, absent),
        lambda: bound(BURDA, absent, FEW_IMAGES),
        lambda: bound(ONE, absent),
        annealing,
        diagnosis,
    ]
    for make in made:
        row = make()
        say(f"{row.name}: " + ", ".join(f"{name} {value:.3g}" for name, value in row.times.items()))
        yield row
