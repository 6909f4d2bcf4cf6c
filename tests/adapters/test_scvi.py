"""`hvae.from_scvi` against scvi-tools' own losses and marginal likelihood, on models that it trains."""

import logging
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Normal

import hvae
from hvae.errors import ConfigError
from hvae.foreign.scvi import Counts, from_scvi, scvi_data
from hvae.numerics import log_mean_exp
from tests.adapters.weights import EXACT, assert_same_bound, draws, stack_of

scvi = pytest.importorskip("scvi")
pytestmark = pytest.mark.filterwarnings("ignore")

N_DATA, K = 24, 20
CASES: dict[str, dict[str, Any]] = {
    "zinb": {},
    "nb": {"gene_likelihood": "nb", "dispersion": "gene-cell"},
    "poisson": {"gene_likelihood": "poisson"},
    "normal": {"gene_likelihood": "normal"},
    "per-batch": {"dispersion": "gene-batch"},
    "per-label": {"dispersion": "gene-label"},
    "latent-library": {"use_observed_lib_size": False},
    "size-factor": {"setup": {"size_factor_key": "size"}},
    "covariates": {
        "setup": {"continuous_covariate_keys": ["dose"], "categorical_covariate_keys": ["site"]},
        "encode_covariates": True,
    },
    "embedding": {"batch_representation": "embedding", "encode_covariates": True},
    "logistic-normal": {"latent_distribution": "ln"},
    "linear": {"kind": "LinearSCVI"},
}


def cells(seed: int = 0) -> Any:
    """Synthetic counts of two batches; their labels say nothing of the counts."""
    state = np.random.get_state()
    np.random.seed(seed)
    adata = scvi.data.synthetic_iid(batch_size=60, n_genes=20)
    adata.obs["dose"] = np.random.normal(size=adata.n_obs)
    adata.obs["site"] = np.random.choice(["a", "b", "c"], adata.n_obs).astype(object)
    adata.obs["size"] = np.asarray(adata.X.sum(1)).ravel() / 100
    np.random.set_state(state)
    return adata


def trained_on(
    adata: Any, kind: str = "SCVI", setup: dict[str, Any] | None = None, epochs: int = 30, **options: Any
) -> Any:
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    with warnings.catch_warnings(), torch.random.fork_rng():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        cls = getattr(scvi.model, kind)
        cls.setup_anndata(adata, batch_key="batch", labels_key="labels", **(setup or {}))
        model = cls(adata, n_latent=3, n_hidden=16, **options)
        model.train(
            max_epochs=epochs, batch_size=30, plan_kwargs={"lr": 1e-2}, accelerator="cpu", train_size=1.0,
            enable_progress_bar=False, logger=False,
        )  # fmt: skip
    return model


@pytest.fixture(scope="module", params=list(CASES))
def trained(request: pytest.FixtureRequest) -> Any:
    return trained_on(cells(), **CASES[request.param])


def batch_of(model: Any) -> dict[str, Tensor]:
    """Some cells as scvi-tools reads them."""
    return next(iter(model._make_data_loader(model.adata, indices=CHOSEN, batch_size=N_DATA, shuffle=False)))


CHOSEN = list(range(0, 120, 5))


def test_log_weights_are_those_of_its_own_arithmetic(trained: Any) -> None:
    """At the very draws: its inference and generative, and its loss for p(x|z)."""
    x, context = scvi_data(trained, indices=CHOSEN)
    evidence = draws(stack_of(from_scvi(trained), x, context), 4, seed=0)
    net, tensors = trained.module, batch_of(trained)
    with torch.no_grad():
        inference = net.inference(**net._get_inference_input(tensors))
        for k in range(4):
            z = evidence.q["z"].value[k]
            log_q, log_p = inference["qz"].log_prob(z).sum(1), Normal(0.0, 1.0).log_prob(z).sum(1)
            own = {**inference, "z": net.z_encoder.z_transformation(z)}
            if not net.use_observed_lib_size:
                own["library"] = evidence.q["library"].value[k]
            generative = net.generative(**net._get_generative_input(tensors, own))
            if not net.use_observed_lib_size:
                log_q = log_q + inference["ql"].log_prob(own["library"]).sum(1)
                log_p = log_p + generative["pl"].log_prob(own["library"]).sum(1)
            log_px = -net.loss(tensors, own, generative).reconstruction_loss["reconstruction_loss"]
            difference = (log_px + log_p - log_q - evidence.log_weight[k]).abs()
            # the library keeps float32 where the density of a Gaussian gene is many thousand nats
            assert (difference < EXACT + 1e-6 * log_px.abs()).all()


