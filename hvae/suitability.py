"""Which objectives suit which models: the rules, written once, in plain Python.

An objective may be biased for a model, or have no gradient there. A few facts decide: what the gradient follows, how
the layers of q draw, whether draws of a batch move each other. A configuration knows them without torch, and asks
before anything is built. An objective asks when it is put on a model (`hvae.objectives.Objective.refuse`). `Words` are
the names that either of them uses.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from hvae.errors import ConfigError

Follows = Literal["score", "score and path", "path", "covariance", "players", "own"]
"""what a gradient follows; "score" is for discrete draws, and "own" for objectives that no rule here concerns"""


class UnsuitedError(ConfigError):
    """An objective that is biased, or has no gradient, for a model; the message is one sentence with the remedy."""


@dataclass(frozen=True)
class Layer:
    """A latent layer, as an objective sees it."""

    name: str
    family: str
    """the family of q, in a word"""
    discrete: bool
    """whether no gradient passes through its draws, unless they are relaxed"""
    relaxed: bool = False
    in_order: bool = False
    """whether its units are drawn one after another"""
    whole: str = ""
    """the distribution, of q or p, that has no rate per unit in this layer; empty where both have one"""


@dataclass(frozen=True)
class ModelTraits:
    """A model, as an objective sees it.

    >>> ModelTraits((Layer("z1", "Bernoulli", discrete=True), Layer("z2", "Gaussian", discrete=False))).kinds()
    'Bernoulli'
    """

    layers: tuple[Layer, ...]
    normalised: bool = False
    """whether a draw moves the terms of the others in its batch, as under batch norm"""
    shared: bool = False
    """whether weights of q are weights of p too"""

    def kinds(self) -> str:
        """Families of the layers with hard discrete draws, in words; empty without any."""
        return joined(layer.family for layer in self.layers if layer.discrete and not layer.relaxed)


@dataclass(frozen=True)
class ObjectiveTraits:
    """An objective, as the rules see it."""

    follows: Follows = "own"
    name: str = "this objective"
    """as in "the objective is WakeSleep", the beginning of a sentence"""
    gradient: str = "this gradient"
    """as in "the gradient is that of Covariance", the beginning of a sentence"""
    for_discrete: bool = False
    """whether its baseline has no use without discrete layers"""
    for_relaxed: bool = True
    """whether it is made for relaxed draws too"""
    free_nats: bool = False
    """whether any layer, or any unit, has free nats"""
    unit_free_nats: frozenset[str] = frozenset()
    """latents with free nats for every unit"""


@dataclass(frozen=True)
class Words:
    """The names in the sentences; by default those of Python."""

    free_nats: str = "free_nats"
    unit_free_nats: str = "unit_free_nats"
    straight_through: str = "draws that are relaxed straight through"
    pathwise: str = "the pathwise gradient"
    families: str = "the model"
    iwae: str = "the baseline leave_one_out"
    norm: str = "batch norm"
    no_norm: str = "batch norm"
    shared: str = "weights that p and q share"
    apart: str = "weights of their own"


PYTHON = Words()


def refusal(objective: ObjectiveTraits, model: ModelTraits, words: Words = PYTHON) -> str:
    """Why the objective must not be put on the model, in one sentence with the remedy; empty where it may.

    >>> objective = ObjectiveTraits(follows="path", gradient="the gradient is that of StickingTheLanding")
    >>> refusal(objective, ModelTraits((Layer("z1", "Bernoulli", discrete=True),))).partition("; ")[2]
    'use the pathwise gradient.'
    """
    follows, kinds, norm = objective.follows, model.kinds(), words.norm
    relaxed = joined(layer.family for layer in model.layers if layer.relaxed)
    if follows == "own":
        return ""
    if relaxed and not objective.for_relaxed:
        return (
            f"{objective.name}, which is not made for relaxed draws of {relaxed} layers; use Elbo or Iwae as they are, "
            "or hard draws."
        )
    if kinds and model.normalised and follows != "players":
        return (
            f"{norm} is on beside {kinds} layers, but with it a draw moves the bound of all others, which the score "
            f"function and its leave-one-out baseline leave out: its gradient is biased; use no {words.no_norm}."
        )
    if kinds and objective.free_nats:
        return (
            f"{words.free_nats} (or unit_free_nats) is on, but the draws of {kinds} layers move the gates of a whole "
            "batch, which the score function leaves out: its gradient is biased; use layer_beta, or "
            f"{words.straight_through}."
        )
    if objective.for_discrete and not kinds:
        return (
            f"{objective.name}, whose baseline is for discrete layers, and {words.families} has none; use {words.iwae}."
        )
    if follows in ("score and path", "path") and all(layer.discrete for layer in model.layers):
        return (
            f"{objective.gradient}, but all layers are discrete: no path leads through their draws; "
            f"use {words.pathwise}."
        )
    if follows == "path" and kinds:
        return f"{objective.gradient}, which the draws of {kinds} layers do not allow; use {words.pathwise}."
    if follows == "path" and model.normalised:
        return (
            f"{objective.gradient}, but with {norm} a draw moves the weights of all others, which makes it biased; "
            f"use {words.pathwise}, or no {words.no_norm}."
        )
    for layer in model.layers:
        if layer.name in objective.unit_free_nats and layer.whole:
            return (
                f"{words.unit_free_nats} is above 0 for {layer.name}, but {layer.whole} has no rate per unit; use "
                f"{words.free_nats} there."
            )
    if follows == "covariance" and model.normalised:
        return (
            f"{objective.gradient}, but with {norm} the draws of a batch are not weighed one by one; use "
            f"{words.pathwise}, or no {words.no_norm}."
        )
    if follows == "players" and model.shared:
        return (
            f"{objective.name}, in which each player moves a distribution of its own, but with {words.shared} the "
            f"encoder's weights make the decoder's prior; use a bound, or {words.apart}."
        )
    if follows == "players" and model.normalised:
        return (
            f"{objective.name}, but with {norm} q of dreams, normalised among dreams, is not q of data; use a bound, "
            f"or no {words.no_norm}."
        )
    return ""


def relaxation_refusal(gradient: str, layers: Sequence[Layer], words: Words = PYTHON) -> str:
    """Why the draws of ``layers`` cannot be relaxed, in a sentence that begins with ``gradient``; empty if they can."""
    if not any(layer.discrete for layer in layers):
        return f"{gradient}, which is for discrete layers, and {words.families} has none; use {words.pathwise}."
    in_order = joined(layer.family for layer in layers if layer.in_order)
    if in_order:
        return (
            f"{gradient}, but the units of {in_order} layers are drawn one after another from the states before them; "
            f"use {words.pathwise}, or layers that factorise."
        )
    return ""


def joined(names: Iterable[str]) -> str:
    """Each name once, in alphabetical order."""
    return " and ".join(sorted(set(names)))
