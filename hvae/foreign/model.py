"""A model of the user's own, as two functions that visit its variables, or one that visits them for both."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from hvae.errors import ConfigError
from hvae.foreign.data import Encode, Tree
from hvae.foreign.visit import Visit

Walk = Callable[[Visit], object]
Read = Callable[[Any], tuple[Any, Tree]]


@dataclass(frozen=True)
class Model:
    """Anybody's VAE: ``infer(visit)`` walks q in its own order, ``generate(visit)`` walks p from the top to x.

    In each, ``visit(name, distribution)`` returns the variable's value ``[rows, *event]``. What `generate` visits and
    `infer` does not is observed: "x", or the names of a dict x. ``encode(x)``, with a context ``encode(x, context)``,
    runs once per datum; `infer` reads what it returned as ``visit.code`` (x itself without `encode`). ``module`` is put
    in evaluation mode while the model is measured; give it, since batch norm and dropout are told by it. ``read(data)``
    answers x and the context of data of another kind, as an AnnData, where `hvae.diagnose` is given no context.

    >>> import torch, hvae
    >>> from torch import nn
    >>> from torch.distributions import Bernoulli, Normal
    >>> encoder, decoder = nn.Linear(6, 4), nn.Linear(2, 6)
    >>> def infer(visit):
    ...     mean, log_scale = visit.code.chunk(2, dim=-1)
    ...     visit("z", Normal(mean, log_scale.exp()))
    >>> def generate(visit):
    ...     z = visit("z", Normal(torch.zeros(2), 1.0))
    ...     visit("x", Bernoulli(logits=decoder(z)))
    >>> model = hvae.Model(infer, generate, encode=encoder, module=nn.ModuleList([encoder, decoder]))
    """

    infer: Walk
    generate: Walk
    encode: Encode | None = None
    module: nn.Module | None = None
    read: Read | None = None

    def __post_init__(self) -> None:
        for name in ("infer", "generate", "encode", "read"):
            value = getattr(self, name)
            if not callable(value) and (value is not None or name in ("infer", "generate")):
                what = "visit" if name in ("infer", "generate") else "the data"
                raise ConfigError(f"{name} of a hvae.Model is {value!r}; give a function of {what}.")
        if not (self.module is None or isinstance(self.module, nn.Module)):
            raise ConfigError(
                f"module of a hvae.Model is a {type(self.module).__name__}; give one torch.nn.Module, as in "
                "nn.ModuleList([encoder, decoder])."
            )

    @property
    def is_joint(self) -> bool:
        """Whether one function walks both."""
        return self.infer is self.generate

    @staticmethod
    def joint(walk: Walk, encode: Encode | None = None, module: nn.Module | None = None) -> "Model":
        """A top-down model in one function: ``z = visit(name, p=distribution, q=lambda: distribution)`` once a layer.

        It is walked as q, as p with the code withheld, or once as both. An observed variable is visited without q.

        >>> import torch, hvae
        >>> from torch.distributions import Bernoulli, Normal
        >>> def walk(visit):
        ...     z = visit("z", p=Normal(torch.zeros(2), 1.0), q=lambda: Normal(visit.code[:, :2], 1.0))
        ...     visit("x", p=Bernoulli(logits=z.sum(-1, keepdim=True).expand(-1, 6)))
        >>> hvae.Model.joint(walk).is_joint
        True
        """
        return Model(walk, walk, encode, module)
