"""Inference orders against hand-written numpy: the ladder's merge above all."""

import numpy as np
import pytest
import torch
from scipy import special, stats
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from hvae.diagnostics.unamortised import Rows, unamortised
from hvae.evidence import HVAE
from hvae.families import Bernoulli, Categorical, DiagonalGaussian, Family, MixtureGaussian
from hvae.gradients import awake
from hvae.nets import Root
from hvae.network import BeliefNetwork, Conditional
from hvae.posterior import Ladder, Merge, NetworkPosterior, alone, shared

EXACT = {"atol": 1e-10, "rtol": 1e-10}
WIDTHS = {"x": 5, "z1": 3, "z2": 2, "z3": 2}
NAMES = ("z1", "z2", "z3")


def linear(n_in: int, n_out: int, source: torch.Generator) -> nn.Linear:
    made = nn.Linear(n_in, n_out).double()
    for value in made.parameters():
        value.data.copy_(0.4 * torch.randn(value.shape, generator=source, dtype=torch.float64))
    return made


def networks(kind: type[Family]) -> tuple[BeliefNetwork, BeliefNetwork]:
    """Decoder z3 -> z2 -> z1 -> x and upward network x -> z1 -> z2 -> z3, all latents of one kind."""
    source = torch.Generator().manual_seed(1)

    def family(name: str) -> Family:
        return kind(WIDTHS[name])

    down = [Conditional("z3", [], Root(torch.randn(family("z3").n_outputs).double(), learned=True), family("z3"))]
    up, parent = [], "x"
    for name in NAMES:
        up.append(Conditional(name, [parent], linear(WIDTHS[parent], family(name).n_outputs, source), family(name)))
        child = Bernoulli(5) if parent == "x" else family(parent)
        down.insert(1, Conditional(parent, [name], linear(WIDTHS[name], child.n_outputs, source), child))
        parent = name
    return BeliefNetwork(down), BeliefNetwork(up)


def numpy_net(conditional: Conditional, value: np.ndarray) -> np.ndarray:
    assert isinstance(conditional.net, nn.Linear)
    return value @ conditional.net.weight.detach().numpy().T + conditional.net.bias.detach().numpy()


def inputs(kind: str) -> tuple[Tensor, dict[str, Tensor]]:
    source = torch.Generator().manual_seed(2)
    x = torch.randint(2, (1, 4, 5), generator=source).double()
    draw = torch.randn if kind == "normal" else torch.rand
    return x, {name: draw(3, 4, WIDTHS[name], generator=source, dtype=torch.float64) for name in NAMES}


@pytest.mark.parametrize("top", [alone, shared])
def test_the_ladder_merges_gaussians_by_precision(top: Merge) -> None:
    """Sønderby et al. 2016, equations 12 to 18: means go up, precisions add, and the top stands alone, or does not."""
    decoder, upward = networks(DiagonalGaussian)
    x, noise = inputs("normal")
    posterior = Ladder(upward, top)
    assert posterior.order == ("z3", "z2", "z1")
    assert [posterior.parents(name) for name in posterior.order] == [("x",), ("x", "z3"), ("x", "z3", "z2")]
    assert list(posterior.noise_specs().items()) == [(name, ("normal", WIDTHS[name])) for name in posterior.order]
    trace = posterior.walk(decoder, {"x": x}, noise)
    assert tuple(trace) == posterior.order

    below, bottom_up = x.numpy(), {}
    for name in NAMES:
        mean, log_variance = np.split(numpy_net(upward[name], below), 2, axis=-1)
        bottom_up[name], below = (mean, np.exp(log_variance)), mean
    drawn: dict[str, np.ndarray] = {}
    for name, above in zip(("z3", "z2", "z1"), (None, "z3", "z2"), strict=True):
        mean, variance = bottom_up[name]
        if above is not None or top is shared:
            outputs = decoder[name].net().detach().numpy() if above is None else numpy_net(decoder[name], drawn[above])
            prior_mean, prior_log_variance = np.split(outputs, 2, axis=-1)
            precision = 1 / variance + np.exp(-prior_log_variance)
            mean = (mean / variance + prior_mean * np.exp(-prior_log_variance)) / precision
            variance = 1 / precision
        drawn[name] = mean + np.sqrt(variance) * noise[name].numpy()
        np.testing.assert_allclose(trace[name].value.detach(), drawn[name], **EXACT)
        expected = stats.norm(mean, np.sqrt(variance)).logpdf(drawn[name]).sum(-1)
        np.testing.assert_allclose(trace[name].log_prob.detach(), expected, **EXACT)


