"""log p(x) of each datum from below, to a wanted standard error, by the cheapest method that gets there.

    importance  draws of q(z|x)
    refined     draws of a Gaussian in q's noise, fitted to the datum, then frozen (`hvae.likelihood.refinement`)
    annealed    chains from that Gaussian to the posterior (`hvae.likelihood.annealing`)

*Every choice is made by draws that are not counted*: method and number of draws by pilots, the fit by draws of its own.
Given all of them the weights are unbiased for p(x), so the log of their mean is a lower bound in expectation, whatever
was chosen. Its own draws are looked at once, for its doubt. Were they also what stops it, it would be no bound: weights
of 0 or 2 stop where the twos came. Of the K draws behind the curve of L_k the first half is the pilot. The second is
the estimate where it suffices.

Cost is counted in evaluations of log w; a gradient is three. The budget of a datum is that of `Spending`. Layers whose
draws no gradient passes, discrete ones among them, have importance samples only.
"""

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from hvae.evidence import HVAE
from hvae.likelihood.annealing import N_TUNING, N_TUNING_CHAINS, Annealing, Path, run_forward, tune
from hvae.likelihood.estimate import Estimate
from hvae.likelihood.importance import CHUNK_DATA, Curve, DrawLogWeight, encoder_draws, importance_sample
from hvae.likelihood.refinement import DIAGONAL, FULL, WIDEST, Fitted
from hvae.likelihood.spending import ANNEALED, IMPORTANCE, MARGIN, REFINED, Bound, Found, Spending
from hvae.likelihood.target import NotWhitenedError, Target, from_encoder
from hvae.likelihood.weights import estimate
from hvae.numerics import FloatArray, IntArray
from hvae.shapes import LogProb
from hvae.vocabulary import FEWEST_SAMPLES, PARETO_K_LIMIT

N_PILOT = 200
"""draws of a refined proposal that choose how many count"""
FINITE_VARIANCE = 0.5
"""k-hat above which weights have no variance. The encoder's are not drawn on then: a fit is cheap"""
GRADIENT = 3
"""evaluations that a gradient costs"""
N_LEAPFROG = 2
FEWEST_TEMPERATURES, MOST_TEMPERATURES = 20, 100
FEWEST_CHAINS, USUAL_CHAINS = 32, 64
ROWS, NUMBERS, SAVED = 8192, 2**22, 2**27
"""draws of a call that takes gradients, numbers of noise in it, and numbers that it saves: this limits the memory"""


@torch.no_grad()
def cheapest_bound(
    model: HVAE, x: Tensor, n_samples: tuple[int, ...], spending: Spending, *, seed: int, chunk_data: int = CHUNK_DATA
) -> tuple[Curve, Bound]:
    """The curve of L_k, as `log_likelihood_curve` makes it, and the bound of every datum of ``x [N, D]``."""
    if len(x) == 0:
        raise ValueError("There are 0 data; give at least 1.")
    curves, pilots, counted = [], [], []
    for first in range(0, len(x), chunk_data):
        part = x[first : first + chunk_data]
        drawn: list[LogProb] = []
        draws = encoder_draws(model, part, seed=seed, first=first)
        curves.append(importance_sample(_kept(draws, drawn), n_samples))
        table = torch.cat(drawn).double()
        pilots.append(estimate(table[: spending.n_pilot] if spending.n_pilot else table))
        counted.append(estimate(table[spending.n_pilot :]))
    curve, pilot = Curve.joined(curves), Estimate.joined(pilots)
    found = Found(Estimate.joined(counted), spending)
    missing = np.flatnonzero(spending.needed(pilot, FINITE_VARIANCE) > spending.n_samples - spending.n_pilot)
    if spending.n_pilot and len(missing):
        _go_on(model, x, missing, curve.estimate, found, seed)
    return curve, found.bound


