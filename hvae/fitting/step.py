"""Loss, record and gradients of one step, for R replicas.

    loss_r, terms_r = step(weights_r, x_r, noise_r)          gradient of Σ_r loss_r, so replicas do not touch each other

`together` maps the step of one model over the replicas with `torch.func.vmap`, which small nets need to be fast.
`one_by_one` is for nets that vmap refuses (control flow that depends on data, ``.item()``, draws inside the net), and
for one replica alone, which is faster without vmap.
Both answer the same numbers, up to rounding.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from hvae import rng
from hvae.evidence import HVAE, Evidence
from hvae.families import Discrete, Relaxation
from hvae.fitting.record import Also, summary
from hvae.objectives import Objective, model_traits
from hvae.suitability import UnsuitedError, relaxation_refusal

Tensors = Mapping[str, Tensor]
Outcome = tuple[Tensor, dict[str, Tensor], list[Tensor | None]]
"""loss ``[R]``, terms ``[R, ...]``, and the gradient ``[R, ...]`` of each weight, None where the loss needs none"""


class Step(nn.Module):
    """A model and its objective, as a module with weights that can be exchanged for a call.

    Raises `UnsuitedError` where the objective refuses the model.

    >>> from hvae import Elbo, noise
    >>> from hvae.exact.known_stacks import linear_stack
    >>> model = linear_stack(1.0, "best", seed=0).model.float()
    >>> x = torch.zeros(1, 5, model.decoder.family("x").width)
    >>> loss, evidence = Step(model, Elbo())(x, noise(model.noise_specs(), 1, 5, seed=0, purpose="example"), 0)
    >>> torch.allclose(loss, -evidence.log_weight.float().mean())
    True
    """

    def __init__(self, model: HVAE, objective: Objective) -> None:
        super().__init__()
        objective.refuse(model)
        self.model = model
        self.objective = objective
        self._tied = any(len(list(named(remove_duplicate=False))) > len(list(named())) for named in self._kinds())

    def _kinds(self) -> tuple[Callable[..., Iterator[tuple[str, Tensor]]], ...]:
        return self.named_parameters, self.named_buffers

    def forward(self, x: Tensor, noise: Tensors, step: int) -> tuple[Tensor, Evidence]:
        return self.objective.on(self.model, x, noise, step)

    def on(
        self,
        weights: Tensors,
        still: Tensors,
        x: Tensor,
        noise: Tensors,
        step: int,
        also: Callable[[Evidence], Tensors],
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss and record with ``weights``, and with buffers and weights that stand ``still``, in place of its own."""
        exchanged = tuple({f"model.{name}": value for name, value in kind.items()} for kind in (weights, still))
        loss, evidence = functional_call(self, exchanged, (x, dict(noise), step), tie_weights=self._tied)
        with torch.no_grad():
            terms = summary(evidence)
        terms = {**terms, **also(evidence)}
        return loss, {name: term.detach() for name, term in terms.items()}


def together(
    step_of: Step, weights: Tensors, still: Tensors, x: Tensor, noise: Tensors, step: int, also: Also, at: int
) -> Outcome:
    """All replicas at once. ``step`` is counted from the start of the stage, ``at`` from the start of the training."""

    def one(weights: Tensors, still: Tensors, x: Tensor, noise: Tensors) -> tuple[Tensor, dict[str, Tensor]]:
        return step_of.on(weights, still, x, noise, step, lambda evidence: also(evidence, at))

    with in_training(step_of.model):
        loss, terms = vmap(one, randomness="error")(weights, still, x, noise)
    return loss, terms, list(torch.autograd.grad(loss.sum(), list(weights.values()), allow_unused=True))


def one_by_one(
    steps: Sequence[Step],
    weights: Tensors,
    still: Tensors,
    x: Tensor,
    noise: Tensors,
    step: int,
    also: Also,
    at: int,
    seeds: Sequence[int],
) -> Outcome:
    """One replica after another, each by a model of its own, as a user's functions may hold on to their own net.

    Draws inside a net come from torch's global generator, here keyed by seed and step, as all others are.
    """
    losses, every_term, every_gradient = [], [], []
    for replica, (step_of, seed) in enumerate(zip(steps, seeds, strict=True)):
        mine = {name: value[replica].detach().requires_grad_() for name, value in weights.items()}
        rest = {name: value[replica] for name, value in still.items()}
        own_noise = {name: value[replica] for name, value in noise.items()}
        with rng.keyed(seed, "train/net", at, device=x.device), in_training(step_of.model):
            loss, terms = step_of.on(mine, rest, x[replica], own_noise, step, lambda evidence: also(evidence, at))
        every_gradient.append(torch.autograd.grad(loss, list(mine.values()), allow_unused=True))
        losses.append(loss.detach())
        every_term.append(terms)
    terms = {name: torch.stack([terms[name] for terms in every_term]) for name in every_term[0]}
    return torch.stack(losses), terms, [_stacked(gradients) for gradients in zip(*every_gradient, strict=True)]


def _stacked(gradients: Sequence[Tensor | None]) -> Tensor | None:
    """``[R, ...]``; a weight that some replicas' losses know nothing of has there the gradient 0."""
    known = next((gradient for gradient in gradients if gradient is not None), None)
    if known is None:
        return None
    if len(gradients) == 1:
        return known.unsqueeze(0)
    return torch.stack([torch.zeros_like(known) if gradient is None else gradient for gradient in gradients])


@contextmanager
def in_training(model: nn.Module) -> Iterator[None]:
    """The model in training mode, and afterwards as it was.

    In a model that is in training mode nothing changes: a part of it that its user put into evaluation mode stays so.
    """
    if model.training:
        yield
        return
    modes = [(module, module.training) for module in model.modules()]
    model.train()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def relaxed(model: HVAE, relaxation: Relaxation, gradient: str = "the draws are to be relaxed") -> HVAE:
    """The model; in training mode its encoder now draws discrete layers by ``relaxation``.

    Raises `UnsuitedError`, a sentence that begins with ``gradient``, where there are no discrete layers, or their units
    are drawn one after another.
    """
    refused = relaxation_refusal(gradient, model_traits(model).layers)
    if refused:
        raise UnsuitedError(refused)
    for module in model.posterior.modules():
        if isinstance(module, Discrete):
            module.relaxation = relaxation
    return model