@pytest.mark.parametrize("top", [alone, shared])
def test_the_ladder_adds_the_logits_of_bernoulli_and_passes_probabilities_up(top: Merge) -> None:
    decoder, upward = networks(Bernoulli)
    x, noise = inputs("uniform")
    trace = Ladder(upward, top).walk(decoder, {"x": x}, noise)
    below, logits = x.numpy(), {}
    for name in NAMES:
        logits[name] = numpy_net(upward[name], below)
        below = special.expit(logits[name])
    drawn: dict[str, np.ndarray] = {}
    for name, above in zip(("z3", "z2", "z1"), (None, "z3", "z2"), strict=True):
        total = logits[name]
        if above is not None:
            total = total + numpy_net(decoder[name], drawn[above])
        elif top is shared:
            total = total + decoder[name].net().detach().numpy()
        drawn[name] = (noise[name].numpy() < special.expit(total)).astype(float)
        np.testing.assert_array_equal(trace[name].value.detach(), drawn[name])
        expected = stats.bernoulli(special.expit(np.broadcast_to(total, drawn[name].shape))).logpmf(drawn[name]).sum(-1)
        np.testing.assert_allclose(trace[name].log_prob.detach(), expected, **EXACT)


@pytest.mark.parametrize("top", [alone, shared])
def test_the_ladder_adds_the_logits_of_categorical(top: Merge) -> None:
    source = torch.Generator().manual_seed(3)
    up = [Conditional("z1", ["x"], linear(5, 3, source), Categorical(1, 3))]
    up.append(Conditional("z2", ["z1"], linear(3, 3, source), Categorical(1, 3)))
    down = [Conditional("z2", [], Root(torch.tensor([0.3, -0.7, 1.1]).double(), learned=False), Categorical(1, 3))]
    down.append(Conditional("z1", ["z2"], linear(3, 3, source), Categorical(1, 3)))
    decoder, upward = BeliefNetwork(down), BeliefNetwork(up)
    x, face = torch.ones(1, 1, 5).double(), torch.eye(3).double()
    trace = Ladder(upward, top).walk(decoder, {"x": x, "z1": face.view(3, 1, 3), "z2": face[1].view(1, 1, 3)}, {})
    logits = numpy_net(upward["z1"], x.numpy()[0, 0]) + numpy_net(decoder["z1"], face[1].numpy())
    np.testing.assert_allclose(trace["z1"].log_prob.detach()[:, 0], special.log_softmax(logits), **EXACT)
    up_again = numpy_net(upward["z2"], special.softmax(numpy_net(upward["z1"], x.numpy()[0, 0])))
    up_again = up_again + (np.array([0.3, -0.7, 1.1], np.float32) if top is shared else 0)
    np.testing.assert_allclose(trace["z2"].log_prob.detach()[0, 0], special.log_softmax(up_again)[1], **EXACT)


@pytest.mark.parametrize("kind", [DiagonalGaussian, Bernoulli])
def test_bottom_up_is_the_upward_network_and_never_asks_the_decoder(kind: type[Family]) -> None:
    decoder, upward = networks(kind)
    x, noise = inputs(kind.noise)
    posterior = NetworkPosterior(upward)
    assert posterior.order == NAMES and posterior.noise_specs() == upward.noise_specs()
    assert [posterior.parents(name) for name in NAMES] == [("x",), ("z1",), ("z2",)]
    trace = posterior.walk(decoder, {"x": x}, noise)
    below = x.numpy()
    for name in NAMES:
        outputs = np.broadcast_to(numpy_net(upward[name], below), (3, 4, upward[name].family.n_outputs))
        if kind is Bernoulli:
            value = (noise[name].numpy() < special.expit(outputs)).astype(float)
            expected = stats.bernoulli(special.expit(outputs)).logpmf(value).sum(-1)
        else:
            mean, std = outputs[..., : WIDTHS[name]], np.exp(outputs[..., WIDTHS[name] :] / 2)
            value = mean + std * noise[name].numpy()
            expected = stats.norm(mean, std).logpdf(value).sum(-1)
        np.testing.assert_allclose(trace[name].value.detach(), value, **EXACT)
        np.testing.assert_allclose(trace[name].log_prob.detach(), expected, **EXACT)
        below = value


