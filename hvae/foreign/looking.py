"""The first walks of a model, in which nothing is known yet, at two numbers of rows; and what they refuse."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from hvae.errors import ConfigError, NotMeasuredError
from hvae.foreign.data import Shelf, refuse_not_finite, tensors_of
from hvae.foreign.kinds import Kind, kind_of
from hvae.foreign.laws import Law, Masked, elementwise
from hvae.foreign.model import Model
from hvae.foreign.reading import AnyLaw, OfFamily, dtype_of, measure_of, shape_of, widened
from hvae.foreign.signature import ELSE, FEW, MANY, Signature, some_noise
from hvae.foreign.visit import not_compiled, run


@dataclass
class _Look:
    """`Visit` of the first walks, in which nothing is known yet: it draws, and keeps the distributions."""

    rows: int
    walking_p: bool
    joint: bool
    values: Mapping[str, Tensor]
    observed: Mapping[str, Tensor]
    code: Any
    context: Any
    flat: set[tuple[str, str]]
    """(walk, variable) whose distributions were found to lack the row axis"""
    laws: dict[str, AnyLaw] = field(default_factory=dict)
    drawn: dict[str, Tensor] = field(default_factory=dict)
    observed_names: list[str] = field(default_factory=list)
    device: str = "cpu"
    last: str = ""
    within: str = ""
    """the latent whose q is being made"""

    @not_compiled
    def __call__(self, name: str, p: AnyLaw, q: Callable[[], AnyLaw] | None = None) -> Tensor:
        if not isinstance(name, str):
            raise ConfigError(_together(name, "p" if self.walking_p else "q"))
        if name in self.laws:
            raise ConfigError(f"{name} is visited twice in one walk; each variable has one distribution.")
        self.last = name
        latent = q is not None if self.joint else (not self.walking_p or name in self.values)
        if not self.walking_p and q is not None:
            self.within = name
            law = q()
            self.within = ""
        else:
            law = p
        if not isinstance(law, Distribution) and not hasattr(law, "outputs"):
            raise ConfigError(
                f"{name} was visited with a {type(law).__name__}; visit takes a distribution of torch.distributions."
            )
        if latent and name == "x":
            raise ConfigError(
                "x is visited as a latent, but it is the name of what is observed; give the latent another name, and "
                "visit x in generate alone."
            )
        self.laws[name] = law
        if not latent:
            self.observed_names.append(name)
            if name not in self.observed:
                raise ConfigError(_unknown(name, self.observed, joint=self.joint))
            return self.observed[name]
        if self.walking_p:
            return self.values[name]
        self.drawn[name] = self._draw(name, law)
        return self.drawn[name]

    def _draw(self, name: str, law: AnyLaw) -> Tensor:
        shape = shape_of(law)
        if isinstance(law, Law):
            drawn: object = law.sample()
            if not isinstance(drawn, Tensor) or drawn.shape[:1] != (self.rows,):
                gave = f"shape {tuple(drawn.shape)}" if isinstance(drawn, Tensor) else type(drawn).__name__
                raise ConfigError(f"sample of {name} gave {gave}, the rows are {self.rows}: return one row a datum.")
            return drawn
        _refuse_delta(name, law)
        assert shape is not None
        if shape[:1] != (self.rows,):
            # a law of q without row axis is no prior that may be expanded: it would be one draw for all data
            with_k = self.rows in shape or (len(shape) > 0 and shape[0] % self.rows == 0)
            raise ConfigError(_no_rows(name, shape, self.rows) if with_k else _one_for_all(name))
        kind = kind_of(widened(law), shape[1:], self.rows, dtype=dtype_of(law))
        noise = some_noise(kind, self.rows, seed=len(self.laws), device=self.device)
        value = kind.draw(kind.read(widened(law), self.rows), noise)[0]
        filled = isinstance(law, Distribution) and isinstance(elementwise(law), Masked)  # perhaps with NaN
        if value.is_floating_point() and not filled and not value.isfinite().all():
            raise ConfigError(
                f"{name} is not finite as q draws it; look at the parameters of its {kind.name}: a mean or a scale "
                "that overflows, or a division by 0."
            )
        return value


def _refuse_delta(name: str, law: AnyLaw) -> None:
    if "Delta" in type(elementwise(law) if isinstance(law, Distribution) else law).__name__:
        raise ConfigError(
            f"{name} has no density under q (Delta): a continuous deterministic code has no rate and no likelihood. A "
            "choice from a codebook: visit its one-hot index."
        )


def _together(names: object, walk: str) -> str:
    each = [str(name) for name in names] if isinstance(names, Iterable) else [str(names)]
    factors = [f"{walk}({name}{'|' if i else ''}{', '.join(each[:i])})" for i, name in enumerate(each)]
    return (
        f"{' and '.join(each)} are drawn together by {walk}: visit them one after the other ({', '.join(factors)}) or "
        "as one variable."
    )


def _one_for_all(name: str) -> str:
    return (
        f"{name} is one for all data: its distribution under q has no row axis and no datum has an evidence of its "
        f"own; condition on a value of {name} (write it into generate), or, if every datum has its own, expand the "
        "distribution to visit.rows."
    )


def _unknown(name: str, observed: Mapping[str, Tensor], *, joint: bool) -> str:
    names = ", ".join(observed)
    if joint:
        return f"{name} is visited without q, so it is observed, but the data have {names}; give it q, or its data."
    return (
        f"generate visits {name}, which infer does not and the data do not have (they have {names}); names in "
        "infer and generate must agree; what is drawn in generate alone, such as a switch, is visited in infer too."
    )


def _refuse_places(model: Model, shelf: Shelf) -> None:
    """Refuse data that lie on another device than the weights."""
    for name, values in shelf.observed.items():
        if values.device != shelf.device:
            raise ConfigError(f"{name} lies on {values.device}, other data on {shelf.device}; move them to one device.")
    for tensor in tensors_of(shelf.context_tree):
        if tensor.device != shelf.device:
            raise ConfigError(
                f"the context lies on {tensor.device}, x on {shelf.device}; move it, as in "
                f"context.to('{shelf.device}')."
            )
    modules = [part for part in (model.module, model.encode) if isinstance(part, nn.Module)]
    places = {weight.device for module in modules for weight in module.parameters()}
    if places and shelf.device not in places:
        where = ", ".join(sorted(map(str, places)))
        raise ConfigError(
            f"x lies on {shelf.device}, the weights of the module on {where}; move x, as in "
            f"x.to('{sorted(map(str, places))[0]}'), or the module."
        )


def look(model: Model, shelf: Shelf) -> Signature:
    """Walk a model at two numbers of rows. Raises `ConfigError` with the remedy for what cannot be measured."""
    _refuse_places(model, shelf)
    try:
        return _look(model, shelf)
    except ConfigError as error:
        if error.__cause__ is None or isinstance(error.__cause__, ConfigError | NotMeasuredError):
            raise
        for name, values in shelf.observed.items():
            refuse_not_finite(name, values)
        if not isinstance(error.__cause__, RuntimeError | IndexError | TypeError):
            raise
        raise ConfigError(f"{error} ({shelf})") from error.__cause__


def _look(model: Model, shelf: Shelf) -> Signature:
    flat: set[tuple[str, str]] = set()
    few = FEW
    for _ in range(4):
        try:
            first = _both(model, shelf, few, flat)
        except ConfigError:
            if few == FEW:
                few = ELSE  # three units may have been taken for three rows
                continue
            raise
        found = _both(model, shelf, MANY, flat)
        wrong = _without_rows(first, found, few)
        if wrong <= flat:
            return _signature(model, shelf, first, found, few, flat)
        flat |= wrong
    return _signature(model, shelf, first, found, few, flat)


_Looks = tuple[_Look, _Look]


def _both(model: Model, shelf: Shelf, rows: int, flat: set[tuple[str, str]]) -> _Looks:
    numbers = torch.arange(rows, device=shelf.device) % shelf.first
    observed = {name: shelf.values(name, numbers) for name in shelf.observed}
    code, context = shelf.encoded_now(numbers), shelf.context(numbers)

    def seen(walking_p: bool, values: Mapping[str, Tensor]) -> _Look:
        withheld: Any = _Withheld() if walking_p else code
        return _Look(
            rows, walking_p, model.is_joint, values, observed, withheld, context, flat, device=str(shelf.device)
        )

    with torch.random.fork_rng(devices=[shelf.device] if shelf.device.type == "cuda" else []):
        torch.manual_seed(rows)
        q = seen(False, {})
        run(model.infer, q, "walk" if model.is_joint else "infer")
        if model.is_joint:
            q.laws = {name: law for name, law in q.laws.items() if name in q.drawn}
        p = seen(True, q.drawn)
        run(model.generate, p, "walk" if model.is_joint else "generate")
    return q, p


class _Withheld:
    """The code while p is walked: whatever is done with it is refused."""

    def _refuse(self, *_: object, **__: object) -> Any:
        raise ConfigError(
            "visit.code was read while p is walked, and p must not see x; read it in infer, or within the q=lambda of "
            "a joint walk."
        )

    __getattr__ = __getitem__ = __iter__ = __len__ = __call__ = __add__ = __mul__ = _refuse


def _without_rows(first: _Looks, second: _Looks, few: int) -> set[tuple[str, str]]:
    """Distributions whose shape does not change with the rows."""
    found = set()
    for walk, one, two in zip("qp", first, second, strict=True):
        for name, law in one.laws.items():
            if name not in two.laws:
                continue
            a, b = shape_of(law), shape_of(two.laws[name])
            if a is not None and a == b:
                found.add((walk, name))
    return found


def _signature(
    model: Model, shelf: Shelf, first: _Looks, second: _Looks, few: int, flat: set[tuple[str, str]]
) -> Signature:
    q, p = second
    latents = tuple(q.drawn)
    for one, two in zip(first, second, strict=True):
        if list(one.laws) != list(two.laws):
            raise ConfigError(
                f"the model visits {', '.join(one.laws)} with {few} rows, but {', '.join(two.laws)} with {MANY}; the "
                "same variables must be visited in the same order in every call."
            )
    for name, law in first[1].laws.items():
        shape = shape_of(law)
        if shape is not None and ("p", name) not in flat and shape[:1] != (few,):
            raise ConfigError(_no_rows(name, shape, few))
    if not latents:
        raise ConfigError("the model visits no latent variable; call visit(name, distribution) for each in infer.")
    missing = [name for name in latents if name not in p.laws]
    if missing:
        raise ConfigError(f"infer visits {', '.join(missing)}, which generate does not; names in both must agree.")
    unseen = [name for name in shelf.observed if name not in p.laws]
    if unseen:
        raise ConfigError(
            f"generate never visits {', '.join(unseen)}, which the data have; visit each observed variable with its "
            "distribution."
        )
    q_kinds, p_kinds = {}, {}
    for name in latents:
        value = q.drawn[name]
        event = value.shape[1:]
        q_kinds[name] = _kind(name, "q", q.laws[name], event, flat, value.dtype)
        p_kinds[name] = _kind(name, "p", p.laws[name], event, flat, value.dtype)
    for name in p.observed_names:
        values = p.observed[name]
        dtype = values.dtype
        if not dtype.is_floating_point and measure_of(p.laws[name]) == "density":
            dtype = dtype_of(p.laws[name])  # whole numbers under a density: its draws are none
        p_kinds[name] = _kind(name, "p", p.laws[name], values.shape[1:], flat, dtype)
    p_order = tuple(name for name in p.laws if name in latents)
    return Signature(p_order, latents, tuple(p.observed_names), p_kinds, q_kinds, {}, {})


def _kind(name: str, walk: str, law: AnyLaw, event: torch.Size, flat: set[tuple[str, str]], dtype: torch.dtype) -> Kind:
    shape = shape_of(law)
    has_rows = shape is None or (walk, name) not in flat
    if shape is not None:
        own = shape[1:] if has_rows else shape
        if has_rows and (len(shape) == 0 or shape[0] != MANY):
            raise ConfigError(_no_rows(name, shape, MANY))
        if isinstance(law, OfFamily):
            own = event if own.numel() == event.numel() else own
        if not _fits(own, event, has_rows):
            raise ConfigError(
                f"the distribution of {name} under {walk} has shape {tuple(own)} for one row, its value "
                f"{tuple(event)}; both must agree."
            )
    return kind_of(widened(law), event, MANY, has_rows=has_rows, dtype=dtype)


def _fits(own: torch.Size, event: torch.Size, has_rows: bool) -> bool:
    """Whether a distribution scores values of one row, and no others: torch makes all pairs of ``[rows, 1]`` and
    ``[rows]``."""
    if has_rows:
        return len(own) == len(event) and _broadcasts(own, event)
    return own.numel() == 1 or _broadcasts(own, event)


def _broadcasts(own: torch.Size, event: torch.Size) -> bool:
    try:
        return bool(torch.broadcast_shapes(own, event) == event)
    except RuntimeError:
        return False


def _no_rows(name: str, shape: Sequence[int], rows: int) -> str:
    if not len(shape):
        return f"the distribution of {name} has no shape; give it one row a datum."
    return (
        f"the distribution of {name} begins with {shape[0]}, the rows are {rows}: samples are drawn by visit; take "
        "your K axis out."
    )
