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
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, constraints

from hvae.errors import ConfigError, NotMeasuredError
from hvae.families.logistic import LevelsDistribution
from hvae.foreign.agreement import compare_own_elbo, laws_agree
from hvae.foreign.finding import Finding
from hvae.foreign.kinds import Kind, measure_of, support_of
from hvae.foreign.laws import Masked, elementwise
from hvae.foreign.model import Model
from hvae.foreign.probe import Difference, Probe
from hvae.foreign.stack import Stack
from hvae.foreign.visit import Landed
from hvae.rng import noise

REPEATS = 8
"""looks that are taken where random numbers were drawn, and the first two agree"""
NOTHING_FOUND = (
    "the door's checks found nothing at 16 rows; what they cannot see is a state fixed before the first call (data "
    "normalised by the first batch ever seen) and, without own_elbo, a constant, a scale or a sum that log_prob has "
    "wrong."
)


@dataclass(frozen=True)
class Checked:
    """What the checks of a model found, and how its first rows looked, to look again when all is measured.

    >>> from torch.distributions import Normal
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

    def drift(self) -> tuple[Finding, ...]:
        """Check 1 once more, for after the last measurement: empty if the model is still the same."""
        with torch.no_grad():
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


@contextmanager
def evaluating(model: Model) -> Iterator[None]:
    """Has ``model.module`` in evaluation mode, its weights without gradients; puts both back as they were.

    >>> net = nn.Dropout()
    >>> with evaluating(Model(print, print, module=net)):
    ...     net.training
    False
    >>> net.training
    True
    """
    if model.module is None:
        yield
        return
    modes = {part: part.training for part in model.module.modules()}
    gradients = {weight: weight.requires_grad for weight in model.module.parameters()}
    try:
        model.module.eval()
        model.module.requires_grad_(False)
        yield
    finally:
        for part, mode in modes.items():
            part.training = mode  # `train(mode)` would set its children too
        for weight, wanted in gradients.items():
            weight.requires_grad_(wanted)


def _repeatable(probe: Probe) -> list[Finding]:
    """1: the same noise twice, the generator of random numbers moved in between."""
    drew = False
    for seed in range(1, 1 + REPEATS):
        difference, drawn = probe.again(seed)
        if difference is not None:
            raise ConfigError(
                f"the same noise gave two results ({difference}): dropout or a draw of your own is at work, or a state "
                "that each call changes; net.eval(), or hand it as module=; a gate that belongs to the model is visited "
                "in infer and generate."
            )
        drew |= drawn
        if not drew:
            return []
    return [
        Finding(
            "random numbers are drawn outside of visit, without an effect that was seen: if they are dropout of a small "
            "rate, the numbers are not those of one model; net.eval() tells."
        )
    ]


SOME = ((11, 3, 7), (14, 0, 9), (5, 12, 2), (8, 1, 15), (13, 6, 4, 10))
"""rows that are looked at among themselves: each row in other company"""
REVERSED = (6, 13, 2, 9, 0, 15, 4, 11, 8, 1, 14, 3, 10, 5, 12, 7)


def _rowwise(probe: Probe) -> list[Finding]:
    """2: rows among themselves, and in another order. Never a row alone, which batch norm refuses."""
    if probe.blocks_only:
        names = ", ".join(sorted(probe.bound))
        return [
            Finding(
                f"whether rows depend on each other was not seen: {names} can only be drawn, and by blocks; hand `pull` "
                "to hvae.pushed.",
                names,
            )
        ]
    for some in SOME:
        rows = torch.tensor(some, device=probe.numbers.device)
        difference = probe.apart(probe.seen(rows), rows)
        if difference is not None:
            _refuse_company(difference, f"rows {', '.join(map(str, some))} among themselves are not what they are")
    rows = torch.tensor(REVERSED, device=probe.numbers.device)
    difference = probe.apart(probe.seen(rows), rows)
    if difference is not None:
        raise ConfigError(
            f"the same rows in another order give other results ({difference}): a table, a buffer of noise or a cache "
            "goes by the place or the number of rows; let every row depend on its own datum and context only."
        )
    return []


def _refuse_company(difference: Difference, what: str) -> None:
    raise ConfigError(
        f"{what} among 16 ({difference}): batch norm in training mode, a mean over the rows, a cache or a table by place "
        "makes a row depend on others; net.eval(), hand it as module=, and compute each row by itself."
    )


def _lawful(probe: Probe) -> list[Finding]:
    """4: finite, inside the support, and log q - log p of two densities or two masses on one set."""
    signature = probe.stack.functions.signature
    q, p = probe.laws["q"].q, probe.laws["p"].p
    findings = []
    for name, landed in q.items():
        kinds = signature.q_kinds[name], signature.p_kinds[name]
        findings += _one_measure(name, kinds, (landed, p[name]), probe)
    for name in signature.observed:
        values = probe.laws["p"].observed
        assert values is not None
        _observable(name, signature.p_kinds[name], p[name], values[name])
    for walk, landeds in (("q", q), ("p", p)):
        for name, landed in landeds.items():
            _refuse_not_finite(name, walk, landed.terms)
    return findings


def _one_measure(
    name: str, kinds: tuple[Kind, Kind], landed: tuple[Landed, Landed], probe: Probe
) -> list[Finding]:
    measures = [_measure(kind, place) for kind, place in zip(kinds, landed, strict=True)]
    (q_name, p_name), (q_law, p_law) = [kind.name for kind in kinds], landed
    if set(measures) == {"density", "mass"}:
        words = {"density": "a density", "mass": "a mass function"}
        discrete = q_name if measures[0] == "mass" else p_name
        raise ConfigError(
            f"{name}: q is {words[str(measures[0])]} ({q_name}), p {words[str(measures[1])]} ({p_name}); log q - log p "
            f"is no rate. Visit {discrete} in both, as at test time."
        )
    supports = [support_of(_distribution(kind, place)) for kind, place in zip(kinds, landed, strict=True)]
    if None not in supports and len({_is_simplex(support) for support in supports}) == 2:
        raise ConfigError(
            f"{name}: q ({q_name}) and p ({p_name}) are densities over different sets, one of them the simplex; log q - "
            "log p is no rate. Visit distributions of one support in both."
        )
    value = _outside(kinds[1], p_law, q_law.value)
    if value is not None:
        raise ConfigError(
            f"{name}: q ({q_name}) draws values outside the support of p ({p_name}), such as {value:.4g}; give q the "
            "support of p, by a transform such as exp or sigmoid, or by the distribution of p itself."
        )
    try:
        drawn, _ = kinds[1].draw(p_law.law, _noise_like(kinds[1], probe))
    except NotMeasuredError:
        return []
    if _outside(kinds[0], q_law, kinds[1].flat(drawn)) is None:
        return []
    return [
        Finding(
            f"{name}: p ({p_name}) draws values that q ({q_name}) never gives; the ELBO stays a bound, but no number of "
            "samples brings L_K to log p(x).",
            name,
        )
    ]


def _noise_like(kind: Kind, probe: Probe) -> Tensor:
    source = torch.Generator(probe.numbers.device).manual_seed(0)
    sampler = torch.randn if kind.family.noise == "normal" else torch.rand
    return sampler(len(probe.numbers), kind.family.noise_width, generator=source, device=probe.numbers.device)


def _distribution(kind: Kind, landed: Landed) -> Distribution:
    if isinstance(landed.law, Distribution):
        return landed.law
    rows = len(landed.terms)
    return kind.join([landed.law], [rows], torch.Size([rows]))


def _measure(kind: Kind, landed: Landed) -> str | None:
    if isinstance(landed.law, Distribution):
        return measure_of(landed.law)
    return "density" if kind.continuous else "mass"


def _is_simplex(support: constraints.Constraint | None) -> bool:
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    return support is constraints.simplex


def _outside(kind: Kind, landed: Landed, flat: Tensor) -> float | None:
    """One value outside the support; None where all lie inside, or nobody knows."""
    law = elementwise(_distribution(kind, landed))
    value = kind.shaped(flat) if isinstance(landed.law, Distribution) else flat
    if isinstance(law, Masked):
        law, value = law.distribution, law.inside(value)
    if isinstance(law, LevelsDistribution):
        steps = value * (law.n_levels - 1)
        inside = ((steps - steps.round()).abs() < 1e-3) & (value >= 0) & (value <= 1)
    else:
        support = support_of(law)
        if support is None:
            return None
        if _is_simplex(support):  # torch asks for a sum within 1e-6 of 1, which float32 breaks
            inside = (value >= 0) & ((value.sum(-1, keepdim=True) - 1).abs() < 1e-3)
        else:
            inside = support.check(value)
    if inside.all():
        return None
    wrong = value[~inside.reshape(*inside.shape, *(1,) * (value.ndim - inside.ndim)).expand(value.shape)]
    # of a row that is wrong as a whole, the entry that is the least like a whole number
    return float(wrong[(wrong - wrong.round()).abs().argmax()])


def _observable(name: str, kind: Kind, landed: Landed, values: Tensor) -> None:
    missing = values.isnan().any() if values.is_floating_point() else torch.tensor(False)
    if missing and not isinstance(landed.law, Masked) and landed.terms.isnan().any():
        raise ConfigError(
            f"{name} has missing values (NaN), which no density scores; visit hvae.masked(distribution, mask, "
            "fill=float('nan')), with the mask in the context."
        )
    value = _outside(kind, landed, values.reshape(len(values), -1))
    if value is not None:
        raise ConfigError(
            f"{name} has values outside the support of {kind.name}, such as {value:.4g}, so log p({name}) is of no "
            f"distribution of {name}; prepare {name} (binarise, scale, round), or visit a distribution of such values."
        )


def _refuse_not_finite(name: str, walk: str, terms: Tensor) -> None:
    wrong = ~terms.isfinite().all(-1)
    if wrong.any():
        first = terms[wrong].flatten()
        value = float(first[~first.isfinite()][0])
        raise ConfigError(
            f"the log-probability of {name} under {walk} is {value} in {int(wrong.sum())} of {len(terms)} rows; look at "
            "the parameters there: a scale that is 0, negative or overflows, or a probability of 0."
        )


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


def _normalised(probe: Probe) -> list[Finding]:
    """Batch norm: statistics that were never updated, or that are not those of the data."""
    norms = {
        name: part
        for name, part in probe.stack.module.named_modules()
        if isinstance(part, nn.modules.batchnorm._BatchNorm) and part.running_mean is not None
    }
    if not norms:
        return []
    distances = _distances(probe, norms)
    findings = []
    for name, part in norms.items():
        if part.num_batches_tracked is not None and int(part.num_batches_tracked) == 0:
            findings.append(
                Finding(
                    f"batch norm {name} has seen no batch in training: its mean 0 and variance 1 are not of your data; "
                    "train it, or let it see the training data once in training mode."
                )
            )
        elif distances.get(name, 0.0) > max(FAR, 3 / probe.stack.functions.shelf.first ** 0.5):
            findings.append(
                Finding(
                    f"batch norm {name}: its running mean is {distances[name]:.2f} standard deviations from the mean of "
                    "these data; let it see the training data once more in training mode."
                )
            )
    return findings


FAR, BATCH = 0.5, 256
"""standard deviations between running and own mean that are doubted, and the data that show them"""


def _distances(probe: Probe, norms: Mapping[str, nn.Module]) -> dict[str, float]:
    """Distance between the running means and those of what passes, in running deviations, mean square over channels."""
    found: dict[str, float] = {}
    stack, device = probe.stack, probe.numbers.device
    numbers = torch.arange(min(BATCH, stack.functions.shelf.first), device=device)

    def hook(name: str) -> Callable[[nn.Module, Any], None]:
        def note(part: Any, given: Any) -> None:
            if len(given[0]) < len(numbers):  # the last block of all data that are encoded may be a single row
                return
            axes = [axis for axis in range(given[0].ndim) if axis != 1]
            off = (given[0].float().mean(axes) - part.running_mean) / (part.running_var + part.eps).sqrt()
            found[name] = max(found.get(name, 0.0), float(off.square().mean().sqrt()))

        return note

    drawn = noise(stack.noise_specs(), 1, len(numbers), seed=0, purpose="batch norm", device=str(device),
                  dtype=stack.functions.signature.dtype)  # fmt: skip
    handles = [part.register_forward_pre_hook(hook(name)) for name, part in norms.items()]
    try:
        stack.functions.shelf.encoded_now(numbers)
        stack.visit(stack.numbers[: len(numbers)].unsqueeze(0), drawn)
    finally:
        for handle in handles:
            handle.remove()
    return found


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
    _lawful, _repeatable, _rowwise, _blind_to_x, _used, _normalised,
)  # fmt: skip
"""the checks that take a model alone; what other checks would read wrongly stands first"""
