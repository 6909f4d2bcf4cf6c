"""The linear two-layer VAE of Dang et al. 2024, trained exactly, and our diagnostics of its optimum.

    p(z2) = N(0, η_enc² I), p(z1|z2) = N(U2 z2, η_dec² I), p(x|z1) = N(U1 z1, η_dec² I)
    q(z1|x) = N(W1 x, σ1² I), σ1 given;  q(z2|z1) = N(W2 z1, Σ2), Σ2 diagonal, learned or given
    B = E log p(x|z1) - β1 E rate_1 - β2 E rate_2                                   (`linear_training.stack_bound`)

x is given in the eigenbasis of its covariance, with deviations θ. Random V1 = W1 diag(θ) and U2 follow the gradient;
U1, W2 and Σ2 are at every point the best for them (variable projection, Golub and Pereyra 1973), with
M = V1 V1ᵀ + σ1² I and P = β1 U2ᵀ U2 / η_dec² + β2 I / η_enc²

    U1 = diag(θ) V1ᵀ M^-1,    W2 = β1 P^-1 U2ᵀ / η_dec²,    Σ2 = β2 / diag(P),

so all five stand still exactly where these two do. If all five moved, curvatures would differ by orders of magnitude
for small β2, and thousands of steps would not arrive. The strengths of the layers are λ, the singular values of V1, and
ω, those of U2 (`hvae.exact.two_layer`). Nats, float64.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hvae.diagnosis.sizes import Sizes
from hvae.evidence import HVAE
from hvae.exact import LinearGaussian
from hvae.experiments.shared.ascent import Values, lbfgs
from hvae.experiments.shared.linear.thresholds import TwoLayer, two_layer
from hvae.experiments.shared.linear.training import covariance, spectrum, stack_bound
from hvae.families import DiagonalGaussian
from hvae.lab.evaluation.replicas import Arrays, Say
from hvae.measuring import measure_layers
from hvae.nets import Root
from hvae.network import BeliefNetwork, Conditional
from hvae.numerics import FloatArray
from hvae.posterior import NetworkPosterior

TOLERANCE = 1e-7
"""largest entry of the gradient at which a stack counts as trained, nats"""
N_STEPS = 5000
"""steps of L-BFGS at most"""
SCALE = 0.3
"""deviation of the first V1 and U2"""


@dataclass(frozen=True)
class Setting:
    """The fixed numbers of a stack."""

    sigma1: float
    eta_enc: float
    eta_dec: float
    beta1: float
    beta2: float
    sigma2: float | None = None
    """deviations of q(z2|z1), where Σ2 is given"""

    def optimum(self, theta: float) -> TwoLayer:
        """The mode of singular value ``theta``."""
        return two_layer(theta, self.sigma1, self.eta_enc, self.eta_dec, self.beta1, self.beta2, self.sigma2)

    def values(self, theta: Tensor, units: int) -> dict[str, Tensor]:
        """What it fixes, by the names of `linear_training`."""

        def log_variance(deviation: float) -> Tensor:
            return torch.tensor(2 * math.log(deviation)).double()

        found = {
            "xx": theta.double().square(),
            "beta": torch.tensor([self.beta1, self.beta2]).double(),
            "p0": log_variance(self.eta_dec),
            "p1": log_variance(self.eta_dec),
            "p2": log_variance(self.eta_enc),
            "q1": log_variance(self.sigma1).expand(units),
        }
        return found if self.sigma2 is None else found | {"q2": log_variance(self.sigma2).expand(units)}


def completed(w: Values) -> dict[str, Tensor]:
    """All values of one stack, of ``whitened`` (V1 `[units, D]`), ``u2 [units, units]`` and what a setting fixes.

    What is completed counts as constant: at its optimum it has no gradient, so that of the bound is the whole one.
    """
    theta, whitened, u2 = w["xx"].sqrt(), w["whitened"], w["u2"]
    beta1, beta2 = w["beta"][0], w["beta"][1]
    moment = whitened @ whitened.mT + torch.diag(w["q1"].exp())
    u1 = torch.linalg.solve(moment, whitened * theta).mT
    read = beta1 * (-w["p1"]).exp() * u2.mT
    precision = read @ u2 + beta2 * (-w["p2"]).exp() * torch.eye(u2.shape[-1]).to(u2)
    v2 = torch.linalg.solve(precision, read)
    q2 = w["q2"] if "q2" in w else beta2.log() - precision.diagonal().log()
    best = {"u1": u1.detach(), "v2": v2.detach(), "q2": q2.detach()}
    return {name: w[name] for name in w if name != "whitened"} | {"v1": whitened / theta} | best


def projected_bound(w: Values) -> Tensor:
    """B of one stack at the best U1, W2 and Σ2."""
    return stack_bound(completed(w))


@dataclass(frozen=True)
class Trained:
    """R stacks of one setting, from R random starts."""

    values: dict[str, Tensor]
    """all values `[R, …]` by the names of `linear_training`"""
    encoder: FloatArray
    """λ `[R, units]`, largest first"""
    decoder: FloatArray
    """ω `[R, units]`"""
    short: FloatArray
    """B of the closed form's optimum less B reached `[R]`"""
    gradient: FloatArray
    """largest entry of the gradient `[R]`, to be held against `TOLERANCE`"""


