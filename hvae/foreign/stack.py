"""A user's model as a stack of the house: a `Decoder` and a `Posterior` that call the user's functions.

Whatever can be walked can be measured, so this is all that the rest of the house needs. The observation ``x [1, B, 1]``
is the number of a datum (`hvae.foreign.data`). Rows per call are bounded; distributions of several calls are joined.
"""

from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn

from hvae.errors import NotMeasuredError
from hvae.evidence import HVAE
from hvae.families import Family
from hvae.foreign.data import Shelf, tensors_of
from hvae.foreign.functions import ROWS, Functions
from hvae.foreign.looking import look
from hvae.foreign.model import Model
from hvae.foreign.parents import with_parents
from hvae.network import Decoder, Trace
from hvae.posterior import Posterior
from hvae.rng import NoiseSpecs
from hvae.shapes import Noise, Value


class ForeignDecoder(Decoder):
    """p of a user's model: `generate`, or the joint walk with the code withheld.

    >>> from torch.distributions import Normal
    >>> def infer(visit):
    ...     visit("z", Normal(visit.code, 1.0))
    >>> def generate(visit):
    ...     visit("x", Normal(visit("z", Normal(torch.zeros(2), 1.0)), 1.0))
    >>> stack = Stack.of(Model(infer, generate), {"x": torch.zeros(5, 2)})
    >>> stack.decoder.variables, stack.decoder.parents("x")
    (('z', 'x'), ('z',))
    """

    def __init__(self, functions: Functions) -> None:
        super().__init__()
        self.functions = functions

    @property
    def variables(self) -> tuple[str, ...]:
        return (*self.functions.signature.p_order, "x")

    def parents(self, name: str) -> tuple[str, ...]:
        return self.functions.signature.p_parents[name]

    def family(self, name: str) -> Family:
        if name == "x":
            return self.functions.family_of_x
        return self.functions.signature.p_kinds[name].family

    def event(self, name: str) -> tuple[int, ...]:
        return super().event(name) if name == "x" else tuple(self.functions.signature.p_kinds[name].event)

    def has_mean(self, name: str) -> bool:
        return self.functions.signature.p_kinds[name].has_mean

    def can_redraw(self, name: str) -> bool:
        return name != "x"

    def walk(self, given: Mapping[str, Value], noise: Mapping[str, Noise]) -> Trace:
        for name in self.variables:
            if name not in given and name not in noise:
                raise KeyError(name)
        p, _ = self.functions.walk("p", given, noise, self.variables)
        return {name: p[name] for name in self.variables}

    def factors(self, names: Collection[str]) -> Decoder:
        return _ForeignFactors(self, names)


class _ForeignFactors(ForeignDecoder):
    """Some conditionals: a walk that ends at the last of them."""

    def __init__(self, whole: ForeignDecoder, names: Collection[str]) -> None:
        super().__init__(whole.functions)
        self.whole = whole
        self.names = tuple(name for name in whole.variables if name in names)

    @property
    def variables(self) -> tuple[str, ...]:
        return self.names

    def walk(self, given: Mapping[str, Value], noise: Mapping[str, Noise]) -> Trace:
        if not self.names:
            return {}
        needed = [parent for name in self.names for parent in self.parents(name) if parent not in self.names]
        for name in needed:
            if name not in given:
                raise KeyError(name)
        before = self.whole.variables[: self.whole.variables.index(self.names[-1])]
        others = [name for name in before if name not in self.names]
        filled = {**self.whole._placeholders({**noise, **given}, others), **noise}
        if "x" in self.names and "x" not in given and "x" not in noise:
            raise KeyError("x")
        p, _ = self.functions.walk("p", given, filled, self.names)
        return {name: p[name] for name in self.names}