@pytest.mark.parametrize("order", [NetworkPosterior, Ladder])
@pytest.mark.parametrize("clamped", [("z2",), ("z3", "z1"), NAMES])
def test_given_latents_are_scored_and_all_pairs_broadcast(order: type, clamped: tuple[str, ...]) -> None:
    decoder, upward = networks(DiagonalGaussian)
    x, noise = inputs("normal")
    model = HVAE(decoder, order(upward))
    drawn = model.infer(x, noise)
    values = {name: site.value for name, site in drawn.items()}
    again = model.infer(x, {k: v for k, v in noise.items() if k not in clamped}, {k: values[k] for k in clamped})
    for name in NAMES:  # the same values in, the same scores out
        torch.testing.assert_close(again[name].log_prob, drawn[name].log_prob, **EXACT)
    z = {name: value[:, :1] for name, value in values.items()}
    pairs = model.infer(x, {}, z)
    for name in NAMES:
        expected = model.infer(x, {}, {k: v.expand(3, 4, -1) for k, v in z.items()})[name].log_prob
        torch.testing.assert_close(pairs[name].log_prob.expand(3, 4), expected, **EXACT)


def test_a_decoder_and_a_posterior_of_other_latents_are_refused() -> None:
    decoder, _ = networks(DiagonalGaussian)
    upward = BeliefNetwork([Conditional("z1", ["x"], nn.Linear(5, 6), DiagonalGaussian(3))])
    with pytest.raises(ValueError, match="disagree on the latents"):
        HVAE(decoder, NetworkPosterior(upward))


@pytest.mark.parametrize("top", [alone, shared])
@pytest.mark.parametrize("kind", [DiagonalGaussian, Bernoulli])
def test_the_encoder_player_leaves_the_decoder_alone_though_a_ladder_holds_it(kind: type[Family], top: Merge) -> None:
    """Flach et al. 2024: the decoder's conditionals, its prior among them, are constants in the game's q."""
    decoder, upward = networks(kind)
    x, noise = inputs(kind.noise)
    model = HVAE(decoder, Ladder(upward, top))
    plain, game = (
        sum(site.log_prob.sum() for site in q.values()) for q in (model(x, noise).q, awake(model, x, noise).q)
    )
    torch.testing.assert_close(game, plain, **EXACT)
    weights = dict(decoder.named_parameters())
    gradients = torch.autograd.grad(plain, list(weights.values()), allow_unused=True)
    moved = {name for name, gradient in zip(weights, gradients, strict=True) if gradient is not None}
    assert ("conditionals.z3.net.outputs" in moved) == (top is shared) and "conditionals.z2.net.weight" in moved
    assert all(
        g is None for g in torch.autograd.grad(game, list(weights.values()), allow_unused=True, retain_graph=True)
    )
    assert all((g != 0).any() for g in torch.autograd.grad(game, list(upward.parameters())))


# Free parameters for every image


def distinct(n: int, width: int = 12) -> Tensor:
    """n different 0/1 images, float32."""
    return (torch.arange(n).unsqueeze(-1) >> torch.arange(width) & 1).float()


def test_every_image_finds_its_row_in_any_batch_and_precision() -> None:
    """By exhaustion, for 4096 images of which many differ in one pixel; equal images share a row."""
    images = distinct(4096)
    rows = Rows(torch.cat([images, images[:100]]), torch.zeros(1))
    assert rows.outputs.shape == (4096, 1)
    with torch.no_grad():
        rows.outputs.copy_(torch.arange(4096.0).unsqueeze(-1))
    found = rows(images).flatten()
    assert sorted(found.tolist()) == list(range(4096))
    order = torch.randperm(4096, generator=torch.Generator().manual_seed(0))
    assert torch.equal(rows(images[order].view(2, 8, 256, 12)).flatten(), found[order])
    assert torch.equal(torch.cat([rows(image.unsqueeze(0)).flatten() for image in images[:50]]), found[:50])
    assert torch.equal(rows.double()(images.double()).flatten(), found.double())


