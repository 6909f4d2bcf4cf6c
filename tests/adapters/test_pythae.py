"""`hvae.from_pythae` against pythae's own `get_nll` and losses, on models that pythae trains."""

import io
import math
import warnings
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import hvae
from hvae.errors import ConfigError
from hvae.foreign.pythae import GAUSSIAN, OTHERS, REFUSED, from_pythae
from tests.adapters.weights import EXACT, assert_same_bound, draws, stack_of

pytest.importorskip("pythae")
pytestmark = pytest.mark.filterwarnings("ignore")

SHAPE, N_DATA, K = (1, 4, 5), 12, 20
OPTIONS: dict[str, dict[str, Any]] = {
    "VAE": {}, "BetaVAE": {"beta": 4.0}, "IWAE": {"number_samples": 5}, "VAMP": {"number_components": 7},
    "VAE_IAF": {}, "VAE_LinNF": {"flows": ["Planar", "Radial"]},
}  # fmt: skip


def grey(n: int, seed: int = 0) -> Tensor:
    """Images of two factors, between 0 and 1."""
    source = torch.Generator().manual_seed(seed)
    factors, map_ = torch.randn(n, 2, generator=source), torch.randn(2, 20, generator=torch.Generator().manual_seed(1))
    return torch.sigmoid(2 * factors @ map_).reshape(n, *SHAPE)


def made(name: str, loss: str = "bce", **more: Any) -> Any:
    from pythae import models

    config = getattr(models, name + ("_Config" if "_" in name or name.startswith("VAE_") else "Config"))
    return getattr(models, name)(config(input_dim=SHAPE, latent_dim=3, reconstruction_loss=loss, **more))


@pytest.fixture(scope="module", params=[("VAE", "mse"), *((name, "bce") for name in OPTIONS)], ids="-".join)
def trained(request: pytest.FixtureRequest) -> tuple[Any, Tensor]:
    """A model after 60 steps of its own loss, and images it has not seen."""
    name, loss = request.param
    x, test = grey(256), grey(N_DATA, seed=2)
    if loss == "bce":
        x, test = (x > 0.5).float(), (test > 0.5).float()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        vae = made(name, loss, **OPTIONS[name])
        optimiser = torch.optim.Adam(vae.parameters(), 1e-2)
        for step in range(60):
            out = vae({"data": x[64 * (step % 4) : 64 * (step % 4) + 64]})
            optimiser.zero_grad()
            out.loss.backward()
            optimiser.step()
    return vae.eval(), test


def test_log_weights_are_those_of_its_own_arithmetic(trained: tuple[Any, Tensor]) -> None:
    """At the very draws: pythae's loss pieces, with the constant of a Gaussian of variance 1."""
    vae, x = trained
    if vae.model_name == "VAE_IAF" or vae.model_name == "VAE_LinNF":
        pytest.skip("the draws before the flow are not kept; get_nll is compared below")
    evidence = draws(stack_of(from_pythae(vae), x), 5, seed=0)
    with torch.no_grad():
        out = vae.encoder(x)
        for z, log_weight in zip(evidence.q["z"].value, evidence.log_weight, strict=True):
            scale = (0.5 * out.log_covariance).exp()
            log_q = torch.distributions.Normal(out.embedding, scale).log_prob(z).sum(1)
            constant = 1.5 * math.log(2 * math.pi)
            log_p = vae._log_p_z(z) - constant if vae.model_name == "VAMP" else -0.5 * (z**2).sum(1) - constant
            r = vae.decoder(z)["reconstruction"]
            if vae.model_config.reconstruction_loss == "mse":
                log_px = -0.5 * ((x - r) ** 2).flatten(1).sum(1) - 10 * math.log(2 * math.pi)
            else:
                log_px = -torch.nn.functional.binary_cross_entropy(r, x, reduction="none").flatten(1).sum(1)
            assert (log_px + log_p - log_q - log_weight).abs().max() < EXACT


def test_the_bound_is_that_of_get_nll(trained: tuple[Any, Tensor]) -> None:
    vae, x = trained

    def theirs() -> float:
        with torch.no_grad(), redirect_stdout(io.StringIO()):  # VAMP reports its progress
            return float(vae.get_nll(x, n_samples=K, batch_size=K))

    stack = stack_of(from_pythae(vae), x)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        assert_same_bound(stack, theirs, n_samples=K, detect=0.35)


def test_its_own_trainer_and_a_saved_model(tmp_path: Path) -> None:
    from pythae.models import VAE as Vae
    from pythae.models import AutoModel, VAEConfig
    from pythae.pipelines import TrainingPipeline
    from pythae.trainers import BaseTrainerConfig

    config = BaseTrainerConfig(output_dir=str(tmp_path), num_epochs=2, per_device_train_batch_size=64, no_cuda=True)
    vae = Vae(VAEConfig(input_dim=SHAPE, latent_dim=3, reconstruction_loss="bce"))
    x = (grey(128) > 0.5).float()
    with torch.random.fork_rng(), warnings.catch_warnings(), redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        TrainingPipeline(model=vae, training_config=config)(train_data=x)
        # the trainer keeps the weights of its best epoch, not these of its last
        vae.save(str(tmp_path / "kept"))
        again = AutoModel.load_from_folder(str(tmp_path / "kept"))
    first, second = (draws(stack_of(from_pythae(model), x[:8]), 3, seed=0).log_weight for model in (vae, again))
    assert torch.isfinite(first).all() and torch.equal(first, second)


