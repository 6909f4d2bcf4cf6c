"""A user's model as a stack of the house: a `Decoder` and a `Posterior` that call the user's functions.

Whatever can be walked can be measured, so this is all that the rest of the house needs. The observation ``x [1, B, 1]``
is the number of a datum (`hvae.foreign.data`). Rows per call are bounded; distributions of several calls are joined.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, constraints

from hvae.errors import NotMeasuredError
from hvae.evidence import HVAE
from hvae.families import Family
from hvae.foreign.data import Shelf, tensors_of
from hvae.foreign.kinds import Foreign, Kind
from hvae.foreign.model import Model
from hvae.foreign.parents import with_parents
from hvae.foreign.signature import Signature, look
from hvae.foreign.visit import Landed, Mode, Walker, blocks, run
from hvae.network import Decoder, Site, Trace
from hvae.posterior import Posterior
from hvae.rng import NoiseSpecs
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

    def has_mean(self, name: str) -> bool:
        return self.functions.signature.p_kinds[name].has_mean

    def can_redraw(self, name: str) -> bool:
        return name != "x"

    def walk(self, given: Mapping[str, Value], noise: Mapping[str, Noise]) -> Trace:
        return self._walk(given, noise, self.variables)

    def _walk(self, given: Mapping[str, Value], noise: Mapping[str, Noise], until: Collection[str]) -> Trace:
        for name in self.variables:
            if name in until and name not in given and name not in noise:
                raise KeyError(name)
        p, _ = self.functions.walk("p", given, noise, until)
        return {name: p[name] for name in self.variables if name in p}

    def factors(self, names: Collection[str]) -> Decoder:
        return _ForeignFactors(self, names)


class _ForeignFactors(ForeignDecoder):
    """Some conditionals: a walk that ends at the last of them."""

    def __init__(self, whole: ForeignDecoder, names: Collection[str]) -> None:
        super().__init__(whole.functions)
        self.names = tuple(name for name in whole.variables if name in names)

    @property
    def variables(self) -> tuple[str, ...]:
        return self.names

    def walk(self, given: Mapping[str, Value], noise: Mapping[str, Noise]) -> Trace:
        if not self.names:
            return {}
        whole = (*self.functions.signature.p_order, "x")
        needed = [parent for name in self.names for parent in self.parents(name) if parent not in self.names]
        for name in needed:
            if name not in given:
                raise KeyError(name)
        order = {name: place for place, name in enumerate(whole)}
        last = max(order[name] for name in self.names)
        filled = {**self._placeholders({**noise, **given}, [n for n in whole[:last] if n not in self.names]), **noise}
        if "x" in self.names and "x" not in given and "x" not in noise:
            raise KeyError("x")
        p, _ = self.functions.walk("p", given, filled, self.names)
        return {name: p[name] for name in self.names}

    def noise_specs(self) -> NoiseSpecs:
        return {name: (self.family(name).noise, self.family(name).noise_width) for name in self.names}

    def _placeholders(self, values: Mapping[str, Value], names: Collection[str]) -> dict[str, Noise]:
        missing = [name for name in names if name not in values and name != "x"]
        batch = torch.broadcast_shapes(*(value.shape[:-1] for value in values.values())) or (1, 1)
        middle = {"normal": 0.0, "uniform": 0.5}
        return {
            name: torch.full(
                (*batch, self.family(name).noise_width), middle[self.family(name).noise],
                dtype=self.functions.signature.dtype, device=self.functions.shelf.device,
            )
            for name in missing
        }  # fmt: skip


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
        model: Model, observed: Mapping[str, Tensor], context: object = None, *, whole: bool = True, most: int = ROWS
    ) -> "Stack":
        """Looks at the model, at two numbers of rows. Raises `ConfigError` for what cannot be measured."""
        shelf = Shelf(observed, context, model.encode, whole=whole, rows=most)
        with torch.no_grad():
            return Stack(Functions(model, shelf, with_parents(model, shelf, look(model, shelf)), most))

    @property
    def numbers(self) -> Tensor:
        """The numbers of the data ``[n, 1]``, which stand for x."""
        shelf = self.functions.shelf
        return torch.arange(shelf.first, device=shelf.device, dtype=self.functions.signature.dtype).unsqueeze(-1)

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