def test_an_image_that_was_not_stored_has_no_outputs() -> None:
    images = distinct(64)
    rows = Rows(images[:60], torch.ones(2))
    assert rows(images[60:]).isnan().all() and rows(images[:60] + 1e-6).isnan().all() and (rows(images[:60]) == 1).all()


def test_images_that_rounding_could_confuse_are_refused() -> None:
    image = distinct(2)[1:].double()
    with pytest.raises(ValueError, match="differ by less than rounding"):
        Rows(torch.cat([image, image * (1 + 2e-16)]), torch.zeros(1))


def test_rows_under_vmap_are_those_of_each_model_alone_and_only_they_move() -> None:
    images = distinct(40)
    tables = [Rows(images, torch.zeros(3)) for _ in range(3)]
    for table in tables:
        nn.init.normal_(table.outputs)
    parameters, buffers = stack_module_state(tables)
    x = torch.stack([images[r : r + 7].unsqueeze(0) for r in range(3)])

    def call(p: dict[str, Tensor], b: dict[str, Tensor], x: Tensor) -> Tensor:
        found: Tensor = functional_call(tables[0], (p, b), (x,))
        return found

    found = vmap(call, randomness="error")(parameters, buffers, x)
    (gradient,) = torch.autograd.grad(found.sum(), list(parameters.values()))
    for r, table in enumerate(tables):
        assert torch.equal(found[r], table(x[r]))
        assert int((gradient[r] != 0).any(-1).sum()) == 7 and gradient[r].sum() == 21


def test_unamortised_is_mean_field_over_tables_and_starts_at_the_standard_distribution() -> None:
    decoder, _ = networks(DiagonalGaussian)
    x = torch.randint(2, (4, 5), generator=torch.Generator().manual_seed(1)).double()
    posterior = unamortised(decoder, x)
    assert posterior.order == NAMES and all(posterior.parents(name) == ("x",) for name in NAMES)
    trace = posterior.walk(decoder, {"x": x.unsqueeze(0)}, inputs("normal")[1])
    for name, site in trace.items():
        assert (site.distribution.mean == 0).all() and (site.distribution.variance == 1).all(), name
    rich = BeliefNetwork([Conditional("z1", [], Root(torch.zeros(10), learned=True), MixtureGaussian(1, 2))])
    fitted = unamortised(rich, x)
    assert isinstance(
        fitted.network["z1"].family, DiagonalGaussian
    )  # whatever the decoder's distribution of real numbers


def test_bottom_up_is_the_reverse_of_the_decoder_whatever_the_names() -> None:
    """z1 first and then up; a top-down visit, and one that leaves the order of the layers, are not; one latent is."""
    family = DiagonalGaussian(1)

    def chain(*names: str) -> BeliefNetwork:
        parents = (None, *names)
        made = zip(parents, names, strict=False)
        return BeliefNetwork(
            [Conditional(name, [parent] if parent else [], nn.Linear(1, 2), family) for parent, name in made]
        )

    decoder = chain("roof", "floor", "cellar", "x")
    for order, bottom_up in (
        (("cellar", "floor", "roof"), True),
        (("roof", "floor", "cellar"), False),
        (("cellar", "roof", "floor"), False),
    ):
        model = HVAE(decoder, NetworkPosterior(chain("x", *order).factors(order)))
        assert model.bottom_up == model.posterior.bottom_up(decoder) == bottom_up
    upward = chain("x", "cellar", "floor", "roof").factors(["cellar", "floor", "roof"])
    assert not HVAE(decoder, Ladder(upward)).bottom_up
    assert HVAE(chain("z", "x"), Ladder(chain("x", "z").factors(["z"]))).bottom_up
