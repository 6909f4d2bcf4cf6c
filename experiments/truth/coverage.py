"""Do intervals hold what they say, and is what is said surely so? Counted over repetitions on planted stacks.

A repetition draws n images, further images, and all noise anew, and makes every interval that a diagnosis makes.
What an interval is to cover is one of `COVERS`. "Surely" is false where an interval lies on one side of epsilon and the
truth on the other. The statements are those of the rule: collapsed, active, noise only, unread. Nats.
"""

import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hvae.diagnostics import rates, units, usage
from hvae.diagnostics.certain import crossed_interval, share_above
from hvae.diagnostics.critic import decoder_use
from hvae.diagnostics.draws import Sampler, per_datum
from hvae.diagnostics.gap import split_gap
from hvae.diagnostics.information import information
from hvae.diagnostics.marginals import Sampling
from hvae.diagnostics.terms import Term
from hvae.evidence import HVAE, Evidence
from hvae.exact.known_stacks import linear_stack
from hvae.exact.linear_gaussian import LinearGaussian
from hvae.experiments.truth.accuracy import columns
from hvae.experiments.truth.planted import Link, Pixel, Planted
from hvae.families import DiagonalGaussian, kl
from hvae.lab.evaluation.replicas import Arrays, Say
from hvae.likelihood.annealing import Annealing, anneal
from hvae.likelihood.target import from_encoder
from hvae.nets import Root
from hvae.network import BeliefNetwork, Conditional
from hvae.numerics import FloatArray, log_mean_exp, mean_interval
from hvae.posterior import NetworkPosterior

EPSILON = 0.1
LAYERS = ("z1", "z2")
SHARE = 0.05
"""a code that fewer images bear is outside what the verdict says"""
FEWEST_ACTIVE, FEWEST_ABSENT = 20, 72
"""images from which on a layer may be called active; and those from which on something may be called absent"""
N_OTHERS = 256
ITS_BOUNDS = "model knock-out, its bounds"
"""the same interval, against the mean of the difference of two bounds L_8 that it is made of"""
MANY = 2**17
N_PATHS = 8
IMAGES = 4096
"""images at once: bounds the memory"""
LOWER = ("V", "L_8", "annealed bound")
"""bounds from below: their low end is to be below the truth"""
COVERS = {True: "low end below the truth", False: "truth within"}
SAID = "a statement"
"""rows whose `covered` is how often it was said, `falsely_above` how often falsely, `truth` whether it is true"""

Ends = tuple[float, float]
Interval = Callable[..., FloatArray]


@dataclass(frozen=True)
class Effort:
    """What V and the nested bounds take at n images."""

    n_alternatives: int
    n_walks: int
    max_paths: int


@dataclass
class Tally:
    """Counts of one kind of interval in one cell.

    >>> tally = Tally("I", truth=0.12)
    >>> tally.add(np.array([[0.0, 0.2], [0.0, 0.09], [0.13, 0.3], [0.0, 0.2]]))
    >>> [tally.row()[key] for key in ("covered", "falsely_below", "falsely_above")]
    [0.5, 0.25, 0.0]
    """

    quantity: str
    truth: float
    counts: Counter[str] = field(default_factory=Counter)

    def add(self, ends: FloatArray, truth: FloatArray | float | None = None) -> None:
        """More intervals ``[R, 2]``; ``truth [R]`` where it differs between repetitions."""
        truth = self.truth if truth is None else truth
        low, high = ends.T
        if self.quantity in LOWER:
            high = high + np.inf
        slack = 1e-9 * (1 + np.abs(truth))  # rounding, where an interval is a point
        self.counts["n"] += len(ends)
        self.counts["low"] += np.count_nonzero(low > truth + slack)
        self.counts["high"] += np.count_nonzero(high < truth - slack)
        self.counts["above"] += np.count_nonzero((low > EPSILON) & (truth < EPSILON))
        self.counts["below"] += np.count_nonzero((high < EPSILON) & (truth > EPSILON))

    def row(self) -> dict[str, Any]:
        """Shares of the repetitions."""
        n = self.counts["n"]
        low, high, above, below = (self.counts[key] / n for key in ("low", "high", "above", "below"))
        return {
            "quantity": self.quantity, "covers": COVERS[self.quantity in LOWER], "truth": self.truth,
            "repetitions": n, "covered": 1 - low - high, "low_too_high": low, "high_too_low": high,
            "falsely_above": above, "falsely_below": below,
        }  # fmt: skip


