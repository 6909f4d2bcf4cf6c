"""From a VAE of pythae: what its losses say of q(z|x), p(z) and p(x|z).

    q(z|x)  N(mean, exp(log_covariance)) of the encoder; pushed through the flow of VAE_IAF and VAE_LinNF
    p(z)    N(0, I); of VAMP the mixture of q(z|u_c) over its pseudo-inputs u_c
    p(x|z)  reconstruction_loss "mse": N(reconstruction, 1), since pythae's loss is ½‖x - r‖², and
            -½‖x - r‖² - (D/2) log 2π is the log-density for D numbers per datum.
            "bce": Bernoulli(reconstruction); its x has to be 0 or 1

What a model was trained with (β, total correlation, MMD, several samples, a discriminator of codes) is not part of
these, so BetaVAE, FactorVAE, IWAE and their like are measured as the VAE that they are.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Bernoulli, Categorical, Distribution, Independent, MixtureSameFamily, Normal

from hvae.errors import ConfigError
from hvae.extras import need
from hvae.foreign.laws import pushed
from hvae.foreign.model import Model

GAUSSIAN = (
    "VAE", "BetaVAE", "BetaTCVAE", "DisentangledBetaVAE", "FactorVAE", "INFOVAE_MMD", "Adversarial_AE", "IWAE", "MIWAE",
    "PIWAE", "CIWAE",
)  # fmt: skip
"""models with a Gaussian q(z|x) and the prior N(0, I)"""
OTHERS = ("VAMP", "VAE_IAF", "VAE_LinNF")

POINT = "its code is a point, so it has neither a rate nor a likelihood; train a VAE on the same nets"
MOVED = "its q(z|x) moves by Hamiltonian steps; visit z and the momenta in functions of your own, with hvae.Model"
CURVED = "its z lies on a curved space; give both densities in functions of your own, with hvae.law and hvae.Model"
REFUSED = {
    "AE": POINT,
    "RAE_L2": POINT,
    "RAE_GP": POINT,
    "WAE_MMD": POINT,
    "VQVAE": "its code is a choice from a codebook; visit its one-hot index in functions of your own, with hvae.Model",
    "VAEGAN": "its decoder learns from the features of a discriminator, which are no density of x; say what p(x|z) is "
    "in functions of your own, with hvae.Model",
    "MSSSIM_VAE": "its loss, MS-SSIM, is no density of x; say what p(x|z) is in functions of your own, with hvae.Model",
    "HVAE": MOVED,
    "RHVAE": MOVED,
    "SVAE": CURVED,
    "PoincareVAE": CURVED,
}
"""models without densities that the adapter could read, and what to do"""


def from_pythae(vae: Any) -> Model:
    """A model of pythae, ready for `hvae.diagnose`; x is what pythae trains on, ``[n, *input_dim]``.

    Raises ConfigError for models whose losses define no densities (AE, VQVAE, VAEGAN and more), for a subclass that
    changes `forward`, and MissingExtraError where pythae is not installed.

    >>> from hvae import from_pythae
    >>> import torch
    >>> from pythae.models import VAE, VAEConfig
    >>> vae = VAE(VAEConfig(input_dim=(1, 8, 8), latent_dim=4, reconstruction_loss="bce"))
    >>> model = from_pythae(vae)
    """
    need("pythae", "from_pythae needs")
    known = _known(vae)
    loss = vae.model_config.reconstruction_loss
    if loss not in ("mse", "bce"):
        raise ConfigError(f"reconstruction_loss={loss!r} says nothing of p(x|z); 'mse' and 'bce' do.")

    def encode(x: Tensor, *_: Any) -> dict[str, Tensor]:
        return _posterior(vae, x)

    def infer(visit: Any) -> None:
        q = _gaussian(visit.code)
        visit("z", q if known in (*GAUSSIAN, "VAMP") else _through_flow(vae, known, q))

    def generate(visit: Any) -> None:
        z = visit("z", _prior(vae, known))
        visit("x", _observation(vae, z))

    return Model(infer, generate, encode=encode, module=vae)


def _known(vae: Any) -> str:
    """The name of the class of pythae that says what q and p are."""
    from pythae import models
    from pythae.models.base import BaseAE

    if not isinstance(vae, BaseAE):
        raise ConfigError(f"from_pythae takes a model of pythae, not a {type(vae).__name__}; hand it to hvae.Model.")
    names = [kind.__name__ for kind in type(vae).__mro__ if kind.__module__.startswith("pythae.models.")]
    name = names[0]
    if name in REFUSED:
        raise ConfigError(f"{name} is not measured: {REFUSED[name]}.")
    if name not in (*GAUSSIAN, *OTHERS):
        raise ConfigError(f"{name} is not a model of pythae that hvae knows; visit its z and x with hvae.Model.")
    own = getattr(models, name)
    changed = [part for part in ("forward", "loss_function") if getattr(type(vae), part) is not getattr(own, part)]
    if changed:
        raise ConfigError(
            f"{type(vae).__name__} changes {' and '.join(changed)} of {name}, so its q and p are not known; "
            "visit its z and x with hvae.Model."
        )
    return name


def _posterior(vae: Any, x: Tensor) -> dict[str, Tensor]:
    output = vae.encoder(x)
    return {"mean": output.embedding, "log_variance": output.log_covariance}


def _gaussian(code: Mapping[str, Tensor]) -> Distribution:
    return Independent(Normal(code["mean"], (0.5 * code["log_variance"]).exp()), 1)


def _prior(vae: Any, known: str) -> Distribution:
    """p(z), without a row axis; of VAMP the mixture of the encoder's answers to its pseudo-inputs."""
    like = next(vae.parameters())
    if known != "VAMP":
        return Independent(Normal(like.new_zeros(vae.latent_dim), like.new_ones(vae.latent_dim)), 1)
    inputs = vae.pseudo_inputs(vae.idle_input.to(like.device)).reshape(-1, *vae.model_config.input_dim)
    components = _gaussian(_posterior(vae, inputs))
    return MixtureSameFamily(Categorical(logits=like.new_zeros(len(inputs))), components)


