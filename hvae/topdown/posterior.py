"""The posterior of a residual top-down decoder, which reads the decoder's own state.

    a = upward(x)                                     activations at every resolution, one pass
    q(z_l | h_l, a_l)                                 of the net of layer l, or its product with p(z_l | h_l)
    h_{l-1} = block_l(h_l, z_l)                       the decoder's

h is a function of the latents above, and the same one for p and q, so one walk computes it once for both.
"""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from hvae.errors import ConfigError
from hvae.families import Family
from hvae.grammar import after, mirrored, parse
from hvae.nets.convolutional import Convolution, Unfold
from hvae.network import Decoder, Site, Trace
from hvae.posterior import Merge, Posterior, alone
from hvae.rng import NoiseSpecs
from hvae.shapes import Noise, Value
from hvae.topdown.blocks import UpwardBlock
from hvae.topdown.decoder import ResidualDecoder, Stop


class Upward(nn.Module):
    """x ``[..., D]`` to activations ``[..., C, R, R]`` at every resolution R, those of the last block there.

    >>> from hvae import Bernoulli
    >>> decoder = ResidualDecoder((4, 4), "1x1,4m1", Bernoulli(16), source=torch.Generator())
    >>> upward = Upward(decoder, "4x1,4d4", nn.Identity(), source=torch.Generator())
    >>> {resolution: tuple(a.shape) for resolution, a in upward(torch.zeros(1, 5, 16)).items()}
    {4: (1, 5, 32, 4, 4), 1: (1, 5, 32, 1, 1)}
    """

    def __init__(self, decoder: ResidualDecoder, blocks: str, entry: nn.Module, *, source: torch.Generator) -> None:
        super().__init__()
        style, side = decoder.style, decoder.pixels.rows
        places = parse("encoder", blocks, side)
        reached = {side, *map(after, places)}
        for name, place in decoder.places.items():
            if place.resolution not in reached:
                raise ConfigError(
                    f"the encoder's blocks '{blocks}' do not reach resolution {place.resolution}, where {name} is; "
                    f"take them down to it, as in '{mirrored(list(decoder.places.values()))}'."
                )
        self.entry, self.unfold = entry, Unfold(decoder.pixels)
        self.into = Convolution(decoder.pixels.channels, style.width_at(side), style.initialise, source, stride=1)
        self.blocks = nn.ModuleList(UpwardBlock(place, style, depth=len(places), source=source) for place in places)

    def forward(self, x: Value) -> dict[int, Tensor]:
        h = self.into(self.unfold(self.entry(x)))
        found = {int(h.shape[-1]): h}
        for block in self.blocks:
            h = block(h)
            found[int(h.shape[-1])] = h
        return found


class ResidualPosterior(Posterior):
    """q(z | x) of a VDVAE, for one `ResidualDecoder`, whose resolutions, widths and style it takes.

    ``blocks`` are those of the upward pass (`hvae.grammar`); by default as many as the decoder has at each
    resolution. ``merge`` says how the net's distribution u_l becomes q: `alone`, or `shared`, its normalised product
    with p(z_l | h); ``top`` says it for zL, by default as for the others. With ``reads_state=False`` u_l sees x alone:
    with products this is the ladder of Sønderby et al. 2016, whose top is `alone`. ``entry`` comes before the nets and
    may bring x to scale, as `hvae.nets.Standardised` does.

    >>> import torch
    >>> from hvae import HVAE, Bernoulli, BlockStyle, ResidualDecoder, ResidualPosterior, noise
    >>> source, style = torch.Generator(), BlockStyle(width=8, channels=2)
    >>> decoder = ResidualDecoder((8, 8), "1x1,4m1,8m4", Bernoulli(64), style, source=source)
    >>> model = HVAE(decoder, ResidualPosterior(decoder, "8x1,8d2,4d4", source=source))
    >>> model(torch.zeros(1, 7, 64), noise(model.noise_specs(), 5, 7, seed=0, purpose="example")).log_weight.shape
    torch.Size([5, 7])
    """

    def __init__(
        self,
        decoder: ResidualDecoder,
        blocks: str | None = None,
        *,
        source: torch.Generator,
        merge: Merge = alone,
        top: Merge | None = None,
        reads_state: bool = True,
        entry: nn.Module | None = None,
    ) -> None:
        super().__init__()
        style, self.places = decoder.style, decoder.places
        self.style = style
        text = mirrored(list(decoder.places.values())) if blocks is None else blocks
        self.upward = Upward(decoder, text, nn.Identity() if entry is None else entry, source=source)
        self.reads_state = reads_state
        self.merges = dict.fromkeys(decoder.names, merge) | {decoder.names[0]: merge if top is None else top}
        self.nets = nn.ModuleDict()
        for name, place in decoder.places.items():
            width = style.width_at(place.resolution)
            self.nets[name] = style.posterior.net(
                width * (1 + reads_state), 2 * style.channels, width=width, resolution=place.resolution,
                initialise=style.initialise, source=source,
            )  # fmt: skip
        self._specs = {name: decoder.noise_specs()[name] for name in decoder.names}

    @property
    def order(self) -> tuple[str, ...]:
        return tuple(self.nets)

    def noise_specs(self) -> NoiseSpecs:
        return self._specs

    def walk(self, decoder: Decoder, given: Mapping[str, Value], noise: Mapping[str, Noise]) -> Trace:
        """One pass up and one down, which ends above x."""
        return self._down(decoder, given, noise, self.order)[1]

    def visit(self, decoder: Decoder, given: Mapping[str, Value], noise: Mapping[str, Noise]) -> tuple[Trace, Trace]:
        """The p-trace and the q-trace by one pass up and one down."""
        return self._down(decoder, given, noise, decoder.variables)

    def _down(
        self, decoder: Decoder, given: Mapping[str, Value], noise: Mapping[str, Noise], until: Iterable[str]
    ) -> tuple[Trace, Trace]:
        if not isinstance(decoder, ResidualDecoder):
            raise ConfigError(
                f"a ResidualPosterior reads the state of a ResidualDecoder; got a {type(decoder).__name__}."
            )
        if (decoder.places, decoder.style) != (self.places, self.style):
            raise ConfigError(
                "the posterior was made for a decoder of other blocks or of another style; make it for the one that it "
                "stands beside."
            )
        activations, values = self.upward(given["x"]), dict(given)
        p: dict[str, Site] = {}
        q: dict[str, Site] = {}
        for name, stop in zip(until, decoder.pass_down(values), strict=False):
            family = decoder.family(name)
            if name in self.nets:
                distribution = self._distribution(stop, activations, family)
                if name not in given:
                    values[name] = family.draw(distribution, noise[name])
                q[name] = Site(values[name], distribution, family)
            p[name] = Site(values[name], stop.prior, family)
        return p, q

    def _distribution(self, stop: Stop, activations: Mapping[int, Tensor], family: Family) -> Distribution:
        """``q(z_l | h, a)``."""
        seen = activations[self.places[stop.name].resolution]
        parts = (stop.state, seen) if self.reads_state else (seen,)
        told = family.distribution(self.style.outputs(self.nets[stop.name](*parts)))
        return self.merges[stop.name](family, told, stop.prior)
