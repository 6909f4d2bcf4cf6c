"""What is found out about a model when it is first walked: names, orders, shapes, kinds of distribution, parents.

The event of a variable is what does not change between two numbers of rows. Parents are found by changing one value and
looking which distributions change, so a dependence that no gradient shows counts too.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from hvae.errors import ConfigError, NotMeasuredError
from hvae.foreign.data import Shelf, tensors_of
from hvae.foreign.kinds import AnyLaw, Kind, OfFamily, kind_of, shape_of, widened
from hvae.foreign.laws import Law, elementwise
from hvae.foreign.model import Model
from hvae.foreign.visit import Landed, Walker, run

FEW, MANY = 3, 16
"""rows of the first two walks"""


@dataclass(frozen=True)
class Signature:
    """The variables of a model, and how their distributions look."""

    p_order: tuple[str, ...]
    """latents as `generate` visits them"""
    q_order: tuple[str, ...]
    """latents as `infer` visits them"""
    observed: tuple[str, ...]
    p_kinds: Mapping[str, Kind]
    q_kinds: Mapping[str, Kind]
    p_parents: Mapping[str, tuple[str, ...]]
    """of every latent and of "x": latents, in the order of p"""
    q_parents: Mapping[str, tuple[str, ...]]
    """of every latent: "x" and latents, in the order of q"""

    @property
    def dtype(self) -> torch.dtype:
        """Of the house's arrays: float64 where a latent is, else float32."""
        kinds = [*self.q_kinds.values(), *self.p_kinds.values()]
        return torch.float64 if any(kind.dtype == torch.float64 for kind in kinds) else torch.float32


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

    def __call__(self, name: str, p: AnyLaw, q: Callable[[], AnyLaw] | None = None) -> Tensor:
        if not isinstance(name, str):
            raise ConfigError(_together(name, "p" if self.walking_p else "q"))
        if name in self.laws:
            raise ConfigError(f"{name} is visited twice in one walk; each variable has one distribution.")
        self.last = name
        latent = q is not None if self.joint else (not self.walking_p or name in self.values)
        law = p if self.walking_p or q is None else q()
        if not isinstance(law, Distribution) and not hasattr(law, "outputs"):
            raise ConfigError(
                f"{name} was visited with a {type(law).__name__}; visit takes a distribution of torch.distributions."
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
            return law.sample()
        _refuse_delta(name, law)
        assert shape is not None
        if shape[:1] != (self.rows,):
            # a law of q without row axis is no prior that may be expanded: it would be one draw for all data
            raise ConfigError(_no_rows(name, shape, self.rows) if self.rows in shape else _one_for_all(name))
        kind = kind_of(widened(law), shape[1:], self.rows)
        noise = _noise(kind, self.rows, seed=len(self.laws), device=self.device)
        return kind.draw(kind.read(widened(law), self.rows), noise)[0]


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
        f"generate visits {name}, which infer does not and the data do not have (they have {names}); names in infer "
        "and generate must agree, and a gate or a noise that belongs to the model is visited in both."
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
    flat: set[tuple[str, str]] = set()
    few = FEW
    for _ in range(4):
        try:
            first = _both(model, shelf, few, flat)
        except ConfigError:
            if few == FEW:
                few = FEW + 2  # a prior of three units without rows may have been taken for three rows
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
        p_kinds[name] = _kind(name, "p", p.laws[name], values.shape[1:], flat, values.dtype)
    p_order = tuple(name for name in p.laws if name in latents)
    found = Signature(p_order, latents, tuple(p.observed_names), p_kinds, q_kinds, {}, {})
    return _with_parents(model, shelf, found)


def _kind(name: str, walk: str, law: AnyLaw, event: torch.Size, flat: set[tuple[str, str]], dtype: torch.dtype) -> Kind:
    shape = shape_of(law)
    has_rows = shape is None or (walk, name) not in flat
    if shape is not None:
        own = shape[1:] if has_rows else shape
        if has_rows and (len(shape) == 0 or shape[0] != MANY):
            raise ConfigError(_no_rows(name, shape, MANY))
        if isinstance(law, OfFamily):
            own = event if own.numel() == event.numel() else own
        if own != event and own.numel() != 1 and not _broadcasts(own, event):
            raise ConfigError(
                f"the distribution of {name} under {walk} has shape {tuple(own)} for one row, its value "
                f"{tuple(event)}; both must agree."
            )
    return kind_of(widened(law), event, MANY, has_rows=has_rows, dtype=dtype)


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


def walker(signature: Signature, shelf: Shelf, mode: Any, numbers: Tensor, **given: Any) -> Walker:
    """A walk over the data of some numbers."""
    known = {"given": {}, "noise": {}, "observed": {n: shelf.values(n, numbers) for n in signature.observed}} | given
    return Walker(
        mode, len(numbers), signature.p_kinds, signature.q_kinds,
        read_code=lambda: shelf.code(numbers), read_context=lambda: shelf.context(numbers), **known,
    )  # fmt: skip


SHIFTS = (1, 5, 11)


def _with_parents(model: Model, shelf: Shelf, found: Signature) -> Signature:
    """Change one value at a time, and see which distributions change: to the last bit."""
    numbers = torch.arange(MANY, device=shelf.device) % shelf.first
    noise = {
        name: _noise(kind, MANY, seed=i, device=shelf.device) for i, (name, kind) in enumerate(found.q_kinds.items())
    }
    base = walker(found, shelf, "q", numbers, noise=noise, until=set(found.q_order))
    run(model.infer, base, "infer")
    values = {name: landed.value for name, landed in base.q.items()}
    rows = numbers.repeat(len(SHIFTS))
    # what cannot be given is drawn, and changed by its noise; what changes with it counts as dependent
    drawn = {
        name: noise[name].repeat(len(SHIFTS), 1) for name in values if not _scores(found.q_kinds[name], base.q[name])
    }

    def seen(walk: str, changed: dict[str, Tensor], at: Tensor, moved: str = "") -> dict[str, list[Tensor]]:
        """The distributions' parameters, or the log-probabilities of fixed values, over all rows."""
        until = set(found.q_order) if walk == "q" else {*found.p_order, *found.observed}
        free = dict(drawn) if walk == "q" else {}
        if moved in free:
            free[moved] = torch.cat([noise[moved].roll(shift, 0) for shift in SHIFTS])
        given = {name: value for name, value in changed.items() if name not in free}
        walk_of = walker(found, shelf, walk, at, given=given, noise=free, until=until)
        if walk == "p":
            walk_of.observed = {n: shelf.values(n, rows) for n in found.observed}
        what = "walk" if model.is_joint else "infer" if walk == "q" else "generate"
        run(model.infer if walk == "q" else model.generate, walk_of, what)
        landed = walk_of.q if walk == "q" else walk_of.p
        kinds = found.q_kinds if walk == "q" else found.p_kinds
        fixed = {}
        for name, place in landed.items():
            if isinstance(place.law, tuple):
                fixed[name] = [*place.law]
            elif name in free:
                fixed[name] = [place.value, place.terms]
            elif name in values:
                fixed[name] = [kinds[name].terms(place.law, kinds[name].shaped(many[name]))]
            else:
                fixed[name] = [place.terms]
        return fixed

    many = {name: value.repeat(len(SHIFTS), 1) for name, value in values.items()}
    p_parents: dict[str, list[str]] = {name: [] for name in (*found.p_order, "x")}
    q_parents: dict[str, list[str]] = {name: [] for name in found.q_order}
    p_base, q_base = seen("p", many, rows), seen("q", many, rows)
    for name in found.p_order:
        shifted = torch.cat([values[name].roll(shift, 0) for shift in SHIFTS])
        after = found.p_order[found.p_order.index(name) + 1 :]
        later = found.q_order[found.q_order.index(name) + 1 :]
        if torch.equal(shifted, many[name]):  # q gives all data one value: take p's draws
            shifted = _prior_draws(model, shelf, found, name, values, numbers).repeat(len(SHIFTS), 1)
        if torch.equal(shifted, many[name]):  # nothing moves it; whatever comes after may depend on it
            for child in (*after, "x"):
                p_parents[child].append(name)
            for child in later:
                q_parents[child].append(name)
            continue
        changed = {**many, name: shifted}
        p_now = seen("p", changed, rows)
        for child in (*after, *found.observed):
            if (
                _differs(p_base[child], p_now[child])
                and name not in p_parents["x" if child in found.observed else child]
            ):
                p_parents["x" if child in found.observed else child].append(name)
        if later:
            q_now = seen("q", changed, rows, name)
            for child in later:
                if _differs(q_base[child], q_now[child]):
                    q_parents[child].append(name)
    others = torch.cat([numbers.roll(shift) for shift in SHIFTS])
    of_others = seen("q", many, others)
    for child in found.q_order:
        if _differs(q_base[child], of_others[child]):
            q_parents[child].insert(0, "x")
    in_order = {child: tuple(n for n in ("x", *found.q_order) if n in names) for child, names in q_parents.items()}
    return Signature(
        found.p_order, found.q_order, found.observed, found.p_kinds, found.q_kinds,
        {child: tuple(n for n in found.p_order if n in names) for child, names in p_parents.items()}, in_order,
    )  # fmt: skip


def _prior_draws(
    model: Model, shelf: Shelf, found: Signature, name: str, values: dict[str, Tensor], numbers: Tensor
) -> Tensor:
    """Draws of one latent from p, flat; the values themselves where p cannot draw."""
    walk = walker(found, shelf, "p", numbers, given=values, until={name})
    run(model.generate, walk, "walk" if model.is_joint else "generate")
    kind = found.p_kinds[name]
    try:
        drawn, _ = kind.draw(walk.p[name].law, _noise(kind, MANY, seed=len(values), device=shelf.device))
    except NotMeasuredError:
        return values[name]
    return kind.flat(drawn)


def _scores(kind: Kind, landed: Landed) -> bool:
    """Whether a distribution scores values that it did not draw; a flow without inverse is told by its own draws."""
    if isinstance(landed.law, tuple):
        return True
    try:
        kind.terms(landed.law, kind.shaped(landed.value))
    except NotMeasuredError:
        return False
    return True


def _noise(kind: Kind, rows: int, seed: int, device: torch.device | str) -> Tensor:
    source = torch.Generator(device).manual_seed(seed)
    sampler = torch.randn if kind.family.noise == "normal" else torch.rand
    dtype = kind.dtype if kind.dtype in (torch.float32, torch.float64) else torch.float32
    return sampler(rows, kind.family.noise_width, generator=source, device=device, dtype=dtype)


def _differs(one: list[Tensor], other: list[Tensor]) -> bool:
    return any(not torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in zip(one, other, strict=True))


__all__ = ["Law", "Signature", "look", "walker"]