def _observation(vae: Any, z: Tensor) -> Distribution:
    reconstruction = vae.decoder(z)["reconstruction"]
    if vae.input_dim is not None:
        reconstruction = reconstruction.reshape(len(z), *vae.input_dim)
    n_axes = reconstruction.ndim - 1
    if vae.model_config.reconstruction_loss == "mse":
        return Independent(Normal(reconstruction, torch.ones_like(reconstruction)), n_axes)
    # binary_cross_entropy bounds both logarithms by -100; Bernoulli(probs=) would bound the probability at 1e-7 instead
    log_one, log_zero = reconstruction.log().clamp_min(-100), (-reconstruction).log1p().clamp_min(-100)
    return Independent(Bernoulli(logits=log_one - log_zero), n_axes)


def _through_flow(vae: Any, known: str, base: Distribution) -> Distribution:
    """q(z|x) of a flow: pythae's IAF pushes by `inverse`; planar and radial layers have no inverse."""
    if known == "VAE_IAF":

        def push(e: Tensor) -> tuple[Tensor, Tensor]:
            moved = vae.iaf_flow.inverse(e)
            return moved.out, moved.log_abs_det_jac

        def pull(z: Tensor) -> tuple[Tensor, Tensor]:
            back = vae.iaf_flow(z)
            return back.out, -back.log_abs_det_jac

        return pushed(base, push, pull)

    def layers(e: Tensor) -> tuple[Tensor, Tensor]:
        log_det = e.new_zeros(len(e))
        for layer in vae.net:
            moved = layer(e)
            e, log_det = moved.out, log_det + moved.log_abs_det_jac
        return e, log_det

    return pushed(base, layers)