def test_a_saturated_decoder_has_the_logarithms_of_pythae() -> None:
    """binary_cross_entropy stops at -100 for each pixel, and so does the adapter."""
    vae = made("VAE").eval()
    with torch.no_grad():
        vae.decoder.layers[-1][0].bias[:10] = 200.0
    x = torch.zeros(4, *SHAPE)
    evidence = draws(stack_of(from_pythae(vae), x), 2, seed=0)
    with torch.no_grad():
        r = vae.decoder(evidence.q["z"].value[0])["reconstruction"]
        theirs = torch.nn.functional.binary_cross_entropy(r, x, reduction="none").flatten(1).sum(1)
    assert (theirs > 999).all()
    assert (theirs - evidence.distortion[0]).abs().max() < EXACT


def test_verdict_and_the_constant_of_its_loss() -> None:
    """β = 1 and β = 40 on the same images; pythae's loss is the ELBO up to the constant of a Gaussian of variance 1."""
    x, test = grey(512), grey(128, seed=2)

    def trained_with(beta: float) -> Any:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            vae = made("BetaVAE", "mse", beta=beta)
            optimiser = torch.optim.Adam(vae.parameters(), 5e-3)
            for step in range(150):
                out = vae({"data": x[64 * (step % 8) : 64 * (step % 8) + 64]})
                optimiser.zero_grad()
                out.loss.backward()
                optimiser.step()
        return vae

    vae = trained_with(0.1)

    def own_elbo(x: Tensor) -> Tensor:
        vae.beta, rows = 1.0, []
        for one in x.split(1):
            rows.append(-vae({"data": one}).loss - 10 * math.log(2 * math.pi))
        return torch.stack(rows)

    found = hvae.diagnose(from_pythae(vae), test, own_elbo=own_elbo, sizes="quick", progress=False)
    assert found.verdicts == {"z": ("active",)}
    said = [str(each) for each in (*found.checks, *found.doubts)]
    assert any("own_elbo agrees" in each for each in said)
    found = hvae.diagnose(from_pythae(trained_with(40.0)), test, sizes="quick", progress=False)
    assert found.verdicts == {"z": ("collapsed to N(0, I)",)}


def test_grey_images_are_no_draws_of_bernoulli() -> None:
    with pytest.raises(ConfigError, match=r"outside the support of Bernoulli.*binarise"):
        hvae.diagnose(from_pythae(made("VAE")), grey(32), progress=False)


@pytest.mark.parametrize("name", ["AE", "WAE_MMD", "VQVAE", "RAE_L2", "RAE_GP"])
def test_what_has_no_density_is_refused_by_name(name: str) -> None:
    from pythae import models

    config = getattr(models, name + ("_Config" if "_" in name else "Config"))
    if name == "RAE_GP":
        config = models.RAE_GP_Config
    if name == "RAE_L2":
        config = models.RAE_L2_Config
    with pytest.raises(ConfigError, match=f"^{name} is not measured: its code"):
        from_pythae(getattr(models, name)(config(input_dim=SHAPE, latent_dim=3)))


@pytest.mark.parametrize("name", ["HVAE", "SVAE", "MSSSIM_VAE"])
def test_what_has_other_densities_is_refused_by_name(name: str) -> None:
    from pythae import models

    config = getattr(models, f"{name}Config")
    with pytest.raises(ConfigError, match=f"^{name} is not measured: its .* hvae.Model"):
        from_pythae(getattr(models, name)(config(input_dim=SHAPE, latent_dim=3)))


def test_a_subclass_that_changes_the_model_is_refused() -> None:
    from pythae.models import VAE, VAEConfig

    class Same(VAE):
        pass

    class Other(VAE):
        def loss_function(self, *args: Any) -> Any:
            return super().loss_function(*args)

    config = VAEConfig(input_dim=SHAPE, latent_dim=3)
    from_pythae(Same(config))
    with pytest.raises(ConfigError, match=r"^Other changes loss_function of VAE"):
        from_pythae(Other(config))
    with pytest.raises(ConfigError, match=r"not a Linear"):
        from_pythae(torch.nn.Linear(2, 2))


def test_every_model_of_pythae_has_its_place() -> None:
    from pythae import models

    names = {name for name in models.__all__ if not name.endswith("Config")} - {"AutoModel", "BaseAE"}
    assert names == {*GAUSSIAN, *OTHERS, *REFUSED}
