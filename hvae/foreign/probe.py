"""What the door's checks look at: a few rows of a user's model, walked again and again.

Distributions are compared by the log-probability of the same values, in nats. So the latents are drawn once, and every
later walk scores these draws: among other rows, in another order, with the generator of random numbers moved, after
`encode` has seen other data.
"""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from hvae.errors import ConfigError, NotMeasuredError
from hvae.foreign.data import Tree, in_place, snapshot, tensors_of
from hvae.foreign.signature import MANY, walker
from hvae.foreign.stack import Stack
from hvae.foreign.visit import Mode, Walker, run
from hvae.rng import noise

FLOOR_NATS, SHARE = 1e-3, 2e-5
"""differences below floor + share · Σ|terms| are rounding: float32 nets round otherwise in batches of other sizes"""
COARSE = {torch.float16: (0.02, 2e-3), torch.bfloat16: (0.1, 1e-2)}
"""the same where a net computes in half precision"""


@dataclass(frozen=True)
class Difference:
    """Where two walks part, and by how much.

    >>> str(Difference("p", "x", 0.25))
    'x under p: 0.25 nats'
    """

    walk: str
    name: str
    nats: float

    def __str__(self) -> str:
        return f"{self.name} under {self.walk}: {self.nats:.2g} nats"


@dataclass(frozen=True)
class Seen:
    """One look at some rows: what each distribution says of the same values.

    >>> one, other = (Seen({("p", "x"): torch.full((3, 2), value)}, {}) for value in (-1.0, -1.5))
    >>> str(one.apart(other, (1e-3, 1e-5)))
    'x under p: 1 nats'
    """

    terms: Mapping[tuple[str, str], Tensor]
    """(walk, variable) -> log-probabilities ``[rows, D]``, or ``[rows, 1]``"""
    draws: Mapping[str, Tensor]
    """latents ``[rows, D]`` of distributions that score their own draws alone: these are drawn from the same noise"""

    def at(self, rows: Tensor) -> "Seen":
        """Some of the rows."""
        return Seen(
            {key: terms[rows] for key, terms in self.terms.items()},
            {name: values[rows] for name, values in self.draws.items()},
        )

    def apart(self, other: "Seen", tolerance: tuple[float, float]) -> Difference | None:
        """The first variable, as they are visited, of which the two differ by more than rounding."""
        floor, share = tolerance
        for (walk, name), terms in self.terms.items():
            # a draw of its own noise can move with its distribution, and its log-probability stay
            if walk == "q" and name in self.draws:
                moved = (self.draws[name] - other.draws[name]).abs()
                if (moved > floor + share * self.draws[name].abs()).any():
                    return Difference(walk, name, float(moved.max()))
            difference = (terms - other.terms[walk, name]).double().sum(-1).abs()
            if (difference > floor + share * terms.double().abs().sum(-1)).any():
                return Difference(walk, name, float(difference.max()))
        return None


