"""Flow families: normal noise pushed through an invertible net, then scaled and shifted as a Gaussian's.

    v = mean + s · T⁻¹(noise),    log q(v) = log N(T(w); 0, I) + log |det ∂T/∂w| - sum log s,    w = (v - mean)/s,

with mean and s from the outputs of the parent's net, which T sees too. T is zuko's: masked autoregressive flow
(Papamakarios et al. 2017) or neural spline flow (Durkan et al. 2019), which acts on |w| < 5. T works on w, so the
scale of the layer does not matter, and starts as the identity: a flow layer starts as the diagonal Gaussian one.
"""

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from hvae.extras import need
from hvae.families.family import Family
from hvae.families.gaussian import DiagonalGaussian, DiagonalNormal, VarianceKind
from hvae.families.general import DistributionOfOutputs, GeneralFamily, averaged, fixed_noise, with_its_weights
from hvae.rng import NoiseKind
from hvae.shapes import LogProb, Noise, Outputs, Value

FLOWS = ("maf", "nsf")
"""those of zuko that run under vmap; its NICE, GF, BPF, NAF and CNF do not"""


class FlowDistribution(DistributionOfOutputs):
    """The distribution of `Flow`."""


class Flow(GeneralFamily):
    """``n_transforms`` transforms of zuko's flow ``kind``, with ``n_hidden`` hidden units each, around a Gaussian.

    ``outputs = [what `DiagonalGaussian` reads | n_hidden numbers of context]``. Scoring and `noise_of` take one pass of
    each transform, drawing D of them. Raises ValueError for a kind that does not run under vmap, and
    `MissingExtraError` without zuko.

    >>> import torch
    >>> from hvae import Flow
    >>> family = Flow(2, "maf", n_hidden=4, n_transforms=1, source=torch.Generator().manual_seed(0))
    >>> family.draw(family.distribution(torch.zeros(8)), torch.tensor([1.0, -1.0])).tolist()  # at first the identity
    [1.0, -1.0]
    """

    noise: NoiseKind = "normal"
    reparametrised = True
    mean_noise: Tensor

    def __init__(
        self,
        units: int,
        kind: str,
        n_hidden: int,
        n_transforms: int,
        *,
        source: torch.Generator,
        variance: VarianceKind = "network",
    ) -> None:
        super().__init__()
        need("zuko", "Flow layers need")
        import zuko

        if kind not in FLOWS:
            raise ValueError(f"the flow is {kind!r}; give {' or '.join(FLOWS)}: zuko's others do not run under vmap.")
        if min(n_hidden, n_transforms) < 1:
            raise ValueError(f"n_hidden is {n_hidden} and n_transforms {n_transforms}; give at least 1 of each.")
        self.units = self.width = units
        self.gaussian = DiagonalGaussian(units, variance=variance)
        self.n_outputs = self.gaussian.n_outputs + n_hidden
        make = zuko.flows.MAF if kind == "maf" else zuko.flows.NSF
        flow: zuko.lazy.Flow = make(
            units, n_hidden, transforms=n_transforms, hidden_features=(n_hidden,), activation=nn.Tanh
        )
        self.transforms: nn.ModuleList = flow.transform.transforms  # without the base that zuko adds
        self.register_buffer("mean_noise", fixed_noise(self.noise, units), persistent=False)
        with torch.no_grad():
            for transform in self.transforms:
                *hidden, last = [weight for weight in transform.parameters() if weight.dim() == 2]
                for weight in hidden:
                    nn.init.xavier_uniform_(weight, generator=source)
                for weight in (last, *(bias for bias in transform.parameters() if bias.dim() == 1)):
                    weight.zero_()  # the identity, for both kinds

    @property
    def kin(self) -> Family:
        return self.gaussian

    def distribution(self, outputs: Outputs) -> Distribution:
        return FlowDistribution(outputs, self)

    def standard_outputs(self) -> Tensor:
        return torch.zeros(self.n_outputs)

    @with_its_weights
    def draw(self, distribution: DistributionOfOutputs, noise: Noise) -> Value:
        return self._draw(distribution, noise)

    @with_its_weights
    def noise_of(self, distribution: DistributionOfOutputs, value: Value) -> Noise:
        return self._pushed(distribution, value)[0]

    @with_its_weights
    def log_prob(self, distribution: DistributionOfOutputs, value: Value) -> LogProb:
        noise, log_det = self._pushed(distribution, value)
        return DiagonalNormal(torch.zeros_like(noise), torch.zeros_like(noise)).log_prob(noise) + log_det

    @with_its_weights
    @torch.no_grad()
    def mean(self, distribution: DistributionOfOutputs) -> Value:
        """Estimated by `N_MEAN_DRAWS` fixed draws; it carries no gradient."""
        return averaged(self.mean_noise, distribution.outputs.dim() - 1, lambda noise: self._draw(distribution, noise))

    def _split(self, distribution: DistributionOfOutputs) -> tuple[DiagonalNormal, Tensor]:
        """The Gaussian without the flow, and the context."""
        n = self.gaussian.n_outputs
        gaussian = self.gaussian.distribution(distribution.outputs[..., :n])
        assert isinstance(gaussian, DiagonalNormal)
        return gaussian, distribution.outputs[..., n:]

    def _draw(self, distribution: DistributionOfOutputs, noise: Noise) -> Value:
        gaussian, context = self._split(distribution)
        white = noise.expand(*torch.broadcast_shapes(context.shape[:-1], noise.shape[:-1]), self.units)
        for transform in reversed(self.transforms):
            white = transform(context).inv(white)
        return self.gaussian.draw(gaussian, white)

    def _pushed(self, distribution: DistributionOfOutputs, value: Value) -> tuple[Noise, LogProb]:
        """The noise of ``value``, and ``log |det ∂noise/∂value|``."""
        gaussian, context = self._split(distribution)
        noise, log_det = self.gaussian.noise_of(gaussian, value), -gaussian.log_variance.sum(-1) / 2
        for transform in self.transforms:
            noise, terms = transform(context).call_and_ladj(noise)
            log_det = log_det + terms
        return noise, log_det