def coverage_rows(
    cells: Iterable[tuple[Planted, Pixel, int]],
    effort: Effort,
    repetitions: int,
    say: Say,
    interval: Interval = mean_interval,
) -> Arrays:
    """One row per stack, pixel, number n of images, layer, and kind of interval or statement.

    ``interval`` makes the ends of a mean over images; the tests break it on purpose.
    """
    rows = []
    for stack, pixel, n in cells:
        say(f"coverage of {stack.inference}, {stack.name}, {pixel.name}, n = {n}")
        rows += _cell(stack, pixel, n, effort, repetitions, interval)
    return columns(rows)


def _cell(
    stack: Planted, pixel: Pixel, n: int, effort: Effort, repetitions: int, interval: Interval
) -> list[dict[str, Any]]:
    model, source = built(stack), np.random.default_rng([n, *f"{stack.inference} {stack.name} {pixel.name}".encode()])
    tallies: dict[tuple[str, str], Tally] = {}
    said: Counter[tuple[str, str]] = Counter()
    at_once = max(1, min(repetitions, IMAGES // n))
    for first in range(0, repetitions, at_once):
        x = torch.as_tensor(pixel.draw(source, at_once * (n + N_OTHERS)).reshape(at_once, n + N_OTHERS, 1))
        found = intervals(model, x[: repetitions - first, :n], x[: repetitions - first, n:], first, effort, interval)
        for (layer, quantity), ends in found.items():
            if (layer, quantity) not in tallies:
                tallies[layer, quantity] = Tally(quantity, _truth(stack, pixel, layer, quantity))
            tallies[layer, quantity].add(ends)
        for layer in LAYERS:
            of_layer = {quantity: ends for (of, quantity), ends in found.items() if of == layer}
            said.update((layer, statement) for statement in stated(of_layer, n))
    here = {
        "inference": stack.inference,
        "stack": stack.name,
        "pixel": pixel.name,
        "n": n,
        "counted": pixel.share >= SHARE,
    }
    rows = [{**here, "layer": layer, **tally.row()} for (layer, _), tally in tallies.items()]
    for layer in LAYERS:
        for statement, holds in truths(stack, layer, pixel).items():
            share = said[layer, statement] / repetitions
            wrong = 0.0 if holds else share
            row = Tally(statement, float(holds), Counter(n=repetitions)).row()
            rows.append({**here, "layer": layer, **row, "covers": SAID, "covered": share, "falsely_above": wrong})
    return rows


def _truth(stack: Planted, pixel: Pixel, layer: str, quantity: str) -> float:
    if quantity == "share of images":
        return stack.share_beyond(layer, EPSILON, pixel)
    return _mean_of_bounds(stack, pixel, layer) if quantity == ITS_BOUNDS else stack.truth(layer, quantity, pixel)


@cache
@torch.no_grad()
def _mean_of_bounds(stack: Planted, pixel: Pixel, layer: str) -> float:
    """The model knock-out's own mean, of `MANY` images: SE 3 % of the half width of an interval at 512."""
    x = torch.as_tensor(pixel.draw(np.random.default_rng(0), MANY)).unsqueeze(-1)
    sampler = Sampler(built(stack), x, seed=2**20)
    return float(usage.model_knockout(sampler, sampler.evidence(N_PATHS, "truth"), layer, "truth").mean())


STATEMENTS = ("collapsed", "active", "codes noise only", "coded but unread")


def truths(stack: Planted, layer: str, pixel: Pixel) -> dict[str, bool]:
    """Which statements are true of a layer: of its share of images, what is used, coded, and coded of x."""
    i, j, v, child = (stack.truth(layer, quantity, pixel) for quantity in ("I", "J", "V", "child"))
    return {
        "collapsed": stack.share_beyond(layer, EPSILON, pixel) < SHARE,
        "active": v > EPSILON,
        "codes noise only": j > EPSILON > i,
        "coded but unread": i > EPSILON > child,
    }


def stated(ends: Mapping[str, FloatArray], n: int) -> list[str]:
    """What the rule says of a layer, from its intervals ``[R, 2]`` on n images, in each repetition."""
    v, j, i, u = (ends[quantity].T for quantity in ("V", "J", "I", "U"))
    collapsed = ends["share of images"][:, 1] < SHARE
    active = (n >= FEWEST_ACTIVE) & (v[0] > EPSILON)
    noise = (n >= FEWEST_ABSENT) & (j[0] > EPSILON) & (i[1] < EPSILON)
    unread = (n >= FEWEST_ABSENT) & (i[0] > EPSILON) & (u[1] < EPSILON)
    found: list[str] = np.select([collapsed, active, noise, unread], STATEMENTS, "undecided").tolist()
    return found


@torch.no_grad()
def intervals(
    model: HVAE, x: Tensor, others: Tensor, seed: int, effort: Effort, interval: Interval = mean_interval
) -> dict[tuple[str, str], FloatArray]:
    """(layer, quantity) -> ends ``[R, 2]`` of every interval of a diagnosis, on R sets of n images ``x [R, n, 1]``.

    Whatever is a term of an image, or of a pair, is made of all R n images at once: the same terms, as n is even.
    What depends on the whole set, V's critic and the mixtures of I and J, is made set by set.
    """
    n_sets, n = x.shape[:2]
    sampler = Sampler(model, x.flatten(0, 1), seed)
    evidence = sampler.evidence(N_PATHS, "diagnostics")
    read = usage.use(sampler, evidence)
    found: dict[tuple[str, str], FloatArray] = {}
    for name in LAYERS:
        of_rates, site = rates.rates(evidence, name), evidence.q[name]
        one, other = (mean.reshape(n_sets, n) for mean in units.mean_variance(site, n_sets * n))
        if not model.bottom_up:
            other = units.residual(evidence, name).reshape(n_sets, n)
        of_units = [
            ("Burda's variance", one, one),
            ("twins", one, other) if model.bottom_up else ("residual", other, other),
        ]
        lost = usage.model_knockout(sampler, evidence, name, "diagnostics")
        terms = {
            "rate": of_rates["rate_nats"],
            "KL to N(0, I)": of_rates["kl_standard_nats"],
            "encoder knock-out": usage.encoder_knockout(sampler, evidence, name),
            "model knock-out": lost,
            ITS_BOUNDS: lost,
        }
        if name == "z1":
            terms["L_8"] = per_datum(log_mean_exp(evidence.log_weight, 0).unsqueeze(0), n_sets * n)
        found |= {(name, what): interval(values.reshape(n_sets, n)) for what, values in terms.items()}
        found[name, "U"] = interval(read[name].reshape(n_sets, n), clusters=sampler.pairs[:n])
        found |= {(name, what): _covariances(a, b) for what, a, b in of_units}
        above = [int(count) for count in (_own_divergence(model, evidence, name, n_sets) > EPSILON).sum(1)]
        found[name, "share of images"] = np.array([share_above(count, n) for count in above])
    for key in [(name, what) for name in LAYERS for what in ("V", "I", "J")]:
        found[key] = np.empty((n_sets, 3))
    for row in range(n_sets):
        one_set = Sampler(model, x[row], seed + row)
        used = decoder_use(
            one_set,
            one_set.evidence(1, "use"),
            others[row],
            n_alternatives=effort.n_alternatives,
            n_walks=effort.n_walks,
        )
        carried = information(one_set, epsilon=EPSILON, max_paths=effort.max_paths)
        for name in LAYERS:
            found[name, "V"][row] = interval(used[name].terms)
            found[name, "I"][row], found[name, "J"][row] = carried[name].about_datum, carried[name].from_parent
    return {key: found_[:, [0, 2]] for key, found_ in found.items()}


def _covariances(a: FloatArray, b: FloatArray) -> FloatArray:
    """Set by set ``[R, 3]``: sets stand where units do."""
    return units.covariance_interval(a, b, len(a))


def _own_divergence(model: HVAE, evidence: Evidence, name: str, n_sets: int) -> FloatArray:
    """``[R, n]``: from p(z_l | z_{>l}) where q visits the layers above first, else from the moment match of all."""
    site, n_images = evidence.q[name], evidence.p["x"].value.shape[1]
    terms = kl(site.distribution, site.family.match(site.distribution)) if model.bottom_up else evidence.kl(name)
    return per_datum(terms, n_images).reshape(n_sets, -1)


def built(stack: Planted) -> HVAE:
    """The stack in the core's modules, float64."""
    decoder = BeliefNetwork([_conditional(name, link) for name, link in stack.p.items()])
    posterior = NetworkPosterior(BeliefNetwork([_conditional(name, link) for name, link in stack.q.items()]))
    return HVAE(decoder, posterior).requires_grad_(False).eval()


def _conditional(name: str, link: Link) -> Conditional:
    outputs = torch.tensor([0.0, math.log(link.variance)], dtype=torch.float64)
    if not link.weights:
        return Conditional(name, [], Root(outputs, learned=False), DiagonalGaussian(1))
    net = nn.Linear(len(link.weights), 2, dtype=torch.float64)
    with torch.no_grad():
        net.weight.copy_(torch.tensor([list(link.weights.values()), [0.0] * len(link.weights)]))
        net.bias.copy_(outputs)
    return Conditional(name, list(link.weights), net, DiagonalGaussian(1))


@torch.no_grad()
def gap_coverage_rows(
    pixels: Sequence[Pixel], sizes: Sequence[int], n_samples: int, repetitions: int, say: Say
) -> Arrays:
    """Gap terms and annealed bounds of a linear stack, on images of its decoder times a pixel.

    A gap term is of the n images that it was measured on, against their exact gap. The annealed bound is of images at
    large, against the mean of log p(x), which has the moments of the decoder's images for every pixel. Terms are made
    of many sets at once; so the proposals are chosen once for all of them.
    """
    stack, rows = linear_stack(1.0, "best", seed=0, widths=(4, 2, 2)), []
    assert isinstance(stack.reference, LinearGaussian)
    mean, covariance = stack.reference.marginal(["x"])
    root, width = torch.linalg.cholesky(covariance), len(mean)
    log_px = -(width * math.log(2 * math.pi * math.e) + float(covariance.logdet())) / 2
    for pixel in pixels:
        for n in sizes:
            say(f"coverage of gaps, {pixel.name}, n = {n}")
            source = np.random.default_rng([n, *pixel.name.encode()])
            tallies = {(name, "gap"): Tally("gap", math.nan) for name in LAYERS}
            tallies["x", "annealed bound"] = Tally("annealed bound", log_px)
            at_once = max(1, min(repetitions, IMAGES // n))
            for first in range(0, repetitions, at_once):
                n_sets = min(at_once, repetitions - first)
                size = np.ones(n_sets * n) if pixel.name == "Gaussian" else pixel.draw(source, n_sets * n)
                x = mean + torch.as_tensor(source.normal(size=(n_sets * n, width)) * size[:, None]) @ root.mT
                gap = split_gap(stack.model, x, 4, Sampling(n_samples, first, proposals=("q", "widened")))
                exact = stack.reference.gaps(stack.model.posterior, x)
                for name, layer in gap.layers.items():
                    truth = exact.layers[name].numpy().reshape(n_sets, n).mean(1)
                    tallies[name, "gap"].add(np.array([_of_set(layer.term, row, n) for row in range(n_sets)]), truth)
                annealed = anneal(from_encoder(stack.model, x), Annealing(8, 8, 2), first).estimate.log_px
                tallies["x", "annealed bound"].add(mean_interval(annealed.reshape(n_sets, n))[:, [0, 2]])
            here = {"inference": "bottom-up", "stack": "known", "pixel": pixel.name, "n": n, "counted": False}
            rows += [{**here, "layer": layer, **tally.row()} for (layer, _), tally in tallies.items()]
    return columns(rows)


def _of_set(term: Term, row: int, n: int) -> Ends:
    """The ends of the interval of one set's images."""
    own = slice(row * n, (row + 1) * n)
    parts = {"datum_nats": term.datum_nats[own], "standard_error": term.standard_error[own], "bias": term.bias[own]}
    low, _, high = dataclasses.replace(term, **parts).interval()
    return low, high


def crossed_rows(pixels: Sequence[Pixel], sizes: Sequence[int], repetitions: int, say: Say) -> Arrays:
    """Means of tables ``[S, n]``, S = 4 seeds on the same images, and paired differences of two; the truth is 0."""
    rows = []
    for pixel in pixels:
        say(f"coverage over seeds and images, {pixel.name}")
        for n in sizes:
            for kind, of_images, of_seeds in (("L over seeds", 30.0, 0.2), ("difference of L over seeds", 3.7, 0.3)):
                source = np.random.default_rng([n, *f"{kind} {pixel.name}".encode()])
                tables = of_images * pixel.draw(source, repetitions * n).reshape(repetitions, 1, n)
                tables = tables + of_seeds * source.normal(size=(repetitions, 4, 1))
                tables = tables + source.normal(size=(repetitions, 4, n))
                tally = Tally(kind, 0.0)
                tally.add(np.array([crossed_interval(table) for table in tables])[:, [0, 2]])
                here = {"inference": "any", "stack": "tables", "pixel": pixel.name, "n": n, "counted": False}
                rows.append({**here, "layer": "x", **tally.row()})
    return columns(rows)