class ForeignPosterior(Posterior):
    """q of a user's model: `infer`, or the joint walk.

    >>> from torch.distributions import Normal
    >>> def infer(visit):
    ...     visit("z", Normal(visit.code, 1.0))
    >>> def generate(visit):
    ...     visit("x", Normal(visit("z", Normal(torch.zeros(2), 1.0)), 1.0))
    >>> stack = Stack.of(Model(infer, generate), {"x": torch.zeros(5, 2)})
    >>> stack.posterior.order, stack.posterior.parents("z"), stack.posterior.noise_specs()
    (('z',), ('x',), {'z': ('normal', 2)})
    """

    def __init__(self, functions: Functions) -> None:
        super().__init__()
        self.functions = functions

    @property
    def order(self) -> tuple[str, ...]:
        return self.functions.signature.q_order

    def parents(self, name: str) -> tuple[str, ...]:
        return self.functions.signature.q_parents[name]

    def family(self, name: str, decoder: Decoder) -> Family:
        return self.functions.signature.q_kinds[name].family

    def noise_specs(self) -> NoiseSpecs:
        return {
            name: (kind.family.noise, kind.family.noise_width)
            for name, kind in self.functions.signature.q_kinds.items()
        }

    def walk(self, decoder: Decoder, given: Mapping[str, Value], noise: Mapping[str, Noise]) -> Trace:
        for name in self.order:
            if name not in given and name not in noise:
                raise KeyError(name)
        _, q = self.functions.walk("q", given, noise, self.order)
        return {name: q[name] for name in self.order}


class Stack(HVAE):
    """A user's model and its data, as a stack of the house; ``x`` is `numbers`.

    >>> from torch.distributions import Normal
    >>> def infer(visit):
    ...     visit("z", Normal(visit.code, 1.0))
    >>> def generate(visit):
    ...     visit("x", Normal(visit("z", Normal(torch.zeros(2), 1.0)), 1.0))
    >>> stack = Stack.of(Model(infer, generate), {"x": torch.zeros(5, 2)})
    >>> stack.latents, stack.numbers.shape
    (('z',), torch.Size([5, 1]))
    """

    def __init__(self, functions: Functions) -> None:
        super().__init__(ForeignDecoder(functions), ForeignPosterior(functions))
        self.functions = functions
        self.module = functions.model.module if functions.model.module is not None else nn.Module()

    @staticmethod
    def of(
        model: Model,
        observed: Mapping[str, Tensor],
        context: object = None,
        *,
        whole: bool = True,
        most: int = ROWS,
        seen_as: torch.dtype | None = None,
    ) -> "Stack":
        """Looks at the model, at two numbers of rows. Raises `ConfigError` for what cannot be measured."""
        shelf = Shelf(observed, context, model.encode, whole=whole, rows=most, seen_as=seen_as)
        with torch.no_grad():
            return Stack(Functions(model, shelf, with_parents(model, shelf, look(model, shelf)), most))

    @property
    def numbers(self) -> Tensor:
        """The numbers of the data ``[n, 1]``, which stand for x."""
        shelf = self.functions.shelf
        return torch.arange(shelf.first, device=shelf.device, dtype=self.functions.signature.dtype).unsqueeze(-1)

    def forget(self) -> None:
        self.functions.shelf.forget()

    def shown(self, x: Tensor) -> Tensor:
        if len(self.functions.signature.observed) > 1:
            raise NotMeasuredError("x has several parts, which make no picture")
        values = self.functions.shelf.values(self.functions.signature.observed[0], x.squeeze(-1).long())
        return values.flatten(1)

    def groups(self, x: Tensor) -> Tensor | None:
        context = self.functions.shelf.context(x.squeeze(-1).long())
        if context is None:
            return None
        parts = [leaf.reshape(len(x), -1).double() for leaf in tensors_of(context)]
        labels: Tensor = torch.cat(parts, -1).unique(dim=0, return_inverse=True)[1]
        return labels

    def redrawn(self, x: Value, given: Mapping[str, Value], noise: Mapping[str, Noise]) -> Value:
        p, _ = self.functions.walk("p", given, noise, self.decoder.variables, contexts_of=x)
        return p["x"].value

    def visit(
        self, x: Value, noise: Mapping[str, Noise], given: Mapping[str, Value] | None = None
    ) -> tuple[Trace, Trace]:
        if not self.functions.model.is_joint:
            return super().visit(x, noise, given)
        p, q = self.functions.walk("both", {**(given or {}), "x": x}, noise, self.decoder.variables)
        return {name: p[name] for name in self.decoder.variables}, {name: q[name] for name in self.posterior.order}