def train_two_layers(setting: Setting, theta: Sequence[float], units: int, seeds: Sequence[int]) -> Trained:
    """Train ``setting`` on data of deviations ``theta``, largest first and none 0, from each seed by itself."""
    deviations = torch.tensor(theta).double()
    modes = [setting.optimum(value) for value in _padded(theta, units)]
    best = {
        "whitened": torch.diag(torch.tensor([mode.encoder for mode in modes])).double(),
        "u2": torch.diag(torch.tensor([mode.decoder for mode in modes])).double(),
    }
    wider = torch.zeros(units, max(0, len(theta) - units)).double()
    best["whitened"] = torch.cat([best["whitened"][:, : len(theta)], wider], 1)
    constants = setting.values(deviations, units)
    fixed = {name: value.expand(len(seeds), *value.shape) for name, value in constants.items()}
    starts = [_start(len(theta), units, seed) for seed in seeds]
    free = {name: torch.stack([start[name] for start in starts]) for name in best}
    found = lbfgs(projected_bound, free, fixed, TOLERANCE, N_STEPS)
    values = torch.func.vmap(completed)(fixed | found.values)
    highest = projected_bound(constants | best)
    strengths = [torch.linalg.svdvals(found.values[name]) for name in ("whitened", "u2")]
    encoder = torch.nn.functional.pad(strengths[0], (0, units - strengths[0].shape[1]))
    return Trained(
        values, *(_array(found) for found in (encoder, strengths[1], highest - found.height, found.gradient))
    )


def _padded(theta: Sequence[float], units: int) -> list[float]:
    """The first ``units`` deviations, 0 for those that the data do not have."""
    return [*theta, *[0.0] * units][:units]


def _start(width: int, units: int, seed: int) -> dict[str, Tensor]:
    source = torch.Generator().manual_seed(seed)
    shapes = {"whitened": (units, width), "u2": (units, units)}
    return {name: SCALE * torch.randn(shape, generator=source, dtype=torch.float64) for name, shape in shapes.items()}


def strength_rows(
    cases: Sequence[tuple[Setting, Sequence[float]]], units: int, seeds: Sequence[int], say: Say
) -> Arrays:
    """N cases (a setting and the θ of its data), each trained from R seeds: strengths found and of the closed form.

    ``encoder, decoder [N, R, units]`` (λ, ω), ``expected_encoder, expected_decoder [N, units]``, ``theta [N, units]``,
    ``short_nats, gradient [N, R]``, the setting's numbers `[N]` (``sigma2`` NaN where Σ2 is learned), ``seeds [R]``.
    """
    rows: list[dict[str, Any]] = []
    for number, (setting, theta) in enumerate(cases, start=1):
        say(f"two linear layers, setting {number} of {len(cases)}")
        found = train_two_layers(setting, theta, units, seeds)
        padded = _padded(theta, units)
        modes = [setting.optimum(value) for value in padded]
        knobs = vars(setting) | {"sigma2": math.nan if setting.sigma2 is None else setting.sigma2}
        rows.append(
            {
                **knobs, "theta": padded, "encoder": found.encoder, "decoder": found.decoder,
                "expected_encoder": [mode.encoder for mode in modes],
                "expected_decoder": [mode.decoder for mode in modes],
                "short_nats": found.short, "gradient": found.gradient,
            }
        )  # fmt: skip
    return {name: np.array([row[name] for row in rows]) for name in rows[0]} | {"seeds": np.array(seeds)}


def deviations(images: Tensor) -> list[float]:
    """θ of data `[N, D]`: roots of the eigenvalues of their covariance (divided by N), largest first, but for those
    that are 0 up to rounding."""
    values = spectrum(images)
    kept: list[float] = values[values > 1e-9 * values[0]].sqrt().tolist()
    return kept


def model_strengths(model: HVAE, images: Tensor) -> tuple[FloatArray, FloatArray]:
    """λ and ω `[units]` of an `HVAE` with linear nets, on data `[N, D]`."""
    assert isinstance(model.posterior, NetworkPosterior)
    assert isinstance(model.decoder, BeliefNetwork)
    weights = [_weight(network["z1"].net).double() for network in (model.posterior.network, model.decoder)]
    squares = torch.linalg.eigvalsh(weights[0] @ covariance(images) @ weights[0].mT).flip(0).clamp(min=0)
    return _array(squares.sqrt()), _array(torch.linalg.svdvals(weights[1]))


def _weight(net: nn.Module) -> Tensor:
    """Of a net that is one linear layer."""
    layers = [module for module in net.modules() if isinstance(module, nn.Linear)]
    if len(layers) != 1:
        raise ValueError(f"a net of {len(layers)} linear layers has no one matrix; give a linear net.")
    return layers[0].weight.detach()


