"""Settings of the model: decoder, encoder, distributions and nets."""

from dataclasses import dataclass, fields
from typing import Annotated, Literal

from hvae.lab.config.blocks import BlocksConfig
from hvae.lab.config.checks import Between, Weight, Width, check_numbers, per_layer, require
from hvae.lab.config.latents import (
    CENTRED,
    FLOORED,
    MERGED,
    MERGING,
    MOST_FLOOR_NATS,
    REAL,
    VALUES,
    VAMP_ORDERS,
    LatentFamily,
    OrderName,
)
from hvae.lab.config.observations import DISPERSED, LEVELS, OF_X, ObservationFamily, ObservationVariance

Net = Literal["mlp", "residual", "convolutional"]
Prior = Literal["standard", "learned", "vamp"]
Activation = Literal["tanh", "relu", "leaky-relu", "elu", "softplus"]
Init = Literal["xavier", "kaiming", "orthogonal"]
Variance = Literal["network", "learned", "fixed"]
BESIDE_BLOCKS = ("blocks", *OF_X)
"""settings that a stack of blocks has too"""


Few = Annotated[int, Between(1, 1000)]


@dataclass(frozen=True)
class ModelConfig:
    """A stack: decoder p(zL) … p(x|z1), and an encoder of the same depth. Dense layers, unless `blocks` are given."""

    latents: tuple[Width, ...] = (16, 8, 4)
    """units of each latent layer, z1 first; z1 is next to the image"""
    hidden: tuple[tuple[Width, ...], ...] = ((64,),)
    """hidden widths of each layer's net, z1 first, as in [[64], [32], [16]]; the decoder mirrors them. [[64]] serves
    every layer; [[]] is linear"""
    order: OrderName = "bottom-up"
    """inference order of the encoder. bottom-up: q(z_l | z_{l-1}). bottom-up-x: each layer also sees x. mean-field:
    q(z_l | x). top-down, also written ladder: q(z_l | z_{l+1}, x). top-down-shared: the encoder's natural parameters
    are added to the decoder's, also at the top. unamortised (parameters for every image) and exact (a known p(z | x))
    are for Python only"""
    families: tuple[LatentFamily, ...] = ("gaussian",)
    """distribution of each latent layer given its parent. gaussian, bernoulli, categorical: units are independent given
    the parent. full-gaussian: full covariance. autoregressive-gaussian, autoregressive-bernoulli,
    autoregressive-categorical: each unit also sees those before it. mixture: of Gaussians. maf, nsf: flows"""
    encoder_families: tuple[LatentFamily, ...] = ()
    """distribution of each latent layer in the encoder, where it should be richer than in the decoder; [] takes
    `model.families`"""
    n_classes: Annotated[int, Between(2, 10**4)] = 4
    """states per unit of a categorical layer"""
    n_masked: Width = 32
    """hidden units of the masked net in an autoregressive, maf or nsf layer"""
    n_transforms: Few = 2
    """number of transforms in a maf or nsf layer"""
    n_components: Few = 4
    """number of Gaussians in a mixture layer"""
    observation: ObservationFamily = "bernoulli"
    """distribution of x. bernoulli: binary images. gaussian: grey or real values. discretised-logistic: grey values in
    `model.n_levels` steps, as in 8-bit images. discretised-logistic-mixture: such values of images, of several such
    distributions a pixel, whose colours depend on each other (PixelCNN++). poisson, negative-binomial: counts 0, 1, 2
    and so on, of which the encoder sees log (1 + x)"""
    n_levels: Annotated[int, Between(2, 2**16)] = 256
    """number of levels from 0 to 1 of a discretised-logistic observation or mixture; 17 for digits-grey"""
    latent_variance: Variance = "network"
    """variance of Gaussian latents. network: an output of the net. learned: one number per unit. fixed: 1"""
    observation_variance: ObservationVariance = "learned"
    """variance of a Gaussian observation, scale of a discretised-logistic one, or dispersion of a negative-binomial
    one. network, learned, fixed: as for latents. shared: one learned number for all pixels, Gaussian only. A mixture
    has scales from the net"""
    observation_start: Annotated[float, Between(1e-12, 1e12)] = 1.0
    """variance of a Gaussian observation at the start; it stays there with a fixed variance"""
    observation_components: Few = 10
    """logistic distributions that a pixel of a discretised-logistic-mixture observation mixes (default: 10)"""
    standardise: bool = False
    """nets see the columns of a table as z-scores, by mean and deviation of the training data, and the likelihood is
    that of x in its own units; for a Gaussian observation of learned or network variance. Left out, `hvae train` takes
    true for a file of real columns and false for anything else"""
    prior: Prior = "standard"
    """prior p(zL). standard: N(0, I), or fair Bernoulli and categorical units. learned: the family of the top layer,
    with learned parameters. vamp: the mixture of the encoder's top distributions at learned pseudo-inputs"""
    n_pseudo_inputs: Width = 50
    """number of pseudo-inputs of a vamp prior"""
    nets: tuple[Net, ...] = ("mlp",)
    """net of each layer, in encoder and decoder. mlp: a plain one. residual: a hidden layer that keeps its width adds
    to its input. convolutional: for z1 and images only, with `model.hidden` as dense layers between channels and
    latents"""
    channels: tuple[Width, ...] = (16, 32)
    """channels of a convolutional net; each entry halves the resolution"""
    generative_skips: bool = False
    """every decoder layer sees all layers above it, not only the next"""
    normalised_means: tuple[Weight, ...] = (0.0,)
    """spread over a batch to which the encoder's means are normalised, per unit; 0 leaves them free. In a ladder: the
    means of the upward pass, before the merge"""
    floor_nats: Weight = 0.0
    """least rate in nats of the top layer for every x, kept by a cap on its variances; for a Gaussian layer under N(0,
    I)"""
    activation: tuple[Activation, ...] = ("tanh",)
    """non-linearity of the hidden units"""
    init: tuple[Init, ...] = ("xavier",)
    """initialisation of the weights; biases start at 0"""
    batch_norm: tuple[bool, ...] = (False,)
    """batch normalisation of the hidden layers"""
    blocks: BlocksConfig | None = None
    """blocks of a residual top-down stack of convolutions, as of a VDVAE, in place of dense layers: 1x1,4m1,4x2,8m4, or
    a table. It is inferred top-down, on square images. Of the other settings of the model those of x apply"""

    def __post_init__(self) -> None:
        check_numbers("model", self)
        if self.blocks is not None:
            self._refuse_dense()
        if self.order == "ladder" or self.blocks is not None:
            object.__setattr__(self, "order", "top-down")
        n = self.n_layers
        require(n >= 1, "model.latents is empty; give the units of at least one layer, as in [16, 8, 4].")
        require(len(self.hidden) >= 1, "model.hidden is empty; give [[]] for linear layers.")
        for knob in ("hidden", "families", "activation", "init", "batch_norm", "nets", "normalised_means"):
            per_layer(f"model.{knob}", getattr(self, knob), n)
        upward, downward = self.distributions_upward, per_layer("model.families", self.families, n)
        for layer, (family, other) in enumerate(zip(upward, downward, strict=True), 1):
            require(
                VALUES.get(family) == VALUES.get(other),
                f"model.encoder_families has {family} for z{layer}, whose values are {VALUES.get(family, REAL)}, but "
                f"model.families has {other}, whose values are {VALUES.get(other, REAL)}; give distributions of the "
                "same kind.",
            )
        require(
            self.order != "unamortised",
            "model.order is unamortised, which has parameters for the training images only, so that no test image "
            "could be measured; train with order mean-field, and fit a posterior to each datum of its decoder with "
            "hvae.diagnostics.unamortised from Python.",
        )
        require(
            self.order != "exact",
            "model.order is exact, which needs no encoder to train; raise the differentiable log_px of "
            "hvae.exact.DiscreteChain from Python, or use another order.",
        )
        for knob in ("families", "encoder_families") if self.order in MERGING else ():
            whole = [family for family in dict.fromkeys(getattr(self, knob)) if family not in MERGED]
            require(
                not whole,
                f"model.{knob} has {' and '.join(whole)} in a top-down ladder, but its precision-weighted merge is per "
                "unit; use gaussian, bernoulli or categorical, or order bottom-up.",
            )
        require(
            "mixture" not in (*self.families, *self.encoder_families) or self.latent_variance == "network",
            f"model.latent_variance is {self.latent_variance}, but each component of a mixture has a variance of its "
            "own from the net; use network, or another family.",
        )
        if self.observation in DISPERSED:
            what, data = ("scale", "images") if self.observation in LEVELS else ("dispersion", "counts")
            require(
                self.observation_variance != "fixed",
                f"model.observation_variance is fixed, but no one {what} of a {self.observation} observation suits all "
                f"{data}; use learned or network.",
            )
            require(
                self.observation_variance != "shared",
                "model.observation_variance is shared, which is for a gaussian observation; use learned or network.",
            )
        require(
            not self.standardise or self.standardisable,
            f"model.standardise is true, but with model.observation {self.observation} and model.observation_variance "
            f"{self.observation_variance} it would change the model and not its units alone; use gaussian with learned "
            "or network, or false.",
        )
        require(
            self.observation_start == 1.0
            or (self.observation == "gaussian" and self.observation_variance != "network"),
            f"model.observation_start is {self.observation_start}, the variance of a gaussian observation that is "
            f"learned, shared or fixed, but model.observation is {self.observation} with model.observation_variance "
            f"{self.observation_variance}; leave it at 1.",
        )
        require(
            len(self.channels) >= 1,
            f"model.channels is {list(self.channels)}; give at least one number of channels, as in [16, 32].",
        )
        if self.prior == "vamp":
            self._check_vamp()
        self._check_nets()
        self._check_cures()

    def _check_vamp(self) -> None:
        """Refuse a vamp prior unless the encoder's top is one Gaussian conditional of its own input alone."""
        n, top = len(self.latents), (self.distributions_upward[-1], self.families[-1])
        require(
            self.order in VAMP_ORDERS,
            "model.prior is vamp, a mixture of the encoder's top distributions at learned inputs, but with model.order "
            f"{self.order} no one conditional of the encoder is that distribution; use {', '.join(VAMP_ORDERS)}.",
        )
        require(
            set(top) == {"gaussian"},
            f"model.prior is vamp, a mixture of Gaussians, but the top layer is "
            f"{' and '.join(sorted({*top} - {'gaussian'}))}; use gaussian there, or prior learned.",
        )
        for knob in ("batch_norm", "normalised_means"):
            require(
                not per_layer(f"model.{knob}", getattr(self, knob), n)[-1],
                f"model.{knob} is on in the top layer, but with model.prior vamp its net sees pseudo-inputs too, which "
                "would be normalised among themselves and not as images are; turn it off there.",
            )
        require(
            self.floor_nats == 0,
            f"model.floor_nats is {self.floor_nats}, a floor of the rate under N(0, I), but model.prior is vamp; use "
            "floor_nats 0, or prior standard.",
        )

    def _refuse_dense(self) -> None:
        """Refuse settings of dense layers beside blocks."""
        for knob in fields(self):
            value = getattr(self, knob.name)
            require(
                knob.name in BESIDE_BLOCKS or value in (knob.default, "top-down", "ladder"),
                f"model.{knob.name} is {value}, a setting of dense layers, but model.blocks describes blocks of "
                "convolutions; leave one of them out.",
            )

    @property
    def n_layers(self) -> int:
        return len(self.widths)

    @property
    def units(self) -> tuple[int, ...]:
        """Units of each latent layer, z1 first; those of blocks are channels."""
        return self.latents if self.blocks is None else self.blocks.units

    @property
    def widths(self) -> tuple[int, ...]:
        """Numbers of each latent layer, z1 first."""
        return self.latents if self.blocks is None else self.blocks.numbers

    @property
    def standardisable(self) -> bool:
        """Whether other units of x add a constant to every log-weight and change nothing else."""
        return self.observation == "gaussian" and self.observation_variance in ("network", "learned")

    @property
    def distributions_upward(self) -> tuple[LatentFamily, ...]:
        """The distribution of each latent layer in the encoder."""
        if self.encoder_families:
            return per_layer("model.encoder_families", self.encoder_families, self.n_layers)
        return per_layer("model.families", self.families, self.n_layers)

    def _check_nets(self) -> None:
        kinds = per_layer("model.nets", self.nets, len(self.latents))
        wrong = [f"z{layer}" for layer, kind in enumerate(kinds, 1) if layer > 1 and kind == "convolutional"]
        require(
            not wrong,
            f"model.nets is convolutional for {' and '.join(wrong)}, whose parent is no image; give it for z1 alone, "
            f"as in {['convolutional', *['mlp'] * (len(kinds) - 1)]}.",
        )

    def _check_cures(self) -> None:
        n = len(self.latents)
        families = per_layer("model.encoder_families", self.encoder_families or self.families, n)
        spreads = per_layer("model.normalised_means", self.normalised_means, n)
        for layer, (family, spread) in enumerate(zip(families, spreads, strict=True), 1):
            require(
                spread == 0 or family in CENTRED,
                f"model.normalised_means is {spread:g} for z{layer}, but its distribution in the encoder is {family}, "
                f"and its mean is no output of the net; use {' or '.join(CENTRED)}, or 0 for this layer.",
            )
        if self.floor_nats == 0:
            return
        require(
            self.order in FLOORED,
            f"model.floor_nats is {self.floor_nats}, but in order {self.order} the top distribution is no plain output "
            f"of the encoder's net, which a cap could hold; use {', '.join(FLOORED)}.",
        )
        require(
            (families[-1], self.latent_variance, self.prior) == ("gaussian", "network", "standard"),
            f"model.floor_nats is {self.floor_nats}, which caps the variances that a net gives a diagonal Gaussian "
            f"under N(0, I), but at the top the encoder's distribution is {families[-1]} with model.latent_variance "
            f"{self.latent_variance} and model.prior {self.prior}; use gaussian, network and standard.",
        )
        most = MOST_FLOOR_NATS * self.latents[-1]
        require(
            self.floor_nats <= most,
            f"model.floor_nats is {self.floor_nats}, more than {MOST_FLOOR_NATS:g} for each of the {self.latents[-1]} "
            "units of the top layer, with deviations below 2e-4; give less.",
        )
