"""A user's model in training: a stack of the house whose x is the data of the batch, not their numbers.

Nothing is kept from one call to the next. `encode` runs in every walk, under the weights of that call, so gradients
reach it. Two functions do not tell which weights are p's and which are q's: all count as shared, and objectives that
train the two apart refuse such a model. A context is not passed on.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from hvae.errors import ConfigError
from hvae.foreign.data import Shelf
from hvae.foreign.functions import ROWS, Functions
from hvae.foreign.looking import look
from hvae.foreign.model import Model
from hvae.foreign.parents import with_parents
from hvae.foreign.stack import Stack
from hvae.foreign.visit import Mode
from hvae.network import Site
from hvae.shapes import Noise, Value


@dataclass
class OnBatches(Functions):
    """The functions of a model, on whatever data a walk is given as x ``[K, B, D]``, the event in one axis.

    >>> from torch.distributions import Normal
    >>> def infer(visit):
    ...     visit("z", Normal(visit.code, 1.0))
    >>> def generate(visit):
    ...     visit("x", Normal(visit("z", Normal(torch.zeros(2), 1.0)), 1.0))
    >>> model = Model(infer, generate, module=torch.nn.Linear(2, 2))
    >>> functions = Trainable.of_batch(model, torch.zeros(5, 2)).functions
    >>> p, q = functions.walk("q", {"x": torch.zeros(1, 5, 2)}, {"z": torch.zeros(3, 5, 2)}, ["z"])
    >>> q["z"].value.shape
    torch.Size([3, 5, 2])
    """

    def walk(
        self,
        mode: Mode,
        given: Mapping[str, Value],
        noise: Mapping[str, Noise],
        until: Collection[str],
        contexts_of: Value | None = None,
    ) -> tuple[dict[str, Site], dict[str, Site]]:
        if "x" not in given:
            raise ConfigError(
                "this objective draws data from the decoder, which a hvae.Model in training does not do; use hvae.Elbo "
                "or hvae.Iwae."
            )
        x = given["x"]
        kind = self.signature.p_kinds["x"]
        self.shelf = Shelf(
            {"x": kind.shaped(x.flatten(0, 1))}, None, self.model.encode, rows=max(1, x.shape[:2].numel())
        )
        numbers = torch.arange(self.shelf.n, device=x.device, dtype=self.signature.dtype).reshape(*x.shape[:2], 1)
        return super().walk(mode, {**given, "x": numbers}, noise, until, contexts_of)


class Trainable(Stack):
    """A user's model as `hvae.fit` trains it, called with x ``[1, B, D]``.

    >>> from torch import nn
    >>> from torch.distributions import Normal
    >>> net = nn.Linear(2, 2)
    >>> def infer(visit):
    ...     visit("z", Normal(net(visit.code), 1.0))
    >>> def generate(visit):
    ...     visit("x", Normal(visit("z", Normal(torch.zeros(2), 1.0)), 1.0))
    >>> model = Trainable.of_batch(Model(infer, generate, module=net), torch.zeros(5, 2))
    >>> model(torch.zeros(1, 5, 2), {"z": torch.zeros(3, 5, 2)}).log_weight.shape
    torch.Size([3, 5])
    """

    maps = False

    def __init__(self, functions: Functions) -> None:
        super().__init__(functions)
        del self.module
        module = functions.model.module
        assert module is not None
        # both own it, so no weight is taken for p's or q's alone
        self.decoder.add_module("module", module)
        self.posterior.add_module("module", module)

    @staticmethod
    def of_batch(model: Model, x: Tensor) -> "Trainable":
        """Looks at the model on a batch ``[B, *event]``. Raises `ConfigError` for what cannot be trained."""
        if model.module is None or not any(True for _ in model.module.parameters()):
            raise ConfigError("a hvae.Model is trained by the weights of its module; give it, as in module=net.")
        try:
            return _looked_at(model, x)
        except ConfigError:
            weight = next((w for w in model.module.parameters() if w.is_floating_point()), None)
            if x.is_floating_point() or weight is None:
                raise
            try:  # whole numbers, of which the nets take floats
                return _looked_at(model, x.to(weight.dtype))
            except ConfigError:
                pass
            raise

    @property
    def event(self) -> torch.Size:
        """The shape of one datum."""
        return self.functions.signature.p_kinds["x"].event


def _looked_at(model: Model, x: Tensor) -> Trainable:
    with torch.no_grad():
        shelf = Shelf({"x": x}, None, model.encode)
        return Trainable(OnBatches(model, shelf, with_parents(model, shelf, look(model, shelf)), ROWS))