def test_the_bound_is_that_of_its_marginal_likelihood(trained: Any) -> None:
    if trained.module.latent_distribution == "ln" or trained.module.gene_likelihood == "normal":
        pytest.skip(
            "its estimate scores the softmax of z as a Gaussian; Gaussian genes have weights of infinite spread"
        )
    x, context = scvi_data(trained, indices=CHOSEN)
    # scvi-tools cannot draw several samples at once with an embedding of the batch
    at_once, k = (1, 5) if trained.module.batch_representation == "embedding" else (K, K)

    def theirs() -> float:
        found = trained.module.marginal_ll(tensors, n_mc_samples=k, n_mc_samples_per_pass=at_once)
        return float(found.mean())

    tensors, stack = batch_of(trained), stack_of(from_scvi(trained), x, context)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        assert_same_bound(stack, theirs, n_samples=k, detect=0.5 if trained.module.use_observed_lib_size else 1.5)


def test_its_logistic_normal_estimate_is_no_likelihood() -> None:
    """Why z is the Gaussian before the softmax: the estimate of scvi-tools is higher than any bound can be."""
    model = trained_on(cells(), latent_distribution="ln")
    x, context = scvi_data(model, indices=CHOSEN)
    ours = log_mean_exp(draws(stack_of(from_scvi(model), x, context), 500, seed=0).log_weight, 0).mean()
    theirs = model.module.marginal_ll(batch_of(model), n_mc_samples=500, n_mc_samples_per_pass=500).mean()
    assert (theirs - ours).abs() > 0.05


def test_draws_of_counts_are_counts() -> None:
    model = trained_on(cells(), epochs=2)
    x, context = scvi_data(model, indices=CHOSEN)
    stack = stack_of(from_scvi(model), x, context)
    from hvae.rng import noise

    specs = {**stack.decoder.noise_specs()}
    with torch.no_grad():
        trace = stack.decoder.walk({}, noise(specs, 1, N_DATA, seed=0, purpose="test"))
    drawn = stack.functions.shelf.values("x", trace["x"].value.flatten().long())
    assert drawn.shape == x.shape and torch.equal(drawn, drawn.round()) and (drawn >= 0).all() and drawn.max() > 0


@pytest.mark.parametrize(("mean", "inverse_dispersion"), [(5.0, 1.0), (1000.0, 100.0), (0.01, 1e4)])
@pytest.mark.parametrize("inflated", [False, True])
def test_counts_are_scored_to_the_digits_of_scipy(mean: float, inverse_dispersion: float, inflated: bool) -> None:
    """Against arithmetic that shares no code; float32 was off by 0.4 nats at the last of these."""
    from scipy import stats
    from scvi.distributions import NegativeBinomial, ZeroInflatedNegativeBinomial

    source = torch.Generator().manual_seed(0)
    mu = mean * (0.5 + torch.rand(4, 500, generator=source))
    theta = torch.full((500,), inverse_dispersion)
    logits = torch.randn(4, 500, generator=source)
    law = ZeroInflatedNegativeBinomial(mu=mu, theta=theta, zi_logits=logits) if inflated else None
    counts = Counts(law or NegativeBinomial(mu=mu, theta=theta))
    x = torch.poisson(mu, generator=source)
    r, m = theta.double().numpy(), mu.double().numpy()
    expected = stats.nbinom.logpmf(x.numpy(), r, r / (r + m))
    if inflated:
        share = torch.sigmoid(logits.double()).numpy()
        expected = np.log(share * (x.numpy() == 0) + (1 - share) * np.exp(expected))
    assert np.abs(counts.log_prob(x).numpy() - expected).max() < 1e-5  # scvi-tools adds 1e-8 to its logarithms


