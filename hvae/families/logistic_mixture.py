"""Pixels of natural images: a mixture of logistic distributions cut into levels (Salimans et al. 2017, PixelCNN++).

A pixel (r, g, b), each colour scaled to v = 2 x - 1 in [-1, 1], draws one of K components for all of its colours:

    P(pixel) = sum_k share_k  P(r | m_1k, s_1k)  P(g | m_2k + a_k r, s_2k)  P(b | m_3k + b_k r + c_k g, s_3k)

with ``P(v | m, s)`` that of the levels in `hvae.families.logistic`, whose bins reach 1/(n-1) to both sides here (their
equations 1 to 3). Given the parent, pixels are independent and colours are not. A grey pixel has one factor.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints

from hvae.diagnosis.pixels import Pixels
from hvae.errors import ConfigError
from hvae.families.family import Family
from hvae.families.general import GeneralFamily, fixed_noise
from hvae.families.logistic import DiscretisedLogistic, logit, nearest_level
from hvae.numerics import clipped_logistic_mean, logistic_bin
from hvae.rng import NoiseKind
from hvae.shapes import LogProb, Noise, Outputs, Value

LOG_SCALE_LEAST, LOG_SCALE_MOST = -7.0, 10.0
"""the lower end is that of Salimans et al.'s code and of the public VDVAE checkpoints: a ninth of a level of 256"""
LOG_SCALE_START = -1.5
"""a deviation of 0.4 over [-1, 1]"""


class PixelMixture(Distribution):
    """The distribution of `DiscretisedLogisticMixture`: K components for each of P pixels in C colours.

    ``log_share [..., K, P]``, ``means`` and ``log_scales [..., C, K, P]``; ``coupling [..., 3, K, P]`` holds a, b and c
    of colour images. It scores values in levels of [0, 1].

    >>> one = torch.zeros(1, 1, 1)
    >>> x = PixelMixture(one[0], one, one - 3, None, Pixels(1, 1), n_levels=3)  # one component, one grey pixel
    >>> x.log_prob(torch.tensor([[0.0], [0.5], [1.0]])).exp().sum().round(decimals=6).item()
    1.0
    """

    has_rsample = False  # draws are `Family.draw`, from noise that is handed over
    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012 - torch declares it so

    def __init__(
        self, log_share: Tensor, means: Tensor, log_scales: Tensor, coupling: Tensor | None, pixels: Pixels,
        n_levels: int,
    ) -> None:  # fmt: skip
        self.log_share, self.means, self.log_scales, self.coupling = log_share, means, log_scales, coupling
        self.pixels, self.n_levels = pixels, n_levels
        size = means.shape[-3] * means.shape[-1]
        super().__init__(log_share.shape[:-2], torch.Size([size]), validate_args=False)

    def log_prob(self, value: Value) -> LogProb:
        """``sum over pixels of log sum_k share_k prod_c P(v_c | ...)``, by logarithms throughout."""
        half, terms = 1 / (self.n_levels - 1), self.log_share
        xs = by_colour(value, self.pixels).unsqueeze(-2).unbind(-3)
        for colour, x in enumerate(xs):
            v, rate = 2 * x - 1, (-self.log_scales[..., colour, :, :]).exp()
            mean = self.mean_given(colour, [2 * earlier - 1 for earlier in xs[:colour]])
            below, above = (v - half - mean) * rate, (v + half - mean) * rate
            terms = terms + logistic_bin(below, above, 2 * half * rate, x < half / 2, x > 1 - half / 2)
        return terms.logsumexp(-2).sum(-1)

    def mean_given(self, colour: int, before: Sequence[Tensor]) -> Tensor:
        """``m + coupling`` of a colour, ``[..., K, P]``, given those ``before`` it, ``[..., K or 1, P]`` in [-1, 1]."""
        mean = self.means[..., colour, :, :]
        if colour == 0 or self.coupling is None:
            return mean
        a, b, c = self.coupling.unbind(-3)
        return mean + a * before[0] if colour == 1 else mean + b * before[0] + c * before[1]


