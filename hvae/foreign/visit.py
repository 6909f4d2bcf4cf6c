"""One walk of a user's functions: what `visit` does when they call it.

    q walks   infer(visit), or walk(visit) of a joint model: latents fall from q
    p walks   generate(visit), or walk(visit): latents are given or fall from p, x is scored
    both      walk(visit) of a joint model, once: latents fall from q and are scored under both

A value is scored at once, on the very tensor that was drawn: a flow without inverse knows no other. A walk ends at the
last variable that is asked for.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeVar

import torch
from torch import Tensor
from torch.distributions import Distribution

from hvae.errors import ConfigError, NotMeasuredError
from hvae.foreign.data import Tree, version_of
from hvae.foreign.draws import UnfitTerms
from hvae.foreign.kinds import Kind
from hvae.foreign.reading import AnyLaw, wide, widened

Mode = Literal["q", "p", "both"]


class Visit(Protocol):
    """What a user's functions call, once for each variable.

    >>> import torch
    >>> from hvae import Visit
    >>> def infer(visit: Visit) -> None:
    ...     mean, scale = visit.code
    ...     visit("z", torch.distributions.Normal(mean, scale))
    """

    @property
    def rows(self) -> int:
        """K·B in this call: the first axis of every value and distribution."""

    @property
    def code(self) -> Tree:
        """What `encode` made of x, ``[rows, ...]``; refused while p is walked, which must not see x."""

    @property
    def context(self) -> Tree:
        """What was handed to `diagnose` as context, ``[rows, ...]``; None without."""

    def __call__(self, name: str, p: AnyLaw, q: Callable[[], AnyLaw] | None = None) -> Tensor:
        """The value of the variable ``name``, ``[rows, *event]``, given or drawn.

        ``p`` is its distribution; in a joint walk that of the decoder, with ``q`` a function that returns the
        posterior's.
        """


F = TypeVar("F", bound=Callable[..., Any])


def not_compiled(function: F) -> F:
    """``function``, left out of the graphs where a user's function that calls it is compiled.

    What `torch.compiler.disable` does, without the two seconds that its import takes.
    """
    function._torchdynamo_disable = True  # type: ignore[attr-defined]
    return function


class Enough(Exception):
    """All that was asked for is visited.

    >>> run(lambda visit: visit("z"), lambda name: (_ for _ in ()).throw(Enough), "infer")
    """


@dataclass
class Landed:
    """A variable that was visited: the rows of its value, and its distribution as the house reads it.

    >>> Landed(torch.zeros(5, 2), (torch.zeros(5, 2), torch.zeros(5, 2)), torch.zeros(5, 2)).terms.sum(-1).shape
    torch.Size([5])
    """

    value: Tensor
    """flat ``[rows, D]``; of observed variables nothing is kept"""
    law: tuple[Tensor, ...] | Distribution
    terms: Tensor
    """log-probability: ``[rows, D]`` per unit, or ``[rows, 1]``"""


@dataclass
class Walker:
    """`Visit` for one call on some rows, in one of the three modes.

    >>> from hvae.foreign.kinds import kind_of
    >>> prior = torch.distributions.Normal(torch.zeros(5, 2), 1.0)
    >>> kinds = {"z": kind_of(prior, torch.Size([2]), rows=5)}
    >>> walk = Walker("q", 5, kinds, kinds, {}, {"z": torch.zeros(5, 2)}, None, lambda: None, lambda: None, {"z", "x"})
    >>> walk("z", prior).shape, walk.until
    (torch.Size([5, 2]), {'x'})
    """

    mode: Mode
    rows: int
    p_kinds: Mapping[str, Kind]
    q_kinds: Mapping[str, Kind]
    given: Mapping[str, Tensor]
    """latents, flat ``[rows, D]``"""
    noise: Mapping[str, Tensor]
    """flat ``[rows, width]``, for what is drawn"""
    observed: Mapping[str, Tensor] | None
    """the data ``[rows, *event]``; None where they are drawn"""
    read_code: Callable[[], Tree]
    read_context: Callable[[], Tree]
    until: set[str]
    """the walk ends when all of these are visited"""
    p: dict[str, Landed] = field(default_factory=dict)
    q: dict[str, Landed] = field(default_factory=dict)
    drawn: dict[str, Tensor] = field(default_factory=dict)
    """observed variables that were drawn, ``[rows, *event]``"""
    last: str = ""
    handed: list[tuple[str, Tensor, int]] = field(default_factory=list)

    @property
    @not_compiled
    def code(self) -> Tree:
        if self.mode == "p":
            raise ConfigError(
                "visit.code was read while p is walked, and p must not see x; read it in infer, or within the q=lambda "
                "of a joint walk."
            )
        return self.read_code()

    @property
    @not_compiled
    def context(self) -> Tree:
        return self.read_context()

    @not_compiled
    def __call__(self, name: str, p: AnyLaw, q: Callable[[], AnyLaw] | None = None) -> Tensor:
        if name in self.p or name in self.q:
            raise ConfigError(f"{name} is visited twice in one walk; each variable has one distribution.")
        self.last = name
        latent = name in self.q_kinds
        if not latent:
            if name not in self.p_kinds:
                raise ConfigError(f"{name} was not visited when the model was first walked; visit the same variables "
                                  "in every call.")  # fmt: skip
            value = self._observed(name, p)
        elif self.mode == "p":
            value = self._latent(name, p, self.p_kinds[name], self.p)
        else:
            law = q() if q is not None else p
            value = self._latent(name, law, self.q_kinds[name], self.q)
            if self.mode == "both":
                self.p[name] = self._scored(p, self.p_kinds[name], value, self.q[name].value)
        self.handed.append((name, value, version_of(value)))
        self.until.discard(name)
        if not self.until:
            raise Enough
        return value

    def _latent(self, name: str, law: AnyLaw, kind: Kind, into: dict[str, Landed]) -> Tensor:
        read = kind.read(widened(law), self.rows)
        if name in self.given:
            flat = self.given[name]
            value = kind.shaped(flat)
            into[name] = self._scored(law, kind, value, flat, read)
            return value
        value, log_prob = kind.draw(read, self.noise[name])
        flat = kind.flat(value)
        if log_prob is not None:
            into[name] = Landed(flat, read, log_prob.unsqueeze(-1))
        else:
            into[name] = self._scored(law, kind, value, flat, read)
        return value

    def _observed(self, name: str, law: AnyLaw) -> Tensor:
        kind = self.p_kinds[name]
        read = kind.read(widened(law), self.rows)
        if self.observed is not None:
            value = self.observed[name]
        else:
            value, _ = kind.draw(read, self.noise[name])
            self.drawn[name] = value
        flat = kind.flat(value)
        landed = self._scored(law, kind, value, flat, read)
        self.p[name] = Landed(flat if self.observed is None else flat[:, :0], landed.law, landed.terms)
        return value

    def _scored(
        self,
        law: AnyLaw,
        kind: Kind,
        value: Tensor,
        flat: Tensor,
        read: tuple[Tensor, ...] | Distribution | None = None,
    ) -> Landed:
        read = kind.read(widened(law), self.rows) if read is None else read
        if isinstance(read, Distribution):
            version = version_of(value)
            terms = kind.terms(read, wide(value))
            if version_of(value) != version:
                raise ConfigError(_changed(self.last))
            return Landed(flat, read, terms)
        distribution = kind.join([read], [self.rows], torch.Size([self.rows]))
        family = kind.family
        if family.factorised:
            return Landed(flat, read, family.unit_log_prob(distribution, flat))
        return Landed(flat, read, family.log_prob(distribution, flat).unsqueeze(-1))

    def unchanged(self) -> None:
        """Raises where a value was changed in place after it was visited."""
        for name, value, version in self.handed:
            if version_of(value) != version:
                raise ConfigError(_changed(name))

    def complete(self, what: str) -> None:
        """Raises where a variable that was asked for was not visited."""
        if self.until:
            raise ConfigError(
                f"{what} did not visit {', '.join(sorted(self.until))} in this call, but did before; visit the same "
                "variables in the same order in every call."
            )


def _changed(name: str) -> str:
    return (
        f"the value of {name} was changed in place after it was visited, so that its density is that of another "
        "value; write the change without an underscore, as in z = 2 * z."
    )


def run(function: Callable[[Any], object], walker: Any, what: str) -> None:
    """One call of a user's function. What it raises is one sentence, with the place where it was."""
    try:
        function(walker)
    except Enough:
        pass
    except UnfitTerms as refusal:
        raise ConfigError(f"log_prob of {walker.last} {refusal}") from refusal
    except (ConfigError, NotMeasuredError) as refusal:
        if isinstance(refusal, NotMeasuredError):
            raise NotMeasuredError(f"{walker.last}: {refusal}") from refusal
        raise
    except Exception as error:
        first = next(iter(str(error).strip().splitlines()), type(error).__name__)
        if "NoneType" in first and walker.context is None:
            first += " (visit.context is None: give it, as in diagnose(model, x, context))"
        place = f"{what}, after {walker.last}" if walker.last else f"{what}, before its first visit"
        place = f"q of {within}" if (within := getattr(walker, "within", "")) else place
        raise ConfigError(f"{place}: {type(error).__name__}: {first[:200]}") from error


def blocks(rows: int, most: int) -> Iterator[slice]:
    """Slices of at most ``most`` rows."""
    for start in range(0, rows, most):
        yield slice(start, min(start + most, rows))