@dataclass
class Probe:
    """Sixteen rows of a model, their draws, and what was seen of them first.

    >>> from torch.distributions import Normal
    >>> from hvae.foreign.model import Model
    >>> def infer(visit):
    ...     visit("z", Normal(visit.code, 1.0))
    >>> def generate(visit):
    ...     visit("x", Normal(visit("z", Normal(torch.zeros(2), 1.0)), 1.0))
    >>> probe = Probe(Stack.of(Model(infer, generate), {"x": torch.zeros(5, 2)}))
    >>> probe.apart(probe.seen(probe.all_rows), probe.all_rows) is None
    True
    """

    stack: Stack
    numbers: Tensor = field(init=False)
    """of the data ``[16]``"""
    values: dict[str, Tensor] = field(init=False)
    """draws of the latents, flat ``[16, D]``"""
    first: Seen = field(init=False)
    laws: dict[str, Walker] = field(init=False)
    """the first walks of q, in which the values were drawn, and of p"""
    bound: frozenset[str] = frozenset()
    """latents of distributions that cannot score a value that they did not draw"""
    _orders: dict[str, list[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        functions, shelf = self.stack.functions, self.stack.functions.shelf
        self.numbers = torch.arange(MANY, device=shelf.device) % shelf.first
        drawn = noise(
            self.stack.noise_specs(), 1, MANY, seed=0, purpose="checks of a model", device=str(shelf.device),
            dtype=functions.signature.dtype,
        )  # fmt: skip
        self._noise = {name: values[0] for name, values in drawn.items()}
        self._tolerance = _tolerance(self)
        self.values = {}
        with self._seeded(0):
            q = self.walk("q", self.all_rows, self.encoded(self.all_rows))
            self.values = {name: landed.value for name, landed in q.q.items()}
            self.bound = frozenset(name for name in self.values if not self._scores(q, name))
            self.laws = {"q": q, "p": self.walk("p", self.all_rows)}
            self.first = _seen(self.laws, self.bound)

    @property
    def all_rows(self) -> Tensor:
        """``[16]``: 0 to 15."""
        return torch.arange(MANY, device=self.stack.functions.shelf.device)

    @property
    def blocks_only(self) -> bool:
        """Whether some draw is made of the noise of all rows at once, and can only be drawn."""
        kinds = self.stack.functions.signature.q_kinds
        return any(not kinds[name].family.reparametrised for name in self.bound)

    def _scores(self, walk: Walker, name: str) -> bool:
        kind, law = self.stack.functions.signature.q_kinds[name], walk.q[name].law
        if isinstance(law, tuple):
            return True
        try:
            kind.terms(law, kind.shaped(self.values[name].clone()))
        except NotMeasuredError:
            return False
        return True

    def encoded(self, rows: Tensor) -> Tree:
        """What `encode` makes of some rows now."""
        return self.stack.functions.shelf.encoded_now(self.numbers[rows])

    def walk(self, mode: Mode, rows: Tensor, code: Tree = None, values: Mapping[str, Tensor] | None = None) -> Walker:
        """One walk of some of the rows that scores the draws (or ``values``, for all rows)."""
        functions = self.stack.functions
        model, shelf, signature = functions.model, functions.shelf, functions.signature
        numbers, context = self.numbers[rows], None
        held = self.values if values is None else values
        given = {name: value[rows] for name, value in held.items() if mode == "p" or name not in self.bound}
        until = set(signature.q_order) | (set() if mode == "q" else set(signature.observed))
        made = walker(
            signature, shelf, mode, numbers, given=given, until=until,
            noise={name: drawn[rows] for name, drawn in self._noise.items()},
        )  # fmt: skip
        context = shelf.context(numbers)
        made.read_code, made.read_context = lambda: code, lambda: context
        # what encode made may be changed in place, since each call gets a copy; x itself and the context may not
        trees = (None if shelf.encodes else code, context)
        before = snapshot(trees)
        what = "walk" if model.is_joint else "infer" if mode == "q" else "generate"
        run(model.infer if mode == "q" else model.generate, made, what)
        functions.count(mode, len(rows))
        made.complete(what)
        made.unchanged()
        for name, tree, changed in zip(("x", "context"), trees, before.changed(trees), strict=True):
            if changed:
                raise ConfigError(in_place(what, name, tree))
        order = [*made.q] if mode == "q" else [*made.p]
        if order != self._orders.setdefault(mode, order):
            raise ConfigError(
                f"{what} visits {', '.join(order)} in one call, and {', '.join(self._orders[mode])} in another; the "
                "same variables must be visited in the same order in every call."
            )
        return made

    def seen(self, rows: Tensor) -> Seen:
        """Both walks of some rows, encoded anew."""
        q = self.walk("q", rows, self.encoded(rows))
        return _seen({"q": q, "p": self.walk("p", rows)}, self.bound)

    def again(self, seed: int) -> tuple[Difference | None, bool]:
        """All rows once more, the generator of random numbers moved: what differs, and whether numbers were drawn."""
        with self._seeded(seed) as generators:
            before = generators()
            now = self.seen(self.all_rows)
            drew = any(not torch.equal(a, b) for a, b in zip(before, generators(), strict=True))
        return self.apart(now, self.all_rows), drew

    def apart(self, now: Seen, rows: Tensor) -> Difference | None:
        """What differs from the first look at these rows."""
        return self.first.at(rows).apart(now, self._tolerance)

    def p_apart(self, walk: Walker) -> Difference | None:
        """What differs in p alone, over all rows."""
        first = Seen({key: terms for key, terms in self.first.terms.items() if key[0] == "p"}, {})
        return first.apart(_seen({"p": walk}, frozenset()), self._tolerance)

    @contextmanager
    def _seeded(self, seed: int) -> Iterator["Generators"]:
        device = self.stack.functions.shelf.device
        on_gpu = device.type == "cuda"
        with torch.random.fork_rng(devices=[device] if on_gpu else []):
            torch.manual_seed(1_000 + seed)
            yield Generators(device if on_gpu else None)


@dataclass(frozen=True)
class Generators:
    """The state of the global generators of random numbers that a model on this device may use.

    >>> generators = Generators(None)
    >>> before = generators()
    >>> torch.equal(before[0], generators()[0])
    True
    """

    gpu: torch.device | None

    def __call__(self) -> list[Tensor]:
        return [torch.get_rng_state(), *([torch.cuda.get_rng_state(self.gpu)] if self.gpu is not None else [])]


def _seen(walks: Mapping[str, Walker], bound: frozenset[str]) -> Seen:
    terms = {
        (mode, name): landed.terms
        for mode, walk in walks.items()
        for name, landed in (walk.q if mode == "q" else walk.p).items()
    }
    return Seen(terms, {name: walks["q"].q[name].value for name in bound if "q" in walks})


def _tolerance(probe: Probe) -> tuple[float, float]:
    functions = probe.stack.functions
    signature = functions.signature
    kinds = [*signature.q_kinds.values(), *signature.p_kinds.values()]
    weights = [weight.dtype for weight in probe.stack.module.parameters()]
    codes = [tensor.dtype for tensor in tensors_of(probe.encoded(probe.all_rows[:2]))]
    on_gpu = functions.shelf.device.type == "cuda"
    return rounding({*weights, *codes, *(kind.dtype for kind in kinds)}, tf32=on_gpu and _tf32())


def _tf32() -> bool:
    return bool(torch.backends.cudnn.allow_tf32 or torch.backends.cuda.matmul.allow_tf32)


def rounding(dtypes: Collection[torch.dtype], *, tf32: bool) -> tuple[float, float]:
    """Floor and share of what is rounding, for a model in which these types occur.

    >>> rounding({torch.float32, torch.float64}, tf32=False)
    (0.001, 2e-05)
    """
    for half in (torch.bfloat16, torch.float16):
        if half in dtypes:
            return COARSE[half]
    # a GPU's TF32 has the ten bits of float16, and other kernels for other numbers of rows
    return COARSE[torch.float16] if tf32 else (FLOOR_NATS, SHARE)
