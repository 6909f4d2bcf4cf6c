"""Which variables each distribution of a model depends on: `p_parents` and `q_parents` of its signature.

One value is changed, and whatever distribution is then another to the last bit depends on it. So a dependence that no
gradient shows counts too: a comparison, an index, a detached value. Many variables are changed in one call, each in
rows of its own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.distributions import Distribution

from hvae.errors import NotMeasuredError
from hvae.foreign.data import Shelf
from hvae.foreign.kinds import Kind
from hvae.foreign.model import Model
from hvae.foreign.reading import AnyLaw, widened
from hvae.foreign.signature import MANY, Signature, some_noise, walker
from hvae.foreign.visit import Landed, Walker, run

SHIFTS = (1, 5, 11)
"""rows by which values are exchanged between data"""
AT_ONCE = 16
"""variables that are changed in one call"""


class _Comparing(Walker):
    """`Visit` of walks in which distributions are compared, not weighed: `terms` are what tells them apart."""

    def _scored(
        self, law: AnyLaw, kind: Kind, value: Tensor, flat: Tensor,
        read: tuple[Tensor, ...] | Distribution | None = None,
    ) -> Landed:  # fmt: skip
        read = kind.read(widened(law), self.rows) if read is None else read
        if isinstance(read, tuple):
            return Landed(flat, read, flat[:, :0])
        try:
            terms = kind.terms(read, value)
        except NotMeasuredError:
            if self.mode == "p":  # which has to score what q drew
                raise
            terms = kind.draw(read, some_noise(kind, self.rows, seed=0, device=flat.device))[0]
        return Landed(flat, read, terms)


def with_parents(model: Model, shelf: Shelf, found: Signature) -> Signature:
    """``found`` with the parents of every variable."""
    numbers = torch.arange(MANY, device=shelf.device) % shelf.first
    kinds = found.q_kinds
    noise = {name: some_noise(kinds[name], MANY, seed=i, device=shelf.device) for i, name in enumerate(kinds)}
    base = walker(found, shelf, "q", numbers, noise=noise, until=set(found.q_order))
    run(model.infer, base, _function(model, "q"))
    drawn = {name: landed.value for name, landed in base.q.items()}
    values = {name: value.repeat(len(SHIFTS), 1) for name, value in drawn.items()}
    shifted = {name: torch.cat([value.roll(shift, 0) for shift in SHIFTS]) for name, value in drawn.items()}
    for name in values:
        if torch.equal(shifted[name], values[name]):  # q gives all data one value: take p's draws
            shifted[name] = _prior_draws(model, shelf, found, name, drawn, numbers).repeat(len(SHIFTS), 1)
    moves = [name for name in found.q_order if not torch.equal(shifted[name], values[name])]
    rows = numbers.repeat(len(SHIFTS))
    others = torch.cat([numbers.roll(shift) for shift in SHIFTS])
    at_once = max(1, min(AT_ONCE, shelf.rows // len(rows), len(moves) + 1))

    def seen(walk: str, changed: Sequence[str]) -> dict[str, list[Tensor]]:
        """What tells each distribution from another, with one variable changed in each block of rows ("" for none)."""
        given = {
            name: torch.cat([shifted[name] if name == other else value for other in changed])
            for name, value in values.items()
        }
        at = torch.cat([others if name == "x" else rows for name in changed])
        until = set(found.q_order) if walk == "q" else {*found.p_order, *found.observed}
        comparing = walker(found, shelf, walk, at, _Comparing, given=given, until=until)
        run(model.infer if walk == "q" else model.generate, comparing, _function(model, walk))
        landed = comparing.q if walk == "q" else comparing.p
        return {name: [*place.law] if isinstance(place.law, tuple) else [place.terms] for name, place in landed.items()}

    def children(walk: str, names: Sequence[str]) -> dict[str, set[str]]:
        """For each of ``names`` the variables whose distributions change with it."""
        still, moved = seen(walk, [""] * at_once), {}
        for start in range(0, len(names), at_once):
            group = [*names[start : start + at_once]]
            now = seen(walk, group + [""] * (at_once - len(group)))  # of equal shapes equal values have equal bits
            for place, name in enumerate(group):
                block = slice(place * len(rows), (place + 1) * len(rows))
                moved[name] = {child for child in now if _differs(still[child], now[child], block)}
        return moved

    same = all(torch.equal(shelf.values(name, rows), shelf.values(name, others)) for name in shelf.observed)
    return _told(found, children("p", moves), children("q", moves if same else ["x", *moves]))


def _told(found: Signature, by_p: Mapping[str, set[str]], by_q: Mapping[str, set[str]]) -> Signature:
    """Parents from children. Whatever comes after a variable that nothing moves may depend on it."""
    everything = {*found.q_order, *found.observed}

    def of(children: Mapping[str, set[str]], before: Sequence[str], child: set[str]) -> tuple[str, ...]:
        return tuple(name for name in before if children.get(name, everything) & child)

    p_parents = {child: of(by_p, found.p_order[:place], {child}) for place, child in enumerate(found.p_order)}
    p_parents["x"] = of(by_p, found.p_order, {*found.observed})
    q_parents = {child: of(by_q, ("x", *found.q_order[:place]), {child}) for place, child in enumerate(found.q_order)}
    return replace(found, p_parents=p_parents, q_parents=q_parents)


def _function(model: Model, walk: str) -> str:
    return "walk" if model.is_joint else "infer" if walk == "q" else "generate"


def _prior_draws(
    model: Model, shelf: Shelf, found: Signature, name: str, values: Mapping[str, Tensor], numbers: Tensor
) -> Tensor:
    """Draws of one latent from p, flat; the values themselves where p cannot draw."""
    walk = walker(found, shelf, "p", numbers, given=values, until={name})
    run(model.generate, walk, _function(model, "p"))
    kind = found.p_kinds[name]
    try:
        drawn, _ = kind.draw(walk.p[name].law, some_noise(kind, MANY, seed=len(values), device=shelf.device))
    except NotMeasuredError:
        return values[name]
    return kind.flat(drawn)


def _differs(one: list[Tensor], other: list[Tensor], rows: slice) -> bool:
    pairs = ((a[rows], b[rows]) for a, b in zip(one, other, strict=True))
    return any(not torch.equal(a, b) and not torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in pairs)