def _kept(draws: DrawLogWeight, into: list[LogProb]) -> DrawLogWeight:
    def draw_log_weight(chunk: int, k: int) -> LogProb:
        into.append(draws(chunk, k))
        return into[-1]

    return draw_log_weight


def _go_on(model: HVAE, x: Tensor, places: IntArray, pilot: Estimate, found: Found, seed: int) -> None:
    """Data for which the curve's draws do not suffice. All of those are their pilot now, and others count."""
    spending = found.spending
    needed = spending.needed(pilot, FINITE_VARIANCE)[places]
    width, saved, cost = _fit(model, x[places[:1]], found.left(places).min() / 2)
    by_importance = (needed <= cost) if cost else np.full(len(places), True)
    _draw(model, x, places[by_importance], needed[by_importance], found, seed)
    others = places[~by_importance]
    rows = max(1, min(ROWS, NUMBERS // max(1, width), SAVED // max(1, saved)))
    n_together = max(1, rows // (4 * width + 16 if width <= WIDEST else USUAL_CHAINS))
    parts = [part for part in np.split(others, range(n_together, len(others), n_together)) if len(part)]
    spread = [_refined(model, x, part, cost, found, seed, f"cheapest/{number}") for number, part in enumerate(parts)]
    rest = np.concatenate([places for places, _ in spread]) if spread else others
    if len(rest):
        fits = Fitted.joined([fit for _, fit in spread])
        for start in range(0, len(rest), n_together := max(1, rows // USUAL_CHAINS)):
            some = np.arange(start, min(start + n_together, len(rest)))
            _annealed(fits.of(some), rest[some], found, seed, f"cheapest/{start}/annealing")


def _fit(model: HVAE, x: Tensor, most: float) -> tuple[int, int, float]:
    """Of a draw: numbers of noise, and numbers that its gradient saves; and what a fit costs a datum.

    The cost is 0 where there is no fit, or it costs more than ``most``.
    """
    try:
        target = from_encoder(model, x)
    except NotWhitenedError:
        return 0, 0, 0.0
    full, diagonal = 4 * target.width + 16, DIAGONAL.n_steps * DIAGONAL.n_samples
    cost = GRADIENT * (FULL.n_iterations * full if target.width <= WIDEST else diagonal)
    fits = cost <= most and _differentiable(target)
    return target.width, target.saved() if fits else 0, float(cost) if fits else 0.0


def _differentiable(target: Target) -> bool:
    """Whether log w has a gradient. A user's model may leave the graph, and discrete parts have none."""
    with torch.enable_grad():
        leaf = target.noise(2, seed=0, purpose="cheapest/trial").requires_grad_()
        try:
            (gradient,) = torch.autograd.grad(target.log_weight(leaf).sum(), leaf)
        except (RuntimeError, NotImplementedError):
            return False
    return bool(gradient.isfinite().all())


def _draw(model: HVAE, x: Tensor, places: IntArray, needed: FloatArray, found: Found, seed: int) -> None:
    """Fresh draws of q(z|x), as many as are needed or can be paid."""
    for n, of in _alike(np.minimum(needed, found.left(places))):
        for part in np.split(places[of], range(CHUNK_DATA, len(of), CHUNK_DATA)):
            draws = encoder_draws(model, x[part], seed=seed, first=part.tolist(), purpose="cheapest")
            found.put(part, importance_sample(draws, (n,)).estimate, IMPORTANCE)
            found.evaluations[part] += n


def _alike(needed: FloatArray) -> Iterator[tuple[int, IntArray]]:
    """Numbers of draws, and the data that take as many: powers of 2 above what is needed, unless that is too much."""
    if len(needed):
        whole = np.maximum(FEWEST_SAMPLES, np.floor(needed)).astype(int)
        taken = np.minimum(2 ** np.ceil(np.log2(whole)).astype(int), whole.max())
        for n in np.unique(taken):
            yield int(n), np.flatnonzero(taken == n)


def _refined(
    model: HVAE, x: Tensor, places: IntArray, cost: float, found: Found, seed: int, purpose: str
) -> tuple[IntArray, Fitted]:
    """Fit, look at a few draws, then draw what counts. Answers the data whose draws spread too far, for chains."""
    fit = Fitted.to(model, x[places], seed, purpose)
    pilot = _draws_of(fit.target, N_PILOT, seed, f"{purpose}/pilot")
    found.evaluations[places] += cost + N_PILOT
    left = found.left(places)
    needed = found.spending.needed(pilot, PARETO_K_LIMIT)
    drawn = (needed <= left) if _annealing(left.min()) else np.full(len(places), True)
    where = np.flatnonzero(drawn)
    for n, of in _alike(np.minimum(needed, left)[where]):
        some = where[of]
        counted = _draws_of(fit.of(some).target, n, seed, f"{purpose}/counted/{n}")
        found.put(places[some], counted, REFINED)
        found.evaluations[places[some]] += n
    rest = np.flatnonzero(~drawn)
    return places[rest], fit.of(rest)


def _annealed(fit: Fitted, places: IntArray, found: Found, seed: int, purpose: str) -> None:
    """Tune, run a few chains that say how many count, then run those."""
    most = _annealing(found.left(places).min())
    assert most is not None
    target = fit.target
    path = tune(target, most, seed, purpose)
    pilot = run_forward(target, path, replace(most, n_chains=N_TUNING_CHAINS), seed, f"{purpose}/pilot")
    found.evaluations[places] += _tuning(most.n_temperatures) + _moves(most.n_temperatures, N_TUNING_CHAINS)
    variance = pilot.log_weight.var(0).nan_to_num(math.inf).cpu().numpy()
    with np.errstate(over="ignore"):
        needed = MARGIN * np.expm1(variance) / found.spending.until_se**2
    for n, some in _alike(needed.clip(FEWEST_CHAINS, most.n_chains)):
        steps = path.step_sizes[:, torch.as_tensor(some, device=path.step_sizes.device)]
        frozen, counted = Path(path.betas, steps), replace(most, n_chains=n)
        chains = run_forward(fit.of(some).target, frozen, counted, seed, f"{purpose}/counted/{n}")
        found.put(places[some], chains.estimate, ANNEALED)
        found.evaluations[places[some]] += _moves(most.n_temperatures, n)


def _draws_of(target: Target, n: int, seed: int, purpose: str) -> Estimate:
    """``n`` draws, as many at a time as memory allows."""
    most = max(1, min(n, ROWS // target.n_data, NUMBERS // (target.n_data * target.width)))
    sizes = [min(most, n - start) for start in range(0, n, most)]
    return estimate(
        torch.cat(
            [
                target.log_weight(target.noise(size, seed=seed, purpose=purpose, step=step))
                for step, size in enumerate(sizes)
            ]
        )
    )


def _annealing(left: float) -> Annealing | None:
    """The most that the evaluations that are left buy; None where they buy too little."""
    n = int(left // _moves(1, USUAL_CHAINS + 3 * N_TUNING_CHAINS))
    n_temperatures = min(MOST_TEMPERATURES, max(FEWEST_TEMPERATURES, n))
    spare = left - _tuning(n_temperatures) - _moves(n_temperatures, N_TUNING_CHAINS)
    n_chains = int(spare // _moves(n_temperatures, 1))
    return Annealing(n_temperatures, n_chains, N_LEAPFROG) if n_chains >= FEWEST_CHAINS else None


def _moves(n_temperatures: int, n_chains: int) -> int:
    """Evaluations of a run."""
    return GRADIENT * N_LEAPFROG * n_temperatures * n_chains


def _tuning(n_temperatures: int) -> int:
    """Of `tune`, which tries every temperature twice."""
    return 2 * _moves(min(N_TUNING, n_temperatures), N_TUNING_CHAINS)
