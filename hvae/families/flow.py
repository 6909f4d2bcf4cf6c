"""Flow families: normal noise pushed through an invertible net, then scaled and shifted as a Gaussian's.

    v = mean + s · T⁻¹(noise; context),    log q(v) = log N(T(w); 0, I) + log |det ∂T/∂w| - sum log s,  w = (v - mean)/s,

with mean, s and context from the outputs of the parent's net. T is zuko's: masked autoregressive flow (Papamakarios et
al. 2017) or neural spline flow (Durkan et al. 2019), which acts on |w| < 5. T works on w, where the mass lies
whatever the layer's scale, and starts as the identity: a flow layer starts as the diagonal Gaussian one.
"""

from collections.abc import Callable, Mapping

import torch
import zuko
from torch import Tensor, nn
from torch.distributions import Distribution

from hvae.families.gaussian import DiagonalGaussian, DiagonalNormal, VarianceKind
from hvae.families.general import N_MEAN_DRAWS, GeneralFamily, LawOfOutputs, fixed_noise
from hvae.rng import NoiseKind
from hvae.shapes import LogProb, Noise, Outputs, Value

FLOWS: Mapping[str, Callable[..., nn.Module]] = {"maf": zuko.flows.MAF, "nsf": zuko.flows.NSF}
"""those of zuko that run under vmap; its NICE, GF, BPF, NAF and CNF do not"""


class FlowLaw(LawOfOutputs):
    """Of `Flow`: ``gaussian`` is what it would be without the flow."""

    def __init__(self, outputs: Outputs, gaussian: DiagonalNormal, context: Tensor) -> None:
        super().__init__(outputs, gaussian.event_shape[-1])
        self.gaussian, self.context = gaussian, context


class Flow(GeneralFamily):
    """``n_transforms`` transforms of zuko's flow ``kind``, with ``n_hidden`` hidden units each, around a Gaussian.

    ``outputs = [what `DiagonalGaussian` reads | n_hidden numbers of context]``. Scoring and `noise_of` take one pass of
    each transform, drawing D of them. Raises ValueError for a kind that does not run under vmap.
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
        if kind not in FLOWS:
            raise ValueError(f"the flow is {kind!r}; give {' or '.join(FLOWS)}: zuko's others do not run under vmap.")
        if min(n_hidden, n_transforms) < 1:
            raise ValueError(f"n_hidden is {n_hidden} and n_transforms {n_transforms}; give at least 1 of each.")
        self.units = self.width = units
        self.gaussian = DiagonalGaussian(units, variance=variance)
        self.n_outputs = self.gaussian.n_outputs + n_hidden
        make = FLOWS[kind]
        made = make(units, n_hidden, transforms=n_transforms, hidden_features=(n_hidden,), activation=nn.Tanh)
        self.transforms = nn.ModuleList(made.transform)  # type: ignore[arg-type]  # without the base that zuko adds
        self.register_buffer("mean_noise", fixed_noise(self.noise, units), persistent=False)
        with torch.no_grad():
            for transform in self.transforms:
                layers = [module for module in transform.modules() if isinstance(module, nn.Linear)]
                for layer in layers:
                    nn.init.xavier_uniform_(layer.weight, generator=source)
                    layer.bias.zero_()
                layers[-1].weight.zero_()  # the identity, for both kinds

    def law(self, outputs: Outputs) -> Distribution:
        n = self.gaussian.n_outputs
        gaussian = self.gaussian.law(outputs[..., :n])
        assert isinstance(gaussian, DiagonalNormal)
        return FlowLaw(outputs, gaussian, outputs[..., n:])

    def standard_outputs(self) -> Tensor:
        return torch.zeros(self.n_outputs)

    def standard(self, like: Tensor) -> Distribution:
        return self.gaussian.standard(like)

    def draw(self, law: Distribution, noise: Noise) -> Value:
        law = _flow(law)
        batch = torch.broadcast_shapes(law.context.shape[:-1], noise.shape[:-1])
        white = noise.expand(*batch, self.units)
        for transform in reversed(self.transforms):
            white = transform(law.context).inv(white)
        return self.gaussian.draw(law.gaussian, white)

    def noise_of(self, law: Distribution, value: Value) -> Noise:
        return self._pushed(_flow(law), value)[0]

    def log_prob(self, law: Distribution, value: Value) -> LogProb:
        law = _flow(law)
        noise, log_det = self._pushed(law, value)
        return DiagonalNormal(torch.zeros_like(noise), torch.zeros_like(noise)).log_prob(noise) + log_det

    @torch.no_grad()
    def mean(self, law: Distribution) -> Value:
        """Estimated by `N_MEAN_DRAWS` fixed draws; it carries no gradient."""
        total = torch.zeros(())
        for noise in self.mean_noise:
            total = total + self.draw(law, noise)
        return total / N_MEAN_DRAWS

    def _pushed(self, law: FlowLaw, value: Value) -> tuple[Noise, LogProb]:
        """The noise of ``value``, and ``log |det ∂noise/∂value|``."""
        noise = self.gaussian.noise_of(law.gaussian, value)
        log_det = -law.gaussian.log_variance.sum(-1) / 2
        for transform in self.transforms:
            noise, terms = transform(law.context).call_and_ladj(noise)
            log_det = log_det + terms
        return noise, log_det


def _flow(law: Distribution) -> FlowLaw:
    assert isinstance(law, FlowLaw)
    return law