def test_the_generator_and_the_mode_are_left_alone() -> None:
    model = trained_on(cells(), epochs=1)
    x, context = scvi_data(model, indices=CHOSEN)
    foreign, before = from_scvi(model), torch.get_rng_state()
    assert foreign.encode is not None
    foreign.encode(x, context)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_context_holds_what_the_model_uses() -> None:
    adata = cells()
    x, context = scvi_data(trained_on(adata, epochs=1))
    assert set(context) == {"batch", "library"} and x.shape == (120, 20)
    assert torch.equal(context["library"].exp().round(), x.sum(1, keepdim=True))
    _, context = scvi_data(trained_on(cells(), epochs=1, **CASES["covariates"]))
    assert set(context) == {"batch", "library", "continuous", "categorical"}
    _, context = scvi_data(trained_on(cells(), epochs=1, **CASES["size-factor"]))
    assert set(context) == {"batch", "size_factor"}
    model = trained_on(cells(), epochs=1, use_observed_lib_size=False)
    assert set(scvi_data(model)[1]) == {"batch"}
    other = cells(seed=5)[:30].copy()
    assert torch.equal(scvi_data(model, other)[0], torch.as_tensor(np.asarray(other.X)).float())


def test_verdicts_of_planted_cells() -> None:
    """Three kinds of cells, whose kind z has to carry; then an encoder that says nothing."""
    adata, rng = cells(), np.random.default_rng(0)
    profiles = 20 * rng.gamma(0.5, size=(3, adata.n_vars))
    adata.X = (1 + rng.poisson(profiles[rng.integers(3, size=adata.n_obs)])).astype(np.float32)
    model = trained_on(adata, use_observed_lib_size=False)
    x, context = scvi_data(model)
    found = hvae.diagnose(from_scvi(model), x, context, sizes="quick", progress=False)
    assert found.verdicts["z"] == ("active",) and set(found.verdicts) == {"z", "library"}
    silent = model.module.z_encoder
    with torch.no_grad():
        for weight in (*silent.mean_encoder.parameters(), *silent.var_encoder.parameters()):
            weight.zero_()
        silent.var_eps = 0.0
    found = hvae.diagnose(from_scvi(model), x, context, sizes="quick", progress=False)
    assert found.verdicts["z"] == ("collapsed to N(0, I)",)


def test_an_observed_library_size_is_context_of_every_information() -> None:
    """Its encoder is never trained, and no doubt: it is no part of the model."""
    model = trained_on(cells())
    found = hvae.diagnose(from_scvi(model), *scvi_data(model), sizes="quick", progress=False)
    assert set(found.verdicts) == {"z"}
    assert not any("l_encoder" in str(doubt) for doubt in found.doubts)
    of_cells = hvae.diagnose(from_scvi(model), model.adata, sizes="quick", progress=False)
    assert of_cells.layers[0].intervals["rate_nats"].tolist() == found.layers[0].intervals["rate_nats"].tolist()
    with pytest.raises(ConfigError, match=r"x, context = hvae.scvi_data.model, adata."):
        hvae.diagnose(from_scvi(model), model.adata.X, progress=False)


def test_what_is_no_model_of_counts_is_refused_by_name() -> None:
    adata = cells()
    scvi.model.SCANVI.setup_anndata(adata, batch_key="batch", labels_key="labels", unlabeled_category="label_0")
    with pytest.raises(ConfigError, match=r"^SCANVI is not measured: from_scvi reads SCVI and LinearSCVI"):
        from_scvi(scvi.model.SCANVI(adata))
    adata = cells()
    scvi.model.PEAKVI.setup_anndata(adata, batch_key="batch")
    with pytest.raises(ConfigError, match=r"^PEAKVI is not measured"):
        from_scvi(scvi.model.PEAKVI(adata))
    with pytest.raises(ConfigError, match=r"^Linear is not measured"):
        from_scvi(torch.nn.Linear(2, 2))


def test_numbers_that_are_no_counts_are_refused() -> None:
    adata = cells()
    adata.X = np.log1p(adata.X)
    model = trained_on(adata, epochs=1)
    with pytest.raises(ConfigError, match=r"gene_likelihood='zinb' is of counts, and cell 0 has .*layer='counts'"):
        scvi_data(model)


def test_minified_data_are_refused() -> None:
    model = trained_on(cells(), epochs=1)
    mean, variance = model.get_latent_representation(return_dist=True)
    model.adata.obsm["m"], model.adata.obsm["v"] = mean, variance
    model.minify_adata(use_latent_qzm_key="m", use_latent_qzv_key="v")
    with pytest.raises(ConfigError, match="minified"):
        from_scvi(model)
