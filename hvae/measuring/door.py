"""`diagnose`: hand in what was trained, get the verdict.

The model is looked at and checked at the door (`hvae.foreign`), measured as the house's own stacks are
(`hvae.measuring.measure`), and looked at once more, for a drift.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from tqdm import tqdm

from hvae import rng
from hvae.data import card_of_items
from hvae.diagnosis.card import Card
from hvae.diagnosis.diagnosis import Diagnosis
from hvae.diagnosis.measured import Doubt
from hvae.diagnosis.pixels import Pixels
from hvae.diagnosis.sizes import Budget, Sizes
from hvae.diagnostics.draws import FEWEST_SHARING
from hvae.diagnostics.knockouts import MOST as MORE_DRAWS
from hvae.errors import ConfigError
from hvae.evidence import HVAE
from hvae.foreign.checks import check
from hvae.foreign.data import tensors_of
from hvae.foreign.evaluating import evaluating
from hvae.foreign.functions import ROWS
from hvae.foreign.intake import MOST, Data
from hvae.foreign.model import Model
from hvae.foreign.reading import HALF
from hvae.foreign.stack import Stack
from hvae.likelihood.spending import BUDGET
from hvae.measuring.asked import check_asked, check_replicas, check_suited, models_of, words_of
from hvae.measuring.judging import FIRST_IMAGES, MOST_OTHERS
from hvae.measuring.whole import measure
from hvae.vocabulary import FEWEST_FOR_ABSENCE, FEWEST_IMAGES

Level = Literal["quick", "usual", "thorough"]

LEVELS: Mapping[str, Sizes] = {
    "quick": Sizes(
        n_images=128, max_paths=64, n_mixture=1, n_alternatives=16, n_paths=16, n_paths_use=8, n_paths_knockout=4,
        n_likelihood=128, n_samples=100,
    ),
    "usual": Sizes(
        n_images=512, max_paths=256, n_mixture=2, n_alternatives=16, n_paths=32, n_paths_use=8, n_paths_knockout=8,
        n_likelihood=512, n_samples=100,
    ),
    "thorough": Sizes(),
}  # fmt: skip
"""how much is measured, by name"""
BYTES = 2**28
"""what codes and values of one call may take"""
FEWEST_ROWS = 64


def diagnose(
    model: Model | HVAE | Sequence[Model | HVAE],
    x: Any,
    context: Any = None,
    *,
    own_elbo: Callable[..., Tensor] | Sequence[Callable[..., Tensor]] | None = None,
    parents: Mapping[str, Sequence[str]] | None = None,
    sizes: Sizes | Level | None = None,
    budget_seconds: float | None = None,
    further: Sequence[str] | str | None = (),
    budget: Budget | None = None,
    label: str = "",
    seed: int = 0,
    max_rows: int | None = None,
    progress: bool = True,
) -> Diagnosis:
    """Which layers of a model have collapsed, how sure that is, and its likelihood, on data ``x``.

    ``model`` is a `Model`, an `HVAE`, or several of one architecture: replicas, side by side. ``x [n, ...]`` is a
    tensor, an array, a dict of them by observed variable, a data set, a loader or an AnnData. With a ``context``
    (labels, covariates; a tensor or a tree of them) every information and every swap is conditional on it.

    ``own_elbo(x)``, or ``own_elbo(x, context)``, is the model's own ELBO ``[n]`` in nats: it is compared, datum by
    datum; of several models give a list of them. ``parents`` narrow what each variable depends on. ``sizes`` say how
    much is measured, "quick", "usual" or "thorough", or a `Sizes`; ``budget_seconds`` takes the largest that fits.
    ``further`` names what else is measured, at its own cost: "annealed", "gap", "exact"; with ``budget_seconds`` by a
    small ``budget``. ("gradients" needs the objective of a training run, and is refused here.) ``max_rows``
    bounds the rows of one call of the model's functions.

    Raises `ConfigError`, with the remedy, for a model that fails a check (docs/own-vae.md lists them); nothing is
    measured then.

    >>> import torch
    >>> import hvae
    >>> from torch import nn
    >>> from torch.distributions import Bernoulli, Normal
    >>> encoder, decoder = nn.Linear(6, 4), nn.Linear(2, 6)
    >>> def infer(visit):
    ...     mean, log_scale = visit.code.chunk(2, dim=-1)
    ...     visit("z", Normal(mean, log_scale.exp()))
    >>> def generate(visit):
    ...     z = visit("z", Normal(torch.zeros(2), 1.0))
    ...     visit("x", Bernoulli(logits=decoder(z)))
    >>> found = hvae.diagnose(hvae.Model(infer, generate, encode=encoder), torch.eye(6).repeat(5, 1), progress=False)
    >>> list(found.verdicts), found.source
    (['z'], 'measured from outside')
    """
    words = words_of(further)
    check_asked(
        sizes=sizes, levels=LEVELS, budget_seconds=budget_seconds, budget=budget, label=label, seed=seed,
        max_rows=max_rows, own_elbo=own_elbo, parents=parents,
    )  # fmt: skip
    models = models_of(model)
    elbos: list[Any] = [*own_elbo] if isinstance(own_elbo, list | tuple) else [own_elbo, *[None] * (len(models) - 1)]
    if len(elbos) != len(models):
        raise ConfigError(f"own_elbo has {len(elbos)} functions for {len(models)} models; give one for each.")
    most = _most(sizes) if isinstance(sizes, Sizes) else max(map(_most, LEVELS.values()))
    if context is None and isinstance(models[0], Model) and models[0].read is not None:
        x, context = models[0].read(x)
    data = Data.of(x, context, most=min(MOST, most), seed=seed, like=_dtype(models))
    with ExitStack() as stack, torch.no_grad():
        for each in models:
            stack.enter_context(evaluating(each if isinstance(each, Model) else Model(_nothing, _nothing, module=each)))
        opened = [_opened(each, data, max_rows) for each in models]
        check_replicas(opened)
        check_suited(words, opened)
        checked = [
            check(each, own_elbo=own, parents=parents) if isinstance(each, Stack) else None
            for each, own in zip(opened, elbos, strict=True)
        ]
        numbers = opened[0].numbers if isinstance(opened[0], Stack) else data.observed["x"]
        notes = [Doubt(note, "x") for note in (*data.notes, *_too_few(opened[0], numbers))]
        chosen = _chosen(sizes, budget_seconds, opened[0], numbers, seed)
        with tqdm(total=2 * len(models), desc=label or "diagnosed", disable=None if progress else True) as bar:
            found = measure(
                opened,
                numbers,
                chosen,
                order=_order(opened[0]),
                yardstick=data.name,
                shape=_picture(data),
                label=label,
                words=words,
                budget=SMALL if budget is None and budget_seconds is not None else budget,
                tick=bar.update,
            )
    checks: list[str] = []
    for place, found_at_door in enumerate(checked):
        said = () if found_at_door is None else (*found_at_door.findings, *found_at_door.drift())
        seed_of = place if len(models) > 1 else None
        notes += [Doubt(f.sentence, f.variable or "the model", seed_of) for f in said if f.doubtful]
        whose = f"seed {place}: " if len(models) > 1 else ""
        checks += [f"{whose}{finding.sentence}" for finding in said if not finding.doubtful]
    return replace(found, notes=tuple(notes), checks=tuple(dict.fromkeys(checks)), cards=_cards(data))


def _cards(data: Data) -> tuple[Card, ...]:
    """What is known of each observed variable, as it is measured."""
    drawn = [f"{data.n} of {data.n_given} items are drawn at random."] if data.n < data.n_given else []
    return tuple(card_of_items(name, values, drawn) for name, values in data.observed.items())


def _nothing(visit: object) -> None:
    """Stands for functions that are not called."""


SMALL = Budget(images=16, temperatures=20, chains=16, leapfrog=2, draws=2, samples=200)
"""of what is measured further, where seconds are short"""


def _too_few(model: HVAE, x: Tensor) -> list[str]:
    """Doubts of few data: in all, and in one context."""
    said = []
    if len(x) < FEWEST_FOR_ABSENCE:
        said.append(
            f"There are {len(x)} data; a verdict needs {FEWEST_IMAGES} or more, a collapse {FEWEST_FOR_ABSENCE}."
        )
    groups = model.groups(x)
    if groups is not None:
        counts = torch.bincount(groups)[groups]
        alone = int((counts < FEWEST_SHARING).sum())
        if alone:
            said.append(
                f"{alone} of {len(x)} data share their context with fewer than {FEWEST_SHARING - 1} others; for them J "
                "and I have no lower end but 0. Give more data, or a context that more of them share."
            )
    return said


def _picture(data: Data) -> tuple[int, ...]:
    """The shape of x as an image, grey or in colour; (D,) where it is none."""
    shapes = [tuple(side for side in values.shape[1:] if side != 1) for values in data.observed.values()]
    numbers = next(iter(data.observed.values()))
    return shapes[0] if len(shapes) == 1 and Pixels.of(shapes[0]) is not None else (numbers[0].numel(),)


def _dtype(models: Sequence[Model | HVAE]) -> torch.dtype:
    """Of the parameters; torch's default without a module."""
    modules: list[nn.Module | None] = [each.module if isinstance(each, Model) else each for each in models]
    for module in modules:
        for weight in module.parameters() if module is not None else ():
            if weight.is_floating_point():
                return weight.dtype
    return torch.get_default_dtype()