class DiscretisedLogisticMixture(GeneralFamily):
    """Images of ``n_levels`` levels in [0, 1], whose colours depend on each other within a pixel.

    ``image_shape`` is (rows, columns), (3, rows, columns) or (rows, columns, 3), as a value's numbers stand in its row.
    Outputs are planes ``[n, rows, columns]``, whatever the order of colours: K logits of the shares, then for each
    colour K means, K log-scales and, in colour, K numbers whose tanh is a (first colour), b (second) or c (third). So
    a pixel has 10 K outputs in colour and 3 K in grey, and those of colour are the layout of Salimans et al.'s code and
    of the last convolution of public VDVAE checkpoints. Log-scales stay within [-7, 10].

    A draw takes 1 + C uniform numbers a pixel: one chooses the component, the others are the quantiles of its colours.
    Raises `ConfigError` for a shape of no image, and for fewer than 1 component or 2 levels.

    >>> import torch
    >>> from hvae import DiscretisedLogisticMixture
    >>> family = DiscretisedLogisticMixture((3, 4, 4), n_components=2)
    >>> family.units, family.n_outputs, family.noise_width
    (48, 320, 64)
    >>> pixel = DiscretisedLogisticMixture((1, 1), n_components=1, n_levels=3)  # outputs = [logit, mean, log-scale]
    >>> levels = pixel.distribution(torch.tensor([0.0, 0.4, -1.0]))
    >>> round(sum(levels.log_prob(torch.tensor([x])).exp().item() for x in (0.0, 0.5, 1.0)), 4)
    1.0
    """

    noise: NoiseKind = "uniform"
    reparametrised = False
    planes = True

    mean_noise: Tensor

    def __init__(self, image_shape: Sequence[int], *, n_components: int = 10, n_levels: int = 256) -> None:
        super().__init__()
        pixels = Pixels.of(image_shape)
        if pixels is None:
            raise ConfigError(
                f"image_shape is {tuple(image_shape)}, but a mixture of logistics is for images; give (rows, columns), "
                "(3, rows, columns) or (rows, columns, 3)."
            )
        if n_components < 1:
            raise ConfigError(f"n_components is {n_components}; a mixture has at least 1, and 10 as published.")
        if n_levels < 2:
            raise ConfigError(f"n_levels is {n_levels}; images have at least 2, and 256 in 8 bits.")
        self.pixels, self.n_components, self.n_levels = pixels, n_components, n_levels
        self.n_pixels = pixels.rows * pixels.columns
        self.units = self.width = self.n_pixels * pixels.channels
        self.n_outputs = n_components * (10 if pixels.channels == 3 else 3) * self.n_pixels
        self.register_buffer("mean_noise", fixed_noise("uniform", 2), persistent=False)

    @property
    def noise_width(self) -> int:
        return self.n_pixels + self.width

    @property
    def kin(self) -> Family:
        return DiscretisedLogistic(self.units, n_levels=self.n_levels, variance="network")

    def distribution(self, outputs: Outputs) -> Distribution:
        k, colours = self.n_components, self.pixels.channels
        numbers = outputs.unflatten(-1, (-1, self.n_pixels))
        of_colours = numbers[..., k:, :].unflatten(-2, (colours, -1, k))
        log_scales = of_colours[..., 1, :, :].clamp(LOG_SCALE_LEAST, LOG_SCALE_MOST)
        coupling = of_colours[..., 2, :, :].tanh() if colours == 3 else None
        log_share = numbers[..., :k, :].log_softmax(-2)
        return PixelMixture(log_share, of_colours[..., 0, :, :], log_scales, coupling, self.pixels, self.n_levels)

    def standard_outputs(self) -> Tensor:
        """Those of mean ½ everywhere (`outputs_at`)."""
        return self.outputs_at(torch.full((self.width,), 0.5))

    def outputs_at(self, mean: Tensor) -> Tensor:
        """Outputs ``[n_outputs]`` whose components lie around ``mean [D]``, with equal shares and no coupling.

        Equal components would stay equal, so they lie apart, by one deviation in all.
        """
        k, centre = self.n_components, 2 * by_colour(mean, self.pixels) - 1
        apart = (torch.arange(k, device=mean.device) - (k - 1) / 2) / k
        means = centre.unsqueeze(-2) + apart.unsqueeze(-1).to(mean)
        parts = [means, torch.full_like(means, LOG_SCALE_START)]
        parts += [torch.zeros_like(means)] if self.pixels.channels == 3 else []
        of_colours = torch.stack(parts, dim=-3).flatten(-4, -2)
        return torch.cat([of_colours.new_zeros(k, self.n_pixels), of_colours]).flatten(-2)

    def log_prob(self, distribution: Distribution, value: Value) -> LogProb:
        return _mixture(distribution).log_prob(value)

    def draw(self, distribution: Distribution, noise: Noise) -> Value:
        """Of the chosen component, colour after colour: the level nearest to ``mean + scale · logit(noise)``."""
        distribution = _mixture(distribution)
        first, *others = noise.unflatten(-1, (-1, self.n_pixels)).unbind(-2)
        reached = distribution.log_share.exp().cumsum(-2)[..., :-1, :]
        place = (first.unsqueeze(-2) >= reached).sum(-2, keepdim=True)
        chosen = place == torch.arange(self.n_components, device=noise.device).unsqueeze(-1)
        drawn: list[Tensor] = []
        for colour, quantile in enumerate(others):
            mean = distribution.mean_given(colour, [2 * x.unsqueeze(-2) - 1 for x in drawn])
            scale = distribution.log_scales[..., colour, :, :].exp()
            mean, scale = (torch.where(chosen, each, 0.0).sum(-2) for each in (mean, scale))
            drawn.append(nearest_level((mean + scale * logit(quantile) + 1) / 2, self.n_levels))
        return in_row(torch.stack(drawn, dim=-2), self.pixels)

    def mean(self, distribution: Distribution) -> Value:
        """Before numbers are rounded to levels: of grey images and the first colour in closed form.

        Given the component, the other colours are averaged over `hvae.families.general.N_MEAN_DRAWS` fixed quantiles of
        those before them. This is exact where no colour is cut off at 0 or 1, as it is linear there.
        """
        distribution, total = _mixture(distribution), None
        scales = distribution.log_scales.exp().unbind(-3)
        points = logit(self.mean_noise.to(distribution.means)).unbind(0) if len(scales) == 3 else [None]
        for point in points:
            before: list[Tensor] = []
            means: list[Tensor] = []
            for colour, scale in enumerate(scales):
                location = distribution.mean_given(colour, before)
                means.append(clipped_logistic_mean(location, scale))
                if point is not None and colour < 2:
                    before.append((location + scale * point[colour]).clamp(-1, 1))
            found = torch.stack(torch.broadcast_tensors(*means), dim=-3)
            total = found if total is None else total + found
        assert total is not None
        mean = (distribution.log_share.exp().unsqueeze(-3) * total / len(points)).sum(-2)
        return in_row((mean + 1) / 2, self.pixels)


def by_colour(value: Tensor, pixels: Pixels) -> Tensor:
    """``[..., D]`` to ``[..., C, P]``."""
    if pixels.channels_last:
        last: Tensor = value.unflatten(-1, (-1, pixels.channels)).transpose(-1, -2)
        return last
    first: Tensor = value.unflatten(-1, (pixels.channels, -1))
    return first


def in_row(colours: Tensor, pixels: Pixels) -> Tensor:
    """``[..., C, P]`` to ``[..., D]``."""
    return (colours.transpose(-1, -2) if pixels.channels_last else colours).flatten(-2)


def _mixture(distribution: Distribution) -> PixelMixture:
    assert isinstance(distribution, PixelMixture)
    return distribution
