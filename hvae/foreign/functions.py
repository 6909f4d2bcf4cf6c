"""How a walk of ``[K, B]`` becomes calls of a user's functions, in blocks of rows, and what they give becomes sites."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints

from hvae.errors import NotMeasuredError
from hvae.families import Family
from hvae.foreign.data import Shelf
from hvae.foreign.kinds import Foreign, Kind
from hvae.foreign.model import Model
from hvae.foreign.signature import Signature
from hvae.foreign.visit import Landed, Mode, Walker, blocks, run
from hvae.network import Site
from hvae.shapes import LogProb, Noise, UnitLogProb, Value

ROWS = 16384
"""rows per call where memory sets no smaller number"""


@dataclass(frozen=True)
class Scored(Site):
    """A site that was scored when it was visited, on the very tensor drawn.

    >>> family = Foreign(1, "uniform", 1, factorised=True, seeded=True)
    >>> Scored(torch.zeros(1, 5, 1), torch.distributions.Normal(0.0, 1.0), family, torch.zeros(1, 5, 1)).log_prob.shape
    torch.Size([1, 5])
    """

    terms: UnitLogProb
    """``[K, B, D]`` where the units are independent, else ``[K, B, 1]``"""

    @property
    def log_prob(self) -> LogProb:
        return self.terms.sum(-1, dtype=torch.float64)

    @property
    def unit_log_prob(self) -> UnitLogProb:
        if not self.family.factorised:
            return self.family.unit_log_prob(self.distribution, self.value)
        return self.terms


class Several(Distribution):
    """The distributions of several observed variables.

    >>> Several({"x1": torch.distributions.Normal(torch.zeros(1, 5, 2), 1.0)}, torch.Size([1, 5])).batch_shape
    torch.Size([1, 5])
    """

    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012 - torch declares it so

    def __init__(self, parts: Mapping[str, Distribution], batch: torch.Size) -> None:
        self.parts = dict(parts)
        super().__init__(batch, torch.Size([1]), validate_args=False)

    @property
    def mean(self) -> Tensor:
        raise NotMeasuredError("x has several parts, which have no mean in common")

    def closed_kl(self, other: Distribution) -> LogProb | None:
        """The sum of the parts' divergences, where each has one."""
        from hvae.families import has_closed_kl, kl

        if not isinstance(other, Several) or not all(has_closed_kl(a, other.parts[n]) for n, a in self.parts.items()):
            return None
        return sum((kl(a, other.parts[n]).double() for n, a in self.parts.items()), start=torch.zeros(()))


@dataclass
class Calls:
    """Rows of the user's functions that were asked for.

    >>> Calls(infer=100, generate=100, joint=50).rows
    300
    """

    infer: int = 0
    generate: int = 0
    joint: int = 0

    @property
    def rows(self) -> int:
        """All together; a joint walk counts as both."""
        return self.infer + self.generate + 2 * self.joint


