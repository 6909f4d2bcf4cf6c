"""The VampPrior: one net in decoder and encoder, the mixture that it makes, and what is refused."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor
from torch.func import functional_call, stack_module_state, vmap

from hvae.diagnostics.unamortised import Ascent, fitted
from hvae.errors import ConfigError
from hvae.evidence import HVAE, Evidence
from hvae.exact import Quadrature
from hvae.families import DiagonalGaussian, EqualMixture
from hvae.lab.assembly import build_hvae
from hvae.lab.config import ModelConfig, ObjectiveConfig, RunConfig, TrainingConfig
from hvae.nets import PseudoInputs
from hvae.objectives import Elbo, StickingTheLanding
from hvae.posterior import NetworkPosterior
from tests.lab.assembly.test_assembly import dataset

EXACT = {"atol": 1e-10, "rtol": 1e-10}
CONFIG = ModelConfig(latents=(3, 2), hidden=((8,),), prior="vamp", n_pseudo_inputs=5)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def built(seed: int = 0, **knobs: Any) -> HVAE:
    return build_hvae(replace(CONFIG, **knobs), dataset(), seed=seed).double()


def noise(model: HVAE, n_paths: int, n: int) -> dict[str, Tensor]:
    return {name: normal(n_paths, n, width, seed=i) for i, (name, (_, width)) in enumerate(model.noise_specs().items())}


@pytest.mark.parametrize("knobs", [{}, {"latents": (3,)}, {"latent_variance": "learned"}, {"latent_variance": "fixed"}])
def test_the_prior_is_the_mixture_of_the_encoders_distributions_at_known_points(knobs: dict[str, Any]) -> None:
    model = built(**knobs)
    name = model.latents[-1]
    prior, encoder = model.decoder[name], model.posterior.network[name]  # type: ignore[union-attr, index]
    assert isinstance(prior.net, PseudoInputs)
    points = normal(5, prior.net.inputs.shape[1])
    with torch.no_grad():
        prior.net.inputs.copy_(points)
        distribution = encoder({encoder.parents[0]: points})
        value = 2 * normal(9, 1, prior.family.units, seed=1)
        found = prior.family.log_prob(prior({}), value)
        mean = prior.family.mean(prior({}))
    distributions = zip(distribution.mean.numpy(), distribution.variance.numpy(), strict=True)
    densities = [stats.multivariate_normal(m, np.diag(v)).pdf(value[:, 0].numpy()) for m, v in distributions]
    assert found[:, 0].numpy() == pytest.approx(np.log(np.mean(densities, 0)), abs=1e-10)
    torch.testing.assert_close(mean, distribution.mean.mean(0), **EXACT)


def test_an_equal_mixture_of_one_is_its_component() -> None:
    component = DiagonalGaussian(3)
    mixture, outputs, values = EqualMixture(component, 1), normal(4, 6), normal(7, 4, 3, seed=1)
    distribution, plain = mixture.distribution(outputs), component.distribution(outputs)
    torch.testing.assert_close(mixture.log_prob(distribution, values), component.log_prob(plain, values), **EXACT)
    torch.testing.assert_close(mixture.draw(distribution, values), component.draw(plain, values), **EXACT)


def test_pseudo_inputs_start_in_the_parents_space() -> None:
    data = dataset()
    inputs = build_hvae(replace(CONFIG, latents=(3,)), data, seed=1).decoder["z1"].net.inputs  # type: ignore[union-attr]
    assert all(bool((row == data.train).all(-1).any()) for row in inputs)  # type: ignore[union-attr]
    above = build_hvae(replace(CONFIG, n_pseudo_inputs=2000), data, seed=1).decoder["z2"].net.inputs
    assert isinstance(above, Tensor) and above.shape == (2000, 3)
    assert above.mean().abs() < 0.1 and (above.std() - 1).abs() < 0.1
    bernoulli = ModelConfig(latents=(3, 2), prior="vamp", families=("bernoulli", "gaussian"))
    assert set(build_hvae(bernoulli, data, seed=1).decoder["z2"].net.inputs.unique().tolist()) == {0, 1}  # type: ignore[operator, union-attr]


def test_shared_weights_count_once_and_move_both() -> None:
    model = built()
    names = [name for name, _ in model.named_parameters()]
    encoder = model.posterior.network["z2"].net  # type: ignore[union-attr, index]
    assert encoder is model.decoder["z2"].net.shared[0]  # type: ignore[index, union-attr]
    weights = {id(weight) for weight in model.parameters()}
    assert len(weights) == len(names) and all(id(weight) in weights for weight in encoder.parameters())  # type: ignore[union-attr]
    value = normal(2, 1, 2)
    before = model.decoder["z2"].family.log_prob(model.decoder["z2"]({}), value)
    with torch.no_grad():
        encoder[-1].bias.add_(1.0)  # type: ignore[index, operator, union-attr]
    assert (model.decoder["z2"].family.log_prob(model.decoder["z2"]({}), value) - before).abs().min() > 1e-3


def test_frozen_evidence_and_the_stuck_gradient_see_the_shared_weights() -> None:
    """Without the score of q, the weights that q shares keep what they do in p: p's part is that of p alone."""
    model, x = built(), torch.ones(1, 4, 6).double()
    evidence = model(x, noise(model, 3, 4))
    before = {name: weight for name, weight in model.named_parameters()}
    frozen = evidence.frozen
    assert all(weight is before[name] for name, weight in model.named_parameters())
    torch.testing.assert_close(frozen.log_weight, evidence.log_weight, **EXACT)
    assert frozen.p["z2"].distribution.means.requires_grad is False  # type: ignore[attr-defined]
    shared = list(model.posterior.network["z2"].parameters())  # type: ignore[union-attr, index]
    gradients = torch.autograd.grad(StickingTheLanding(Elbo())(evidence, 0), shared, retain_graph=True)
    path = torch.autograd.grad(Elbo()(frozen, 0), shared, retain_graph=True)
    fixed = {name: site.value.detach() for name, site in evidence.q.items()}
    own = torch.autograd.grad(-model.weigh(model.infer(x, {}, fixed), x).p["z2"].log_prob.mean(), shared)
    for gradient, a, b in zip(gradients, path, own, strict=True):
        torch.testing.assert_close(gradient, a + b, **EXACT)
        assert b.abs().max() > 1e-6


