"""The checks at the door: whether a user's functions are what an ELBO needs, before anything is measured.

    1  the same noise gives the same distributions        6  p does not see x but through the latents
    2  no row depends on other rows, nor on its place     7  every latent moves something in p
    3  the same variables, in the same order              8  declared parents hold
    4  finite, inside the support, of one measure         9  `hvae.law`: log_prob and sample agree
    5  x, context and values are not changed in place    10  the user's own ELBO, datum by datum

Numbers 3 and 5 hold in every walk (`hvae.foreign.probe`). A model that fails is refused with one sentence and the
remedy (`ConfigError`); what is only doubtful becomes a `Finding`. The first eight take a few hundred rows.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hvae.errors import ConfigError
from hvae.foreign.evaluating import evaluating, normalised
from hvae.foreign.finding import Finding
from hvae.foreign.lawful import lawful
from hvae.foreign.own_elbo import compare_own_elbo
from hvae.foreign.probe import Probe
from hvae.foreign.signature import MANY
from hvae.foreign.stack import Stack
from hvae.foreign.two_functions import laws_agree

REPEATS = 8
"""looks that are taken where random numbers were drawn, and the first two agree"""
NOTHING_FOUND = (
    "the checks found nothing at 16 rows; what they cannot see is a state fixed before the first call (data "
    "normalised by the first batch ever seen) and, without own_elbo, a constant, a scale or a sum that log_prob has "
    "wrong."
)


@dataclass(frozen=True)
class Checked:
    """What the checks of a model found, and how its first rows looked, to look again when all is measured.

    >>> from torch.distributions import Normal
    >>> from hvae.foreign.model import Model
    >>> def infer(visit):
    ...     visit("z", Normal(visit.code, 1.0))
    >>> def generate(visit):
    ...     visit("x", Normal(visit("z", Normal(torch.zeros(2), 1.0)), 1.0))
    >>> checked = check(Stack.of(Model(infer, generate), {"x": torch.randn(50, 2)}))
    >>> checked.doubts, checked.drift()
    ((), ())
    """

    findings: tuple[Finding, ...]
    probe: Probe

    @property
    def doubts(self) -> tuple[Finding, ...]:
        """The findings that doubt something."""
        return tuple(finding for finding in self.findings if finding.doubtful)

    def __iter__(self) -> Iterator[Finding]:
        return iter(self.findings)

    def drift(self) -> tuple[Finding, ...]:
        """Check 1 once more, for after the last measurement: empty if the model is still the same.

        The module is put in evaluation mode for it, and back.
        """
        with torch.no_grad(), evaluating(self.probe.stack.functions.model):
            difference, _ = self.probe.again(seed=REPEATS + 1)
        if difference is None:
            return ()
        return (
            Finding(
                f"the same data and noise give other results than before the measurement ({difference}): a state that "
                "calls change is at work, and the numbers are of no single model; freeze it, as with net.eval()."
            ),
        )


def check(
    stack: Stack,
    *,
    own_elbo: Callable[..., Tensor] | None = None,
    parents: Mapping[str, Sequence[str]] | None = None,
    n_data: int = 64,
) -> Checked:
    """All checks of a model. Raises `ConfigError` with the remedy for what makes its numbers wrong.

    ``own_elbo(x[, context]) -> [n]`` is compared on ``n_data`` data; ``parents`` of latents and of "x" in p may be
    declared fewer than all that are visited before.
    """
    with torch.no_grad():
        probe = Probe(stack)
        findings = [finding for each in CHECKS for finding in each(probe)]
        findings += _parents_hold(probe, parents or {})
        findings += laws_agree(probe)
        if own_elbo is not None:
            findings += compare_own_elbo(stack, own_elbo, n_data)
    if not any(finding.doubtful for finding in findings):
        findings.append(Finding(NOTHING_FOUND, doubtful=False))
    return Checked(tuple(findings), probe)


def _repeatable(probe: Probe) -> list[Finding]:
    """1: the same noise twice, the generator of random numbers moved in between."""
    drew = False
    for seed in range(1, 1 + REPEATS):
        difference, drawn = probe.again(seed)
        if difference is not None:
            raise ConfigError(
                f"the same noise gave two results ({difference}): dropout or a draw of your own is at work, or a state "
                "that each call changes; net.eval(), or hand it as module=; a gate that belongs to the model is "
                "visited in infer and generate."
            )
        drew |= drawn
        if not drew:
            return []
    return [
        Finding(
            "random numbers are drawn outside of visit, without an effect that was seen: if they are dropout of a "
            "small rate, the numbers are not those of one model; net.eval() tells."
        )
    ]


SOME = (11, 3, 7)
"""rows that are looked at among themselves"""
REVERSED = (6, 13, 2, 9, 0, 15, 4, 11, 8, 1, 14, 3, 10, 5, 12, 7)


def _rowwise(probe: Probe) -> list[Finding]:
    """2: rows among themselves, and in another order. Never a row alone, which batch norm refuses."""
    if probe.blocks_only:
        names = ", ".join(sorted(probe.bound))
        return [
            Finding(
                f"whether rows depend on each other was not seen: {names} can only be drawn, and by blocks; hand "
                "`pull` to hvae.pushed.",
                names,
            )
        ]
    for rows in _companies(probe):
        difference = probe.apart(probe.seen(rows), rows)
        if difference is not None:
            raise ConfigError(
                f"rows {', '.join(map(str, rows.tolist()))} among themselves are not what they are among 16 "
                f"({difference}): batch norm in training mode, a mean over the rows, a cache or a table by place makes "
                "a row depend on others; net.eval(), hand it as module=, and compute each row by itself."
            )
    rows = torch.tensor(REVERSED, device=probe.numbers.device)
    difference = probe.apart(probe.seen(rows), rows)
    if difference is not None:
        raise ConfigError(
            f"the same rows in another order give other results ({difference}): a table, a buffer of noise or a cache "
            "goes by the place or the number of rows; let every row depend on its own datum and context only."
        )
    return []


def _companies(probe: Probe) -> list[Tensor]:
    """Rows among themselves: some, and by three or four all, from those of low to those of high numbers in x and z.

    A branch on the mean of a batch shows in batches that differ.
    """
    found = [torch.tensor(SOME, device=probe.numbers.device)]
    observed = probe.laws["p"].observed or {}
    for values in (observed, probe.values):
        flat = torch.cat([value.reshape(MANY, -1).double().nan_to_num() for value in values.values()], 1)
        found += flat.mean(1).argsort().tensor_split(MANY // 3)
    return found


def _blind_to_x(probe: Probe) -> list[Finding]:
    """6: p after `encode` and q have seen other data; and where one walk serves both, p as it is walked with q."""
    if probe.stack.functions.model.is_joint:
        difference = probe.p_apart(probe.walk("both", probe.all_rows, probe.encoded(probe.all_rows)))
        if difference is not None:
            raise ConfigError(
                f"p is another when q is walked with it than when it is walked alone ({difference}): the "
                "distribution that is given as p must not depend on visit.code."
            )
    others = probe.all_rows.roll(1)
    probe.walk("q", others, probe.encoded(others))
    difference = probe.p_apart(probe.walk("p", probe.all_rows))
    if difference is not None:
        raise ConfigError(
            f"p moves when encode has seen other data ({difference}), so p sees x by another way than the latents: a "
            "skip or a cache that encode or infer keeps; make it a latent, or hand it over as context."
        )
    return []


def _used(probe: Probe) -> list[Finding]:
    """7: some distribution of generate moves with each latent (found when the model was first walked)."""
    signature = probe.stack.functions.signature
    found = {parent for parents in signature.p_parents.values() for parent in parents}
    return [
        Finding(
            f"no distribution of generate moves with {name}, to the last bit: it is ignored, or what visit returned is "
            f"not used; write {name} = visit('{name}', ...) and compute with it.",
            name,
        )
        for name in signature.p_order
        if name not in found
    ]


def _parents_hold(probe: Probe, declared: Mapping[str, Sequence[str]]) -> list[Finding]:
    """8: no distribution of p moves with a latent that was not declared its parent."""
    signature = probe.stack.functions.signature
    for child, names in declared.items():
        known = (*signature.p_order, "x")
        for name in (child, *names):
            if name not in known:
                raise ConfigError(f"parents names {name}, which is no variable of p; it has {', '.join(known)}.")
        hidden = [name for name in signature.p_parents[child] if name not in names]
        if hidden:
            raise ConfigError(
                f"{child} was declared to have the parents {', '.join(names) or 'none'}, but its distribution moves "
                f"with {', '.join(hidden)}; declare {', '.join(hidden)} too, or leave parents= away."
            )
    return []


CHECKS: tuple[Callable[[Probe], list[Finding]], ...] = (
    lawful, _repeatable, _rowwise, _blind_to_x, _used, normalised,
)  # fmt: skip
"""the checks that take a model alone; what other checks would read wrongly stands first"""

__all__ = ["CHECKS", "NOTHING_FOUND", "Checked", "Finding", "check", "evaluating"]
