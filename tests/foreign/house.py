"""Stacks of the house, handed in through the user's door."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from hvae.evidence import HVAE
from hvae.families import Bernoulli, Categorical, DiagonalGaussian, Family, FullGaussian
from hvae.foreign.model import Model
from hvae.foreign.reading import OfFamily
from hvae.network import BeliefNetwork
from hvae.posterior import Ladder, NetworkPosterior, alone, shared

PLAIN = (DiagonalGaussian, FullGaussian, Bernoulli, Categorical)


def conditional(
    network: BeliefNetwork, name: str, values: Mapping[str, Tensor], rows: int, other: Family | None = None
) -> Any:
    """p(name | parents): a distribution of torch where both walks have one, else the outputs that its family reads."""
    part = network[name]
    parents = [values[parent] for parent in part.parents]
    outputs = part.net(torch.cat(parents, -1)) if parents else part.net()
    if isinstance(part.family, PLAIN) and isinstance(other, (*PLAIN, type(None))):
        return part.family.distribution(outputs)
    return OfFamily(part.family, outputs.expand(rows, -1))


def through_the_door(model: HVAE, *, joint: bool = False) -> Model:
    """The same stack as two functions, or as one."""
    decoder, posterior = model.decoder, model.posterior
    assert isinstance(decoder, BeliefNetwork)

    def generate(visit: Any) -> None:
        values: dict[str, Tensor] = {}
        for name in decoder.variables:
            other = posterior.family(name, decoder) if name != "x" else None
            values[name] = flat(visit(name, conditional(decoder, name, values, visit.rows, other)))

    def infer(visit: Any) -> None:
        values = {"x": visit.code}
        assert isinstance(posterior, NetworkPosterior)
        for name in posterior.order:
            values[name] = flat(
                visit(name, conditional(posterior.network, name, values, visit.rows, decoder.family(name)))
            )

    def upward(x: Tensor) -> dict[str, Any]:
        assert isinstance(posterior, Ladder)
        means, found = {"x": x}, {}
        for name in posterior.upward.variables:
            found[name] = posterior.upward[name](means)
            means[name] = posterior.upward[name].family.mean(found[name])
        return found

    def merged(name: str, code: Tensor, values: Mapping[str, Tensor], rows: int) -> Any:
        assert isinstance(posterior, Ladder)
        family = posterior.upward[name].family
        merge = shared if decoder.parents(name) else posterior.top
        return merge(family, upward(code)[name], decoder[name](values)) if merge is not alone else upward(code)[name]

    def infer_ladder(visit: Any) -> None:
        values: dict[str, Tensor] = {}
        for name in posterior.order:
            values[name] = flat(visit(name, merged(name, visit.code, values, visit.rows)))

    def walk(visit: Any) -> None:
        values: dict[str, Tensor] = {}
        for name in decoder.variables:
            law = conditional(decoder, name, values, visit.rows)
            q = (lambda name=name: merged(name, visit.code, values, visit.rows)) if name != "x" else None
            values[name] = flat(visit(name, law, q))

    if isinstance(posterior, Ladder):
        return Model.joint(walk, module=model) if joint else Model(infer_ladder, generate, module=model)
    return Model(infer, generate, module=model)


def flat(value: Tensor) -> Tensor:
    return value.flatten(1)