@dataclass
class Functions:
    """A model, its data and what was found out about it: how a walk of ``[K, B]`` becomes calls of blocks of rows.

    >>> from torch.distributions import Normal
    >>> from hvae.foreign.stack import Stack
    >>> def infer(visit):
    ...     visit("z", Normal(visit.code, 1.0))
    >>> def generate(visit):
    ...     visit("x", Normal(visit("z", Normal(torch.zeros(2), 1.0)), 1.0))
    >>> stack = Stack.of(Model(infer, generate), {"x": torch.zeros(5, 2)})
    >>> p, q = stack.functions.walk("q", {"x": stack.numbers.unsqueeze(0)}, {"z": torch.zeros(7, 5, 2)}, ["z"])
    >>> q["z"].value.shape, stack.functions.calls
    (torch.Size([7, 5, 2]), Calls(infer=35, generate=0, joint=0))
    """

    model: Model
    shelf: Shelf
    signature: Signature
    most: int = ROWS
    calls: Calls = field(default_factory=Calls)

    def walk(
        self,
        mode: Mode,
        given: Mapping[str, Value],
        noise: Mapping[str, Noise],
        until: Collection[str],
        contexts_of: Value | None = None,
    ) -> tuple[dict[str, Site], dict[str, Site]]:
        """(p, q) of the variables that were visited, ``[K, B]``; "x" stands for all that is observed."""
        latents = {name: value for name, value in given.items() if name in self.signature.q_kinds}
        used = {name: values for name, values in noise.items() if name not in given}
        batch = torch.broadcast_shapes(
            *(value.shape[:2] for value in (*latents.values(), *used.values())),
            *([given["x"].shape[:2]] if "x" in given else []), (1, 1),
        )  # fmt: skip
        batch = batch[-2:]
        numbers = self._numbers(given if contexts_of is None else {"x": contexts_of}, batch)
        flat = {name: _rows(value, batch) for name, value in latents.items()}
        noises = {name: _rows(values, batch) for name, values in used.items()}
        if "x" in noises:
            noises |= self._split(noises.pop("x"))
        scored = "x" in given
        walkers = []
        targets = self._targets(until)
        for part in blocks(len(numbers), self.most):
            at = numbers[part]
            walk = Walker(
                mode, len(at), self.signature.p_kinds, self.signature.q_kinds,
                {name: value[part] for name, value in flat.items()},
                {name: value[part] for name, value in noises.items()},
                {name: self.shelf.values(name, at) for name in self.signature.observed} if scored else None,
                partial(self.shelf.code, at), partial(self.shelf.context, at), set(targets),
            )  # fmt: skip
            what = "walk" if self.model.is_joint else "infer" if mode == "q" else "generate"
            run(self.model.infer if mode == "q" else self.model.generate, walk, what)
            walk.complete(what)
            walk.unchanged()
            walkers.append(walk)
        self.count(mode, len(numbers))
        return self._joined(walkers, batch, given, numbers, mode)

    def _targets(self, until: Collection[str]) -> set[str]:
        names = {name for name in until if name != "x"}
        return names | set(self.signature.observed) if "x" in until else names

    def _numbers(self, given: Mapping[str, Value], batch: torch.Size) -> Tensor:
        """The data of the rows; without x those of the context, one after another."""
        if "x" in given:
            return _rows(given["x"], batch).squeeze(-1).long()
        device = self.shelf.device
        return (torch.arange(batch[1], device=device) % self.shelf.first).expand(batch).reshape(-1)

    def _split(self, noise: Tensor) -> dict[str, Tensor]:
        kinds = [self.signature.p_kinds[name] for name in self.signature.observed]
        parts = noise.split([kind.family.noise_width for kind in kinds], dim=-1)
        found = {}
        for name, kind, part in zip(self.signature.observed, kinds, parts, strict=True):
            mixed = len({other.family.noise for other in kinds}) > 1
            found[name] = (
                torch.special.ndtri(part.clamp(1e-7, 1 - 1e-7)) if mixed and kind.family.noise == "normal" else part
            )
        return found

    def count(self, mode: Mode, rows: int) -> None:
        """Note rows of the user's functions that were asked for."""
        if mode == "both":
            self.calls.joint += rows
        elif mode == "q":
            self.calls.infer += rows
        else:
            self.calls.generate += rows

    def _joined(
        self, walkers: list[Walker], batch: torch.Size, given: Mapping[str, Value], numbers: Tensor, mode: Mode
    ) -> tuple[dict[str, Site], dict[str, Site]]:
        sizes = [walker.rows for walker in walkers]
        q: dict[str, Site] = {
            name: self._site([w.q[name] for w in walkers], self.signature.q_kinds[name], sizes, batch, given.get(name))
            for name in walkers[0].q
        }
        p: dict[str, Site] = {}
        observed: dict[str, Site] = {}
        for name in walkers[0].p:
            kind = self.signature.p_kinds[name]
            value = given.get(name) if mode == "p" else q[name].value if name in q else None
            site = self._site([w.p[name] for w in walkers], kind, sizes, batch, value)
            (observed if name in self.signature.observed else p)[name] = site
        if observed and mode != "q":
            p["x"] = self._observation(observed, walkers, batch, given, numbers)
        return p, q

    def _site(
        self, landed: list[Landed], kind: Kind, sizes: list[int], batch: torch.Size, value: Value | None
    ) -> Scored:
        law = kind.join([place.law for place in landed], sizes, batch)
        flat = torch.cat([place.value for place in landed])
        value = flat.reshape(*batch, -1) if value is None or value.shape[:2] != batch else value
        return Scored(value, law, kind.family, torch.cat([place.terms for place in landed]).reshape(*batch, -1))

    def _observation(
        self, observed: dict[str, Site], walkers: list[Walker], batch: torch.Size, given: Mapping[str, Value],
        numbers: Tensor,
    ) -> Scored:  # fmt: skip
        sites = [site for site in observed.values() if isinstance(site, Scored)]
        if "x" in given:
            value = given["x"]
        else:
            drawn = {name: torch.cat([walker.drawn[name] for walker in walkers]) for name in observed}
            value = self.shelf.add(drawn, numbers).to(self.signature.dtype).reshape(*batch, 1)
        if len(sites) == 1:
            return Scored(value, sites[0].distribution, sites[0].family, sites[0].terms)
        terms = torch.stack([site.log_prob.double() for site in sites], -1)
        law = Several({name: site.distribution for name, site in observed.items()}, batch)
        return Scored(value, law, self.family_of_x, terms)

    @property
    def family_of_x(self) -> Family:
        """Of the one observed variable, or a family that only scores, for several."""
        kinds = [self.signature.p_kinds[name] for name in self.signature.observed]
        if len(kinds) == 1:
            return kinds[0].family
        noises = {kind.family.noise for kind in kinds}
        width = sum(kind.family.noise_width for kind in kinds)
        return Foreign(1, noises.pop() if len(noises) == 1 else "uniform", width, factorised=False, seeded=True)


def _rows(value: Tensor, batch: torch.Size) -> Tensor:
    """``[K, B, D]`` as ``[K·B, D]``."""
    return value.expand(*batch, value.shape[-1]).reshape(-1, value.shape[-1])
