"""One walk computes the state once for p and q; what is measured is what the general path of `Decoder` gives."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from hvae import HVAE, Bernoulli, BlockStyle, ConfigError, DiscretisedLogistic, ResidualDecoder, ResidualPosterior, rng
from hvae.data import load
from hvae.diagnostics.collapse import activity
from hvae.diagnostics.draws import Sampler
from hvae.diagnostics.unamortised import Ascent, fitted, unamortised
from hvae.diagnostics.usage import use
from hvae.families import Family
from hvae.measuring import Sizes, measure_layers
from hvae.network import Decoder, Trace
from hvae.posterior import Posterior, alone, shared
from hvae.rng import NoiseSpecs
from hvae.shapes import Noise, Value
from hvae.topdown.blocks import Block, UpwardBlock
from tests.test_own_decoder import Plain, assert_same, measured
from tests.topdown.stacks import BLOCKS, stack

K, B = 3, 4
EXACT = {"rtol": 1e-10, "atol": 1e-10}
SWITCHES: dict[str, dict[str, Any]] = {
    "VDVAE": {},
    "ladder": {"merge": shared, "top": alone, "reads_state": False},
    "ladder without skips": {
        "merge": shared, "top": alone, "reads_state": False, "style": BlockStyle(width=8, channels=2, skips=False)
    },
    "merged, reading h": {"merge": shared},
    "widths": {"style": BlockStyle(width=6, channels=2, widths={1: 10, 2: 10})},
}  # fmt: skip
switches = pytest.mark.parametrize("switch", SWITCHES.values(), ids=SWITCHES)


class Bound(Posterior):
    """A posterior of two walks, by the general path, which holds on to the decoder whose state it reads."""

    def __init__(self, whole: HVAE) -> None:
        super().__init__()
        self.whole = whole

    @property
    def order(self) -> tuple[str, ...]:
        return self.whole.posterior.order

    def noise_specs(self) -> NoiseSpecs:
        return self.whole.posterior.noise_specs()

    def walk(self, decoder: Decoder, given: Mapping[str, Value], noise: Mapping[str, Noise]) -> Trace:
        return self.whole.posterior.walk(self.whole.decoder, given, noise)


def digits(n: int) -> Tensor:
    return load("digits-threshold").test[:n]


def noise(model: HVAE, n: int = B, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    return rng.noise(model.noise_specs(), K, n, seed=0, purpose="test", dtype=dtype)


@contextmanager
def counted(model: HVAE) -> Iterator[Counter[str]]:
    """Calls of the nets of blocks, by part."""
    found: Counter[str] = Counter()
    parts = {"into": model.posterior.upward.into, "to_x": model.decoder.to_x}
    for name, module in model.named_modules():
        if isinstance(module, Block):
            parts |= {f"prior {name}": module.prior, f"project {name}": module.project}
        elif isinstance(module, UpwardBlock):
            parts[f"up {name}"] = module
    parts |= {f"posterior {name}": net for name, net in model.posterior.nets.items()}

    def hook(name: str) -> Callable[..., None]:
        return lambda *_: found.update([name.split()[0]])

    handles = [module.register_forward_hook(hook(name)) for name, module in parts.items()]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


@switches
def test_one_walk_gives_the_two_traces_of_two(switch: dict[str, Any]) -> None:
    """Also with latents that are given, which neither trace may move."""
    model, x = stack(**switch).double(), digits(B).double().unsqueeze(0)
    given = {"z3": torch.randn(K, B, model.decoder.family("z3").width, dtype=torch.float64)}
    for fixed in ({}, given):
        with torch.no_grad():
            p, q = model.visit(x, noise(model), fixed)
            expected_q = model.infer(x, noise(model), fixed)
            expected_p = model.weigh(expected_q, x).p
        assert tuple(p) == model.decoder.variables and tuple(q) == model.posterior.order
        for found, expected in ((p, expected_p), (q, expected_q)):
            for name, site in found.items():
                torch.testing.assert_close(site.value, expected[name].value, **EXACT)
                torch.testing.assert_close(site.log_prob, expected[name].log_prob, **EXACT)
        assert not fixed or torch.equal(q["z3"].value, given["z3"])


@pytest.mark.parametrize("top", [None, alone], ids=["all", "below the top"])
def test_a_merged_layer_is_the_product_of_two_gaussians(top: Any) -> None:
    """Precisions add up, and means are weighed by them: of p and of the nets, which a stack that never merges tells."""
    merged, plain = stack(merge=shared, top=top).double(), stack().double()
    x = digits(B).double().unsqueeze(0)
    with torch.no_grad():
        values = {name: site.value for name, site in plain.infer(x, noise(plain)).items()}
        (p, found), (_, alike) = (model.visit(x, {}, values) for model in (merged, plain))
    for name in merged.latents:
        of_net, of_p, q = (site[name].distribution for site in (alike, p, found))
        precision = 1 / of_net.variance + 1 / of_p.variance
        mean = (of_net.mean / of_net.variance + of_p.mean / of_p.variance) / precision
        if name == merged.latents[-1] and top is alone:
            mean, precision = of_net.mean, 1 / of_net.variance
        torch.testing.assert_close(q.mean, mean, **EXACT)
        torch.testing.assert_close(q.variance, 1 / precision, **EXACT)


@switches
def test_what_a_layer_reads(switch: dict[str, Any]) -> None:
    """p of a layer moves with all that is above, or without skips with the one above alone; q moves with x."""
    model = stack(**switch, spread=0.5).double()
    decoder, source = model.decoder, torch.Generator().manual_seed(1)
    x = digits(1).double().unsqueeze(0)
    with torch.no_grad():
        values = {name: site.value for name, site in model.infer(x, noise(model, 1)).items()}
        before = decoder.walk({**values, "x": x}, {})
        for moved in model.latents:
            other = values[moved] + torch.randn(values[moved].shape, generator=source, dtype=torch.float64)
            after = decoder.walk({**values, moved: other, "x": x}, {})
            for name in decoder.variables:
                same = torch.equal(before[name].mean, after[name].mean)
                assert same == (moved not in decoder.parents(name)), (moved, name)
        at_x, at_another = (model.infer(data, {}, values) for data in (x, 1 - x))
        assert all(not torch.equal(at_x[name].mean, at_another[name].mean) for name in model.latents)


def test_a_visit_calls_each_net_once_and_the_cost_is_linear_in_depth() -> None:
    for n_more in (0, 6):
        model = stack(f"1x1,2m1,4m2,8m4,8x{1 + n_more}").double()
        x, depth = digits(B).double().unsqueeze(0), 5 + n_more
        with torch.no_grad(), counted(model) as calls:
            model(x, noise(model))
        assert calls == {"into": 1, "up": depth, "prior": depth, "posterior": depth, "project": depth, "to_x": 1}
        with torch.no_grad(), counted(model) as calls:
            model.infer(x, noise(model))  # neither x nor the state below z1
        assert (calls["prior"], calls["project"], calls["to_x"]) == (depth, depth - 1, 0)


def test_a_part_of_a_diagnosis_takes_a_few_walks_a_layer() -> None:
    """Walks of p are counted in calls of its nets, of which a walk has L; what the decoder reads takes one a layer."""
    walks = {}
    for n_more in (0, 5):
        model, depth = stack(f"1x1,2m1,4m2,8m4,8x{1 + n_more}"), 5 + n_more
        sampler = Sampler(model, digits(8), seed=0)
        with torch.no_grad():
            evidence = sampler.evidence(4, "example")
            with counted(model) as calls:
                use(sampler, evidence)
            assert calls["prior"] == depth * (depth + 1) and not calls["posterior"]
            with counted(model) as calls:
                measure_layers(model, digits(8), Sizes(max_paths=4))
        walks[depth] = calls["prior"] / depth
    assert walks[10] <= 2.2 * walks[5], walks


@pytest.mark.parametrize("name", ["VDVAE", "ladder without skips"])
def test_a_stack_is_measured_as_by_the_general_path(name: str) -> None:
    """Every diagnostic of six layers on real digits."""
    model, x = stack(**SWITCHES[name]), digits(6)
    with torch.no_grad():
        assert_same(measured(model, x), measured(HVAE(Plain(model.decoder), Bound(model)), x))


def test_free_parameters_for_each_datum_have_the_layers_shape() -> None:
    """A posterior without nets, fitted by gradient ascent, whose units are channels too."""
    model, x = stack("1x1,2m1,8m2"), digits(3)
    fit = fitted(model.decoder, x, Ascent(40, 2), seed=0)
    with torch.no_grad():
        start = HVAE(model.decoder, unamortised(model.decoder, x))
        before, after = (each(x.unsqueeze(0), noise(each, 3, x.dtype)) for each in (start, fit))
    assert after.unit_rate("z1").shape == (K, 3, 2) and after.q["z1"].value.shape == (K, 3, 128)
    assert after.log_weight.mean() > before.log_weight.mean()


def test_the_share_of_a_channel_is_that_of_its_pixels_together() -> None:
    """What x decides of a channel, and all of it, are sums over its pixels: two moments, by numpy alone."""
    model, x = stack("1x1,2m1,8m2", spread=0.5), digits(30)
    numbers = rng.noise(model.noise_specs(), 8, 30, seed=1, purpose="test")
    found = activity(model, x, numbers, torch.zeros(8, 30), n_paths=2, seed=0, risk=0.05)
    with torch.no_grad():
        evidence = model(x.unsqueeze(0), numbers)
    for name in model.latents:
        q, p = evidence.q[name], evidence.p[name]
        z = ((q.value - p.mean) / p.distribution.stddev).double().numpy()
        z = z - z.reshape(-1, z.shape[-1]).mean(0)
        shares = []
        for y in (z, z**2):
            a, b = y[:4].mean(0), y[4:].mean(0)
            between = np.array([np.cov(a[:, at], b[:, at])[0, 1] for at in range(z.shape[-1])])
            within = ((y**2).mean(0) - a * b).mean(0)
            between, within = (each.reshape(2, -1).sum(1) for each in (between, within))
            shares.append(between / (between + within))
        assert found[name].posterior.shape == (2, 3)
        np.testing.assert_allclose(found[name].posterior[:, 1], np.maximum(*shares), rtol=1e-6, atol=1e-9)


def test_units_are_channels() -> None:
    """Numbers of a unit are those of its pixels, summed: from torch's own normal distribution."""
    model, x = stack(), digits(12)
    with torch.no_grad():
        evidence = model(x.unsqueeze(0), noise(model, 12, torch.float32))
        layers = {layer.name: layer for layer in measure_layers(model, x, Sizes(max_paths=4))}
    normal = torch.distributions.Normal
    for name in model.latents:
        p, q, at = evidence.p[name], evidence.q[name], model.decoder.places[name].resolution
        sites = [normal(site.mean, site.distribution.stddev) for site in (q, p)]
        rate = (sites[0].log_prob(q.value) - sites[1].log_prob(q.value)).unflatten(-1, (2, at, at)).sum((-1, -2))
        kl = torch.distributions.kl_divergence(*sites).unflatten(-1, (2, at, at)).sum((-1, -2))
        torch.testing.assert_close(evidence.unit_rate(name), rate, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(evidence.unit_kl(name), kl.expand(K, -1, -1), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(evidence.kl(name), kl.sum(-1).expand(K, -1), rtol=1e-4, atol=1e-4)
        layer = layers[name]
        assert layer.n_units == 2 and {len(values[0]) for values in layer.unit_intervals.values()} == {2}
        assert {"rate_unit_nats", "kl_prior_unit_nats", "burda_variance", "residual_variance"} <= set(
            layer.unit_intervals
        )
        total = layer.unit_intervals["kl_prior_unit_nats"][0, :, 1].sum()
        np.testing.assert_allclose(total, layer.interval("kl_prior_nats")[0, 1], rtol=1e-4)


def test_a_layer_that_nothing_reads_is_seen() -> None:
    """Its way into the state is cut: V is 0, and the layer is coded."""
    model = stack(spread=0.4)
    with torch.no_grad():
        block = model.decoder.block("z2")
        block.project.weight.zero_()
        layers = {layer.name: layer for layer in measure_layers(model, digits(40), Sizes(max_paths=4))}
    assert layers["z2"].interval("reading_nats")[0].tolist() == [0, 0, 0]
    assert layers["z1"].interval("reading_nats")[0, 2] > 0 and layers["z2"].interval("rate_nats")[0, 0] > 0.1


def test_a_posterior_refuses_another_decoder() -> None:
    model = stack(BLOCKS)
    with pytest.raises(ConfigError, match="reads the state of a ResidualDecoder; got a Plain"):
        HVAE(Plain(model.decoder), model.posterior).infer(digits(2).unsqueeze(0), {})


def test_a_posterior_refuses_the_decoder_of_another_stack() -> None:
    for other in (stack("1x1,2m1,4m2,4x1,8m4,8x1"), stack(style=BlockStyle(width=9, channels=2))):
        with pytest.raises(ConfigError, match="made for a decoder of other blocks or of another style; make it for"):
            HVAE(other.decoder, stack().posterior)(digits(2).unsqueeze(0), {})


@pytest.mark.parametrize("family", [DiscretisedLogistic, partial(DiscretisedLogistic, variance="network")])
def test_colours_of_a_pixel_may_stand_first_or_last(family: Callable[[int], Family]) -> None:
    """The same weights give the same log-weights where the numbers of an image are put in the other order."""
    source, style = torch.Generator().manual_seed(0), BlockStyle(width=6, channels=2)
    first, last = (
        ResidualDecoder(shape, "1x1,4m1", family(48), style, source=source) for shape in ((3, 4, 4), (4, 4, 3))
    )
    of_first, of_last = (HVAE(each, ResidualPosterior(each, source=source)).double() for each in (first, last))
    with torch.no_grad():
        for weight in of_first.parameters():
            weight += 0.3 * torch.randn(weight.shape, generator=source)
    weights = {name: value for name, value in of_first.state_dict().items() if "families.x" not in name}
    of_last.load_state_dict(of_last.state_dict() | weights)
    of_first.decoder.load_state_dict(of_last.decoder.state_dict())  # equal scales of all pixels and colours
    x = (torch.rand(1, B, 3, 4, 4, generator=source, dtype=torch.float64) * 255).round() / 255
    found = of_first(x.flatten(2), noise(of_first)).log_weight
    torch.testing.assert_close(of_last(x.movedim(2, -1).flatten(2), noise(of_last)).log_weight, found, **EXACT)
    assert found.std(1).min() > 0.1


def test_a_stack_starts_from_its_source_with_small_steps() -> None:
    """p is N(0, I) of itself, and a deep stack moves its state no farther than a shallow one."""
    moved = {}
    for depth in (2, 32):
        source = torch.Generator().manual_seed(0)
        decoder = ResidualDecoder((4, 4), f"4x{depth}", Bernoulli(16), BlockStyle(width=16), source=source)
        trace = decoder.walk({}, rng.noise(decoder.noise_specs(), 50, 1, seed=0, purpose="test"))
        values = {name: site.value for name, site in trace.items()}
        *stops, last = decoder.pass_down(values)
        assert all(stop.prior.mean.abs().max() == 0 and (stop.prior.stddev == 1).all() for stop in stops)
        moved[depth] = last.state.std().item()
    assert 0.5 < moved[32] / moved[2] < 2, moved
    again = ResidualDecoder((4, 4), "4x32", Bernoulli(16), BlockStyle(width=16), source=source.manual_seed(0))
    assert all(torch.equal(a, b) for a, b in zip(decoder.parameters(), again.parameters(), strict=True))
