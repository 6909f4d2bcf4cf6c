"""log p(x) as the mean of a weight over standard normal noise: the form that every estimator here works on.

A draw of the latents is a function z = g(ε) of noise ε ~ N(0, I) (`hvae.families`). With r the density of z, the weight

    w(ε) = p(x, z) / r(z),    z = g(ε),    E_N(0,I) w(ε) = p(x),

makes importance sampling a mean of w, annealing a path N(ε; 0, I) · w(ε)^β from β = 0 to 1, and the posterior
the density N(ε; 0, I) · w(ε) / p(x). In these whitened coordinates all latents of any depth are about N(0, I),
which keeps Hamiltonian moves well conditioned. g is the encoder (`from_encoder`), the decoder itself
(`from_prior`, where w = p(x|z)), or either followed by an affine map of the noise (`Target.moved`). With some
latents given, the mean is p(x, given), the evidence that the gap of a layer needs (`hvae.diagnostics.rest`).

Only stacks of Gaussian latents have such a form; others are refused.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from hvae import rng
from hvae.errors import NotMeasuredError
from hvae.evidence import HVAE
from hvae.network import Decoder
from hvae.rng import NoiseSpecs
from hvae.shapes import LogProb, Noise


class NotWhitenedError(NotMeasuredError):
    """Latents that are no function of normal noise; the message names them.

    >>> from hvae.exact.known_stacks import binary_decoder
    >>> from_prior(binary_decoder(1.0, (3, 2), torch.Generator()), torch.zeros(1, 3))  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    hvae.likelihood.target.NotWhitenedError: z1 is discrete, and annealing needs Gaussian latents; ...
    """


@dataclass(frozen=True)
class Target:
    """``log w`` as a function of noise ``[K, B, D]``, with ``E_N(0,I) w = p(x)`` for each of B data.

    >>> from hvae.exact.known_stacks import linear_stack
    >>> stack = linear_stack(1.0, "best", seed=0, widths=(6, 1))  # q is the exact posterior: w = p(x) everywhere
    >>> target = from_encoder(stack.model, stack.x)
    >>> torch.allclose(target.log_weight(target.noise(5, seed=0, purpose="example")), stack.reference.log_px(stack.x))
    True
    """

    log_weight: Callable[[Noise], LogProb]
    """ε [K, B, D] -> log w(ε) [K, B]"""
    specs: NoiseSpecs
    """variable -> (kind, width): its stretch of ε, in this order"""
    like: Tensor
    """x ``[B, D]``: how many data, where they lie, of what dtype"""

    @property
    def n_data(self) -> int:
        """B."""
        return len(self.like)

    @property
    def width(self) -> int:
        """D: numbers of noise for one draw of all free latents."""
        return sum(width for _, width in self.specs.values())

    def saved(self) -> int:
        """Numbers that a gradient saves for a draw of a datum, weights aside: those of two draws less those of one."""

        def of(n_samples: int) -> int:
            n_saved = 0

            def pack(tensor: Tensor) -> Tensor:
                nonlocal n_saved
                n_saved += tensor.numel()
                return tensor

            leaf = self.noise(n_samples, seed=0, purpose="saved").requires_grad_()
            with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
                self.log_weight(leaf)
            return n_saved

        return (of(2) - of(1)) // self.n_data

    def noise(self, n_samples: int, *, seed: int, purpose: str, step: int = 0) -> Noise:
        """Standard normal ``[K, B, D]``, a function of the key."""
        specs: NoiseSpecs = {"noise": ("normal", self.width)}
        return rng.noise(
            specs, n_samples, self.n_data,
            seed=seed, purpose=purpose, step=step, device=str(self.like.device), dtype=self.like.dtype,
        )["noise"]  # fmt: skip

    def split(self, noise: Noise) -> dict[str, Noise]:
        """The stretch of each variable."""
        return split(noise, self.specs)

    def moved(self, shift: Tensor, scale_tril: Tensor) -> "Target":
        """The same evidence with proposals η = shift + C ε, for shift ``[B, D]`` and C lower triangular ``[B, D, D]``.

        ``log w'(ε) = log w(η) + log N(η; 0, I) - log N(ε; 0, I) + log det C``.
        """
        log_det = scale_tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)

        def log_weight(noise: Noise) -> LogProb:
            eta = move(noise, shift, scale_tril)
            return self.log_weight(eta) + (noise.square().sum(-1) - eta.square().sum(-1)) / 2 + log_det

        return Target(log_weight, self.specs, self.like)


def move(noise: Noise, shift: Tensor, scale_tril: Tensor) -> Noise:
    """``shift + C ε`` for each datum: ``[K, B, D]``."""
    return shift + torch.einsum("bij,kbj->kbi", scale_tril, noise)


def split(noise: Noise, specs: NoiseSpecs) -> dict[str, Noise]:
    """Stretches of ``[..., D]`` by name."""
    return dict(zip(specs, noise.split([width for _, width in specs.values()], dim=-1), strict=True))


def from_encoder(model: HVAE, x: Tensor) -> Target:
    """Proposal q(z | x) for `x [B, D]`: ``w = p(x, z) / q(z | x)``."""
    specs, observed = _normal(model.noise_specs()), x.unsqueeze(0)

    def log_weight(noise: Noise) -> LogProb:
        return model.weigh(model.infer(observed, split(noise, specs)), observed).log_weight

    return Target(log_weight, specs, x)


def from_prior(decoder: Decoder, x: Tensor) -> Target:
    """Proposal p(z) for `x [B, D]`: ``w = p(x | z)``."""
    specs = _normal({name: spec for name, spec in decoder.noise_specs().items() if name != "x"})
    observed = {"x": x.unsqueeze(0)}

    def log_weight(noise: Noise) -> LogProb:
        return decoder.walk(observed, split(noise, specs))["x"].log_prob.double()

    return Target(log_weight, specs, x)


def _normal(specs: NoiseSpecs) -> NoiseSpecs:
    discrete = [name for name, (kind, _) in specs.items() if kind != "normal"]
    if discrete:
        raise NotWhitenedError(
            f"{' and '.join(discrete)} {'is' if len(discrete) == 1 else 'are'} discrete, and annealing needs Gaussian "
            "latents; use the exact reference for a small discrete stack, or importance sampling."
        )
    return specs