def _opened(model: Model | HVAE, data: Data, max_rows: int | None) -> HVAE:
    if isinstance(model, HVAE):
        x = data.observed.get("x")
        if x is None or data.context is not None or x.ndim != 2:
            raise ConfigError("a hvae.HVAE is measured on one x of shape [n, D], without a context; use a hvae.Model.")
        if x.shape[1] != model.decoder.family("x").width:
            width = model.decoder.family("x").width
            raise ConfigError(f"x has {x.shape[1]} numbers a datum, x of the model {width}; give [n, {width}].")
        return model
    dtype = _dtype([model])
    seen_as = dtype if dtype in HALF else None
    opened = Stack.of(model, data.observed, data.context, whole=data.whole, most=max_rows or ROWS, seen_as=seen_as)
    if max_rows is None:
        opened.functions.most = opened.functions.shelf.rows = _rows(opened)
    return opened


def _rows(stack: Stack) -> int:
    """Rows a call, so that codes and values of one call fit into `BYTES`."""
    signature, shelf = stack.functions.signature, stack.functions.shelf
    some = torch.arange(min(2, shelf.first), device=shelf.device)  # batch norm in training mode refuses one
    trees = [shelf.encoded_now(some), shelf.x(some), shelf.context(some)]
    size = sum(tensor.numel() * tensor.element_size() for tree in trees for tensor in tensors_of(tree)) // len(some)
    size += sum(12 * kind.width for kind in (*signature.q_kinds.values(), *signature.p_kinds.values()))
    return max(FEWEST_ROWS, min(ROWS, BYTES // max(1, size)))


def _most(sizes: Sizes) -> int:
    beside = max(sizes.n_images * (sizes.n_mixture - 1), MOST_OTHERS)
    return max(sizes.n_images + beside, sizes.n_likelihood, sizes.n_likelihood_deep)


def _chosen(sizes: Sizes | Level | None, seconds: float | None, model: HVAE, x: Tensor, seed: int) -> Sizes:
    """The sizes that were asked for; with seconds to keep to, the largest that fits, judged by ELBOs of 64 data."""
    if isinstance(sizes, Sizes):
        return replace(sizes, seed=seed)
    if seconds is None:
        return replace(LEVELS[sizes or "usual"], seed=seed)
    some = x[:64]
    drawn = rng.noise(
        model.noise_specs(), 2, len(some), seed=seed, purpose="trial", device=str(x.device), dtype=x.dtype
    )
    model(some.unsqueeze(0), drawn)  # the first call warms up
    started = time.monotonic()
    model(some.unsqueeze(0), drawn)
    per_row = (time.monotonic() - started) / (2 * 2 * len(some))
    fitting = [level for level in LEVELS.values() if rows_of_a_diagnosis(level, model, len(x)) * per_row <= seconds]
    return replace(max(fitting, key=_most) if fitting else LEVELS["quick"], seed=seed)


def rows_of_a_diagnosis(sizes: Sizes, model: HVAE, n: int) -> int:
    """About how many rows of a model's functions a diagnosis asks for; a row of p and one of q count each."""
    layers, images = len(model.latents), min(n, sizes.n_images)
    pairs = sizes.max_paths if model.bottom_up else min(n, sizes.n_images * sizes.n_mixture)
    walks = 1 if model.bottom_up else layers
    a_datum = 2 * sizes.n_paths + 3 * sizes.n_paths_use + (2 * MORE_DRAWS + walks) * sizes.n_paths_knockout
    used = min(images, FIRST_IMAGES) * layers * sizes.n_alternatives * (1 if model.bottom_up else 3)
    return images * (a_datum + 2 * pairs) + used + 2 * BUDGET * sizes.n_samples * min(n, sizes.n_likelihood)


def _order(model: HVAE) -> str:
    if model.bottom_up:
        return "bottom-up"
    above_first = model.posterior.order == tuple(name for name in model.decoder.variables if name != "x")
    return "top-down" if above_first else "its own order"