def test_two_replicas_at_once_equal_each_alone() -> None:
    models = [built(seed) for seed in (0, 1)]
    x, drawn = torch.ones(1, 4, 6).double(), noise(models[0], 2, 4)
    parameters, buffers = stack_module_state(models)  # type: ignore[arg-type]
    template = built().to("meta")

    def loss(parameters: dict[str, Tensor], buffers: dict[str, Tensor]) -> Tensor:
        evidence = functional_call(template, (parameters, buffers), (x, drawn))
        assert isinstance(evidence, Evidence)
        return -evidence.log_weight.mean()

    both = vmap(loss, randomness="error")(parameters, buffers)
    gradients = torch.autograd.grad(both.sum(), list(parameters.values()))
    for replica, model in enumerate(models):
        alone = -model(x, drawn).log_weight.mean()
        torch.testing.assert_close(both[replica], alone, **EXACT)
        for gradient, own in zip(gradients, torch.autograd.grad(alone, list(model.parameters())), strict=True):
            torch.testing.assert_close(gradient[replica], own, **EXACT)


BAD: list[tuple[dict[str, Any], str]] = [
    ({"order": "top-down"}, "no one conditional of the encoder is that distribution; use bottom-up"),
    ({"order": "top-down-shared"}, "no one conditional"),
    ({"families": ("gaussian", "bernoulli")}, "the top layer is bernoulli"),
    ({"families": ("maf",)}, "the top layer is maf"),
    ({"encoder_families": ("gaussian", "mixture")}, "the top layer is mixture"),
    ({"batch_norm": (False, True)}, "model.batch_norm is on in the top layer"),
    ({"normalised_means": (0.0, 0.5)}, "model.normalised_means is on in the top layer"),
    ({"floor_nats": 0.5}, "model.floor_nats is 0.5, a floor of the rate under"),
]


@pytest.mark.parametrize(("knobs", "words"), BAD)
def test_what_has_no_gaussian_top_of_its_own_is_refused(knobs: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        replace(CONFIG, **knobs)


def test_what_moves_one_distribution_alone_is_refused() -> None:
    with pytest.raises(ConfigError, match="each player moves a distribution of its own"):
        RunConfig(model=CONFIG, objective=ObjectiveConfig("wake-sleep"))
    with pytest.raises(ConfigError, match="its top weights make the decoder"):
        RunConfig(model=CONFIG, training=TrainingConfig(aggressive_steps=5))
    RunConfig(model=replace(CONFIG, batch_norm=(True, False)))


@pytest.mark.parametrize("knobs", [{}, {"latent_variance": "learned"}, {"order": "mean-field"}])
@torch.no_grad()
def test_quadrature_solves_a_vamp_prior(knobs: dict[str, Any]) -> None:
    """Against tables over values, the prior as the mean of the encoder's densities at the pseudo-inputs."""
    model, x = built(latents=(1, 1), **knobs), dataset().test[:3].double()
    assert isinstance(model.posterior, NetworkPosterior)
    top, prior = model.posterior.network["z2"], model.decoder["z2"].net
    assert isinstance(prior, PseudoInputs)
    values = torch.linspace(-14, 14, 1401, dtype=torch.float64).unsqueeze(-1)
    log_h = float((values[1] - values[0]).log())
    parts = prior.inputs.split([len(x[0]) if name == "x" else 1 for name in top.parents], -1)
    parents = dict(zip(top.parents, parts, strict=True))
    components = top({name: value.unsqueeze(1) for name, value in parents.items()})
    log_p2 = top.family.log_prob(components, values).logsumexp(0) - np.log(len(prior.inputs))
    down = model.decoder["z1"].family.log_prob(model.decoder["z1"]({"z2": values.unsqueeze(1)}), values)
    log_p1 = (log_p2.unsqueeze(-1) + down).logsumexp(0) + log_h
    says = model.decoder["x"].family.log_prob(model.decoder["x"]({"z1": values.unsqueeze(1)}), x)
    reference = Quadrature.of(model.decoder, 80)
    torch.testing.assert_close(
        reference.log_px(x), (log_p1.unsqueeze(-1) + says).logsumexp(0) + log_h, atol=1e-8, rtol=0
    )
    gaps = reference.gaps(model.posterior, x[:1])
    torch.testing.assert_close(sum(gaps.layers.values()), gaps.total, atol=1e-3, rtol=0)


def test_a_posterior_is_fitted_to_each_datum_under_a_vamp_prior() -> None:
    model, x = built(latents=(1,)), dataset().test[:2].double()
    before = {name: value.clone() for name, value in model.decoder.state_dict().items()}
    free = fitted(model.decoder, x, Ascent(150, 4), seed=0)
    gaps = Quadrature.of(model.decoder).gaps(free.posterior, x)
    assert -1e-9 < float(gaps.total.min()) and float(gaps.total.max()) < 0.05
    assert all(torch.equal(value, before[name]) for name, value in model.decoder.state_dict().items())