def as_hvae(w: Values) -> HVAE:
    """The stack of one replica's values as an `HVAE`, in float64."""
    decoder = BeliefNetwork(
        [
            Conditional(
                "z2", [], Root(torch.zeros(len(w["q2"])).double(), learned=False), _distribution(w["p2"], len(w["q2"]))
            ),
            Conditional("z1", ["z2"], _linear(w["u2"]), _distribution(w["p1"], len(w["q1"]))),
            Conditional("x", ["z1"], _linear(w["u1"]), _distribution(w["p0"], len(w["u1"]))),
        ]
    )
    upward = BeliefNetwork(
        [
            Conditional("z1", ["x"], _linear(w["v1"]), _distribution(w["q1"], len(w["q1"]))),
            Conditional("z2", ["z1"], _linear(w["v2"]), _distribution(w["q2"], len(w["q2"]))),
        ]
    )
    return HVAE(decoder, NetworkPosterior(upward))


def _linear(weight: Tensor) -> nn.Linear:
    net = nn.Linear(weight.shape[1], weight.shape[0], bias=False, dtype=torch.float64)
    with torch.no_grad():
        net.weight.copy_(weight)
    return net


def _distribution(log_variance: Tensor, units: int) -> DiagonalGaussian:
    family = DiagonalGaussian(units, variance="fixed").double()
    assert family.log_variance is not None
    family.log_variance.copy_(log_variance)
    return family


def verdict_rows(
    regimes: Mapping[str, tuple[Setting, Sequence[float]]], units: int, seeds: Sequence[int], n_images: int,
    max_paths: int, say: Say,
) -> Arrays:  # fmt: skip
    """Stacks trained in each of N regimes as `HVAE`: verdicts on R of each, and exact numbers.

    ``regime [N]``; for each layer z ``verdict/z [N, R]`` at 0.1 nats, ``information_nats/z`` and
    ``parent_information_nats/z [N, R, 3]`` (I(x; z) and what z holds of what q sees) as measured on ``n_images`` draws
    of the data, and ``exact_information_nats/z``, ``exact_parent_information_nats/z``, ``exact_rate_nats/z [N, R]``
    from the joint distribution.
    """
    rows: list[dict[str, Any]] = []
    for name, (setting, theta) in regimes.items():
        say(f"verdicts on two linear layers: {name}")
        found = train_two_layers(setting, theta, units, seeds)
        for replica, seed in enumerate(seeds):
            w = {key: value[replica] for key, value in found.values.items()}
            source = torch.Generator().manual_seed(seed)
            x = torch.randn(n_images, len(theta), generator=source, dtype=torch.float64) * torch.tensor(theta)
            sizes = Sizes(n_images=n_images, max_paths=max_paths, seed=seed)
            rows.append({**_judged(as_hvae(w), x, sizes), **_exact(w)})
    shape = (len(regimes), len(seeds))
    arrays = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    arrays = {name: values.reshape(*shape, *values.shape[1:]) for name, values in arrays.items()}
    return arrays | {"regime": np.array(list(regimes)), "seeds": np.array(seeds)}


def _judged(model: HVAE, x: Tensor, sizes: Sizes) -> dict[str, Any]:
    layers = measure_layers(model, x, sizes)
    kept = ("information_nats", "parent_information_nats", "rate_nats")
    words = {f"verdict/{layer.name}": str(layer.verdict[0, 1]) for layer in layers}
    return words | {f"{key}/{layer.name}": layer.interval(key)[0] for key in kept for layer in layers}


def _exact(w: Values) -> dict[str, float]:
    """I(x; z_l), I(z_{l-1}; z_l) and E rate_l of the joint distribution q of the data and both layers."""
    model, data = as_hvae(w), torch.diag(w["xx"])
    assert isinstance(model.decoder, BeliefNetwork)
    joint = LinearGaussian.of_posterior(model.decoder, model.posterior, torch.zeros(len(data)), data)
    first, second = (joint.marginal([name])[1] for name in ("z1", "z2"))
    missed = torch.eye(len(first)).to(first) - w["u2"] @ w["v2"]
    spread = (missed @ first @ missed.mT).trace() + (w["u2"].square() * w["q2"].exp()).sum()
    found = {}
    for name, parent, square in (("z1", "x", spread), ("z2", "z1", second.trace())):
        log_q, log_p = w[f"q{name[1]}"], w[f"p{name[1]}"]
        rate = ((-log_p).exp() * square - len(log_q) + (log_p - log_q).sum()) / 2
        found[f"exact_rate_nats/{name}"] = float(rate)
        found[f"exact_information_nats/{name}"] = joint.mutual_information(["x"], [name])
        found[f"exact_parent_information_nats/{name}"] = joint.mutual_information([parent], [name])
    return found


def _array(values: Tensor) -> FloatArray:
    found: FloatArray = values.numpy()
    return found
