"""What every objective answers, and the models that it refuses."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from weakref import WeakKeyDictionary, ref

from torch import nn

from hvae.evidence import HVAE, Evidence
from hvae.families import Discrete
from hvae.nets import BatchNorm, PseudoInputs
from hvae.network import Trace
from hvae.rng import NoiseSpecs
from hvae.shapes import LogProb, Noise, Scalar, Value
from hvae.suitability import Layer, ModelTraits, ObjectiveTraits, UnsuitedError, joined, refusal


class Objective(ABC):
    """What a batch costs, nats per datum.

    An objective that is biased for a model, or has no gradient there, refuses it: when asked, and at the first call.

    >>> from torch import nn
    >>> from hvae import HVAE
    >>> import torch
    >>> from hvae.families import Bernoulli, DiagonalGaussian
    >>> from hvae.nets import Root
    >>> from hvae.network import BeliefNetwork, Conditional
    >>> from hvae.objectives import DoublyReparametrised, Iwae
    >>> from hvae.posterior import NetworkPosterior
    >>> prior = Conditional("z1", [], Root(torch.zeros(2), learned=False), Bernoulli(2))
    >>> decoder = BeliefNetwork([prior, Conditional("x", ["z1"], nn.Linear(2, 6), DiagonalGaussian(3))])
    >>> encoder = BeliefNetwork([Conditional("z1", ["x"], nn.Linear(3, 2), Bernoulli(2))])
    >>> model = HVAE(decoder, NetworkPosterior(encoder))
    >>> Iwae().refuse(model)
    >>> DoublyReparametrised(Iwae()).refuse(model)
    Traceback (most recent call last):
    ...
    hvae.suitability.UnsuitedError: the gradient is that of DoublyReparametrised, but all layers are discrete: no path \
leads through their draws; use the pathwise gradient.
    """

    @property
    def traits(self) -> ObjectiveTraits:
        """What the rules of `hvae.suitability` ask of it; by default none applies."""
        return ObjectiveTraits()

    def refuse(self, model: HVAE) -> None:
        """Raise `UnsuitedError` for a model, in the mode that it is in, that this objective is biased for.

        What does not depend on the model's kind is refused elsewhere: too few samples, for example, in the call.
        """
        reason = refusal(self.traits, model_traits(model))
        if reason:
            raise UnsuitedError(reason)

    def admit(self, model: HVAE) -> None:
        """`refuse` at the first call with this model in this mode, and nothing afterwards; `on` begins with it."""
        known = _admitted.setdefault(model, [])
        if any(objective() is self and training == model.training for objective, training in known):
            return
        self.refuse(model)
        known[:] = [(objective, training) for objective, training in known if objective() is not None]
        known.append((ref(self), model.training))

    def noise_specs(self, model: HVAE) -> NoiseSpecs:
        """The noise that `on` takes."""
        return model.noise_specs()

    @abstractmethod
    def on(self, model: HVAE, x: Value, noise: Mapping[str, Noise], step: int) -> tuple[Scalar, Evidence]:
        """The loss of x ``[1, B, D]`` with noise ``[K, B, ·]``, and the evidence z ~ q(z|x) that it rests on.

        It begins with `admit`, which raises `UnsuitedError`.
        """


_admitted: "WeakKeyDictionary[nn.Module, list[tuple[ref[Objective], bool]]]" = WeakKeyDictionary()
"""model -> the objectives that were asked about it, each with whether the model was in training mode"""


def model_traits(model: HVAE) -> ModelTraits:
    """What the rules of `hvae.suitability` ask of a model, in the mode that it is in.

    Batch norm counts where it normalises by the batch; constants of evaluation move nothing.
    """
    layers = []
    for name in model.latents:
        p, q = model.decoder.family(name), model.posterior.family(name, model.decoder)
        relaxed = isinstance(q, Discrete) and q.reparametrised
        whole = joined(type(family).__name__ for family in (p, q) if not family.factorised)
        layers.append(
            Layer(
                name=name,
                family=type(q).__name__,
                discrete=relaxed or not q.reparametrised,
                relaxed=relaxed,
                in_order=not q.reparametrised and not isinstance(q, Discrete),
                whole=f"a distribution of {whole}" if whole else "",
            )
        )
    norms = (BatchNorm, nn.modules.batchnorm._BatchNorm)
    mine = {id(weight) for weight in model.posterior.parameters()}
    return ModelTraits(
        tuple(layers),
        normalised=any(isinstance(module, norms) and module.training for module in model.modules()),
        shared=any(isinstance(module, PseudoInputs) for module in model.decoder.modules())
        or any(id(weight) in mine for weight in model.decoder.parameters()),
    )


def total(trace: Trace) -> LogProb:
    """log-probability of all values of a trace, ``[K, B]``."""
    terms = [site.log_prob for site in trace.values()]
    return sum(terms[1:], start=terms[0])
