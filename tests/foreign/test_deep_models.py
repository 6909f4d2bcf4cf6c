"""Deep models of others: codebooks, maps of latents, gates, two directions, residual distributions, a diffusion.

Tolerances are the errors in float32 that were seen when the models were first tried: rounding of sums of tens of nats.
"""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, Independent, Normal, OneHotCategorical

import hvae
from hvae.errors import ConfigError
from tests.foreign.authors import coins, error, error_of, gaussian, stacked, weighed
from tests.statistics import assert_mean

N, P = 11, 16


@pytest.fixture
def x() -> Tensor:
    torch.manual_seed(0)
    return (torch.rand(N, P) > 0.5).float()


def stats(net: nn.Module, *given: Tensor) -> tuple[Tensor, Tensor]:
    mean, log_scale = net(torch.cat(given, -1)).chunk(2, -1)
    return mean, (0.5 * log_scale).exp()


STATES = 5


class VQ(nn.Module):
    """Razavi et al. 2019: a map of codes, and one code above it; both are the nearest entries of a codebook."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.top = nn.Conv2d(1, 3, 2, 2), nn.Linear(12, 3)
        self.low_book, self.top_book = nn.Parameter(torch.randn(STATES, 3)), nn.Parameter(torch.randn(STATES, 3))
        self.low_prior, self.of_top = nn.Linear(3, 4 * STATES), nn.Linear(3, 3)
        self.up = nn.ConvTranspose2d(3, 1, 2, 2)

    def codes(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Indices ``[n, 2, 2]`` and ``[n]``."""
        h = self.down(x.view(-1, 1, 4, 4))
        top = nearest(self.top(h.flatten(1)), self.top_book)
        low = nearest((h + self.of_top(self.top_book[top])[:, :, None, None]).movedim(1, -1), self.low_book)
        return low, top

    def image(self, low: Tensor, top: Tensor) -> Tensor:
        """Logits from embeddings ``[n, 2, 2, 3]`` and ``[n, 3]``."""
        return self.up(low.movedim(-1, 1) + top[:, :, None, None]).flatten(1)


def nearest(h: Tensor, book: Tensor) -> Tensor:
    return (h.unsqueeze(-2) - book).square().sum(-1).argmin(-1)


def test_f_two_levels_of_a_codebook(x: Tensor) -> None:
    """A deterministic code has log q = 0; draws of one datum are equal, and so are their weights."""
    net = VQ()

    def infer(visit: Any) -> None:
        low, top = visit.code
        visit("top", OneHotCategorical(probs=nn.functional.one_hot(top, STATES).float()))
        visit("low", OneHotCategorical(probs=nn.functional.one_hot(low, STATES).float()))

    def generate(visit: Any) -> None:
        top = visit("top", OneHotCategorical(logits=torch.zeros(STATES)))
        prior = net.low_prior(top @ net.top_book).view(-1, 2, 2, STATES)
        low = visit("low", Independent(OneHotCategorical(logits=prior), 2))
        visit("x", Bernoulli(logits=net.image(low @ net.low_book, top @ net.top_book)))

    def author(values: Any, i: int) -> Tensor:
        low, top = net.codes(x[i : i + 1])
        assert torch.equal(values["low"].view(2, 2, STATES).argmax(-1), low[0]) and values["top"].argmax() == top[0]
        total = -torch.tensor(float(STATES)).log()
        prior = net.low_prior(net.top_book[top]).view(2, 2, STATES).log_softmax(-1)
        for row in range(2):
            for column in range(2):
                total = total + prior[row, column, low[0, row, column]]
        return total + coins(x[i], net.image(net.low_book[low], net.top_book[top])[0])

    evidence = weighed(stacked(hvae.Model(infer, generate, encode=net.codes), {"x": x}))
    assert error(evidence, author) <= 2.0e-6
    assert (evidence.log_weight == evidence.log_weight[:1]).all()


def test_h_one_latent_an_image_and_one_a_pixel(x: Tensor) -> None:
    """Event axes are free: ``[D]`` above ``[C, H, W]``, and an image of the same."""
    images = x.view(N, 1, 4, 4)
    net = nn.ModuleDict({
        "whole": nn.Linear(P, 6), "map": nn.Conv2d(1, 4, 3, padding=1), "of_whole": nn.Linear(3, 4 * P),
        "image": nn.Conv2d(2, 1, 3, padding=1),
    })  # fmt: skip

    def of_pixels(whole: Tensor, image: Tensor | None) -> tuple[Tensor, Tensor]:
        h = net["of_whole"](whole).view(-1, 4, 4, 4)
        mean, log_scale = (h if image is None else 0.5 * h + net["map"](image)).chunk(2, 1)
        return mean, (0.5 * log_scale).exp()

    def infer(visit: Any) -> None:
        whole = visit("whole", Normal(*stats(net["whole"], visit.code.flatten(1))))
        visit("pixels", Independent(Normal(*of_pixels(whole, visit.code)), 3))

    def generate(visit: Any) -> None:
        whole = visit("whole", Normal(torch.zeros(3), torch.ones(3)))
        pixels = visit("pixels", Normal(*of_pixels(whole, None)))
        assert pixels.shape == (visit.rows, 2, 4, 4)
        visit("x", Bernoulli(logits=net["image"](pixels)))

    def author(values: Any, i: int) -> Tensor:
        whole, pixels = values["whole"], values["pixels"].view(2, 4, 4)
        log_q = gaussian(whole, *stats(net["whole"], images[i].flatten()))
        log_p = gaussian(whole, torch.zeros(3), 1.0) + coins(images[i], net["image"](pixels.unsqueeze(0))[0])
        for channel in range(2):  # element by element
            for row in range(4):
                for column in range(4):
                    at = (0, channel, row, column)
                    one = pixels[at[1:]]
                    log_q = log_q + gaussian(one, *(each[at] for each in of_pixels(whole, images[i : i + 1])))
                    log_p = log_p + gaussian(one, *(each[at] for each in of_pixels(whole, None)))
        return log_p - log_q

    assert error_of(hvae.Model(infer, generate), {"x": images}, author) <= 5e-4


def test_h_one_latent_for_all_data_is_refused(x: Tensor) -> None:
    decoder = nn.Linear(2 + 3, P)

    def infer(visit: Any) -> None:
        visit("w", Normal(torch.ones(3), torch.ones(3)))
        visit("z", Normal(visit.code[:, :2], 1.0))

    def generate(visit: Any) -> None:
        w = visit("w", Normal(torch.zeros(3), 1.0))
        z = visit("z", Normal(torch.zeros(2), 1.0))
        visit("x", Bernoulli(logits=decoder(torch.cat([z, w], -1))))

    with pytest.raises(ConfigError, match="w is one for all data: its distribution under q has no row axis"):
        stacked(hvae.Model(infer, generate), {"x": x})


def test_h_a_padded_sequence_of_latents() -> None:
    """Lengths differ: a latent a step, and a step that is padding has neither value nor density."""
    torch.manual_seed(0)
    longest, d = 5, 2
    lengths = torch.randint(1, longest + 1, (N,))
    mask = torch.arange(longest) < lengths.unsqueeze(1)
    x = torch.randn(N, longest, 3) * mask.unsqueeze(-1)
    encoder, decoder = nn.Linear(3, 2 * d), nn.Linear(d, 2 * 3)

    def infer(visit: Any) -> None:
        visit("z", hvae.masked(Independent(Normal(*stats(encoder, visit.code)), 1), visit.context))

    def generate(visit: Any) -> None:
        z = visit("z", hvae.masked(Normal(torch.zeros(visit.rows, longest, d), 1.0), visit.context))
        visit("x", hvae.masked(Normal(*stats(decoder, z)), visit.context))

    def author(values: Any, i: int) -> Tensor:
        """Step by step, to the end of the sequence."""
        z, total = values["z"].view(longest, d), torch.zeros(())
        for t in range(int(lengths[i])):
            total = total + gaussian(x[i, t], *stats(decoder, z[t])) + gaussian(z[t], torch.zeros(d), 1.0)
            total = total - gaussian(z[t], *stats(encoder, x[i, t]))
        return total

    model = hvae.Model(infer, generate, encode=lambda x, mask: x)
    evidence = weighed(stacked(model, {"x": x}, mask))
    assert error(evidence, author) <= 5.5e-6
    assert (evidence.q["z"].value.view(-1, N, longest, d)[:, ~mask] == 0).all()


def test_i_stochastic_depth_that_belongs_to_the_model(x: Tensor) -> None:
    """A gate that is visited in both has rate 0; one that is thrown without visit is not the model's."""
    encoder, block, decoder = nn.Linear(P, 6), nn.Linear(3, 3), nn.Linear(3, P)

    def infer(visit: Any) -> None:
        visit("gate", Bernoulli(torch.full((visit.rows, 1), 0.8)))
        visit("z", Normal(*stats(encoder, visit.code)))

    def generate(visit: Any) -> None:
        gate = visit("gate", Bernoulli(torch.full((visit.rows, 1), 0.8)))
        z = visit("z", Normal(torch.zeros(3), 1.0))
        visit("x", Bernoulli(logits=decoder(z + gate * block(z).relu())))

    def author(values: Any, i: int) -> Tensor:
        z = values["z"]
        h = z + block(z).relu() if values["gate"] == 1 else z
        return coins(x[i], decoder(h)) + gaussian(z, torch.zeros(3), 1.0) - gaussian(z, *stats(encoder, x[i]))

    evidence = weighed(stacked(hvae.Model(infer, generate), {"x": x}))
    assert error(evidence, author) <= 3.3e-6
    assert (evidence.rate("gate") == 0).all() and 0 < evidence.q["gate"].value.mean() < 1


def test_j_a_bidirectional_ladder(x: Tensor) -> None:
    """Maaløe et al. 2019 (BIVA): q visits bu1, bu2, z3, td2, td1; p z3, bu2, td2, bu1, td1. Children are found."""
    d = 2
    net = nn.ModuleDict({
        "q_bu1": nn.Linear(P, 2 * d), "q_bu2": nn.Linear(P + d, 2 * d), "q_z3": nn.Linear(P + 2 * d, 2 * d),
        "q_td2": nn.Linear(P + 2 * d, 2 * d), "q_td1": nn.Linear(P + 3 * d, 2 * d),
        "p_2": nn.Linear(d, 4 * d), "p_1": nn.Linear(2 * d, 4 * d), "x": nn.Linear(3 * d, P),
    })  # fmt: skip

    def infer(visit: Any) -> None:
        x = visit.code
        bu1 = visit("bu1", Normal(*stats(net["q_bu1"], x)))
        bu2 = visit("bu2", Normal(*stats(net["q_bu2"], x, bu1)))
        z3 = visit("z3", Normal(*stats(net["q_z3"], x, bu1, bu2)))
        td2 = visit("td2", Normal(*stats(net["q_td2"], x, bu2, z3)))
        visit("td1", Normal(*stats(net["q_td1"], x, bu1, td2, z3)))

    def priors(name: str, *above: Tensor) -> tuple[Tensor, ...]:
        mean_bu, mean_td, bu, td = net[name](torch.cat(above, -1)).chunk(4, -1)
        return mean_bu, (0.5 * bu).exp(), mean_td, (0.5 * td).exp()

    def generate(visit: Any) -> None:
        z3 = visit("z3", Normal(torch.zeros(d), 1.0))
        mean, scale, mean_td, scale_td = priors("p_2", z3)
        bu2, td2 = visit("bu2", Normal(mean, scale)), visit("td2", Normal(mean_td, scale_td))
        mean, scale, mean_td, scale_td = priors("p_1", bu2, td2)
        bu1, td1 = visit("bu1", Normal(mean, scale)), visit("td1", Normal(mean_td, scale_td))
        visit("x", Bernoulli(logits=net["x"](torch.cat([bu1, td1, z3], -1))))

    def author(values: Any, i: int) -> Tensor:
        bu1, bu2, z3, td2, td1 = (values[name] for name in ("bu1", "bu2", "z3", "td2", "td1"))
        log_q = gaussian(bu1, *stats(net["q_bu1"], x[i])) + gaussian(bu2, *stats(net["q_bu2"], x[i], bu1))
        log_q = log_q + gaussian(z3, *stats(net["q_z3"], x[i], bu1, bu2))
        log_q = log_q + gaussian(td2, *stats(net["q_td2"], x[i], bu2, z3))
        log_q = log_q + gaussian(td1, *stats(net["q_td1"], x[i], bu1, td2, z3))
        second, first = priors("p_2", z3), priors("p_1", bu2, td2)
        log_p = gaussian(z3, torch.zeros(d), 1.0) + gaussian(bu2, *second[:2]) + gaussian(td2, *second[2:])
        log_p = log_p + gaussian(bu1, *first[:2]) + gaussian(td1, *first[2:])
        return log_p + coins(x[i], net["x"](torch.cat([bu1, td1, z3]))) - log_q

    stack = stacked(hvae.Model(infer, generate), {"x": x})
    assert error_of(stack.functions.model, {"x": x}, author) <= 1.7e-5
    assert stack.posterior.order == ("bu1", "bu2", "z3", "td2", "td1")
    assert stack.decoder.variables == ("z3", "bu2", "td2", "bu1", "td1", "x")
    signature = stack.functions.signature
    assert signature.p_parents == {
        "z3": (), "bu2": ("z3",), "td2": ("z3",), "bu1": ("bu2", "td2"), "td1": ("bu2", "td2"),
        "x": ("z3", "bu1", "td1"),
    }  # fmt: skip
    assert signature.q_parents == {
        "bu1": ("x",), "bu2": ("x", "bu1"), "z3": ("x", "bu1", "bu2"), "td2": ("x", "bu2", "z3"),
        "td1": ("x", "bu1", "z3", "td2"),
    }  # fmt: skip


@pytest.mark.parametrize("where", ["before the rows", "among the rows", "after the rows", "inside the likelihood"])
def test_k_samples_in_the_users_code(x: Tensor, where: str) -> None:
    """K axes show in shapes. A mean over K within the likelihood does not: only the user's own ELBO tells."""
    k = 3
    decoder = nn.Linear(2, P)

    def infer(visit: Any) -> None:
        mean = visit.code[:, :2]
        if where == "before the rows":
            mean = mean.expand(k, -1, -1)
        elif where == "among the rows":
            mean = mean.repeat_interleave(k, 0)
        else:
            mean = mean.unsqueeze(1).expand(-1, k, -1)
        visit("z", Normal(mean, 1.0))

    def generate(visit: Any) -> None:
        logits = decoder(visit("z", Normal(torch.zeros(2), 1.0)))
        visit("x", Bernoulli(logits=logits.mean(1) if where == "inside the likelihood" else logits))

    model = hvae.Model(infer, generate)
    if where == "inside the likelihood":
        assert weighed(stacked(model, {"x": x})).log_weight.isfinite().all()
    else:
        with pytest.raises(ConfigError, match=r"K axis|both must agree"):
            stacked(model, {"x": x})


class Squeezed(nn.Module):
    """A residual cell of NVAE: batch norm, swish, squeeze and excitation."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.conv = nn.BatchNorm2d(width), nn.Conv2d(width, width, 3, padding=1)
        self.gate = nn.Linear(width, width)

    def forward(self, h: Tensor) -> Tensor:
        new = self.conv(nn.functional.silu(self.norm(h)))
        return h + 0.5 * new * self.gate(new.mean((2, 3))).sigmoid()[:, :, None, None]


class NVAE(nn.Module):
    """Vahdat and Kautz 2020 in small: q relative to p, one shared path, maps of latents, cells that see its state."""

    LAYERS = ("z4", "z3", "z2", "z1")

    def __init__(self, width: int = 4, d: int = 2) -> None:
        super().__init__()
        self.width, self.d = width, d
        self.stem = nn.Conv2d(1, width, 3, padding=1)
        self.up = nn.ModuleDict({name: Squeezed(width) for name in self.LAYERS})
        self.state = nn.Parameter(torch.randn(1, width, 4, 4))
        self.down = nn.ModuleDict({name: Squeezed(width) for name in self.LAYERS})
        self.p = nn.ModuleDict({name: nn.Conv2d(width, 2 * d, 1) for name in self.LAYERS})
        self.q = nn.ModuleDict({name: nn.Conv2d(2 * width, 2 * d, 1) for name in self.LAYERS})
        self.join = nn.ModuleDict({name: nn.Conv2d(width + d, width, 1) for name in self.LAYERS})
        self.image = nn.Conv2d(width, 1, 1)

    def encode(self, x: Tensor) -> dict[str, Tensor]:
        h, found = self.stem(x), {}
        for name in reversed(self.LAYERS):
            h = found[name] = self.up[name](h)
        return found

    def prior(self, name: str, s: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_scale = self.p[name](s).chunk(2, 1)
        return mean, (0.3 * log_scale).exp()

    def posterior(self, name: str, s: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        """q relative to p: its mean is a step from p's, its scale a factor."""
        mean, scale = self.prior(name, s)
        step, log_factor = self.q[name](torch.cat([s, features], 1)).chunk(2, 1)
        return mean + step, scale * (0.3 * log_factor).exp()

    def onward(self, name: str, s: Tensor, z: Tensor) -> Tensor:
        return self.down[name](self.join[name](torch.cat([s, z], 1)))


def nvae() -> NVAE:
    """With the statistics of batch norm of some data, in evaluation mode."""
    torch.manual_seed(0)
    net = NVAE()
    images = (torch.rand(64, 1, 4, 4) > 0.5).float()
    s = net.state.expand(64, -1, -1, -1)
    for name, features in list(net.encode(images).items())[::-1]:
        mean, scale = net.posterior(name, s, features)
        s = net.onward(name, s, mean + scale * torch.randn_like(mean))
    return net.eval()


def split(net: NVAE) -> hvae.Model:
    def infer(visit: Any) -> None:
        s = net.state.expand(visit.rows, -1, -1, -1)
        for name in net.LAYERS:
            s = net.onward(name, s, visit(name, Normal(*net.posterior(name, s, visit.code[name]))))

    def generate(visit: Any) -> None:
        s = net.state.expand(visit.rows, -1, -1, -1)
        for name in net.LAYERS:
            s = net.onward(name, s, visit(name, Normal(*net.prior(name, s))))
        visit("x", Bernoulli(logits=net.image(s)))

    return hvae.Model(infer, generate, encode=net.encode, module=net)


def joint(net: NVAE) -> hvae.Model:
    def walk(visit: Any) -> None:
        s = net.state.expand(visit.rows, -1, -1, -1)
        for name in net.LAYERS:
            q = lambda name=name, s=s: Normal(*net.posterior(name, s, visit.code[name]))  # noqa: E731
            s = net.onward(name, s, visit(name, p=Normal(*net.prior(name, s)), q=q))
        visit("x", p=Bernoulli(logits=net.image(s)))

    return hvae.Model.joint(walk, encode=net.encode, module=net)


def test_l_nvae_split_and_joint(x: Tensor) -> None:
    """The author's residual KL terms at the draws, layer by layer; two walks and one give the same bits."""
    net, images = nvae(), x.view(N, 1, 4, 4)

    def author(values: Any, i: int) -> Tensor:
        features, s, total = net.encode(images[i : i + 1]), net.state, torch.zeros(())
        for name in net.LAYERS:
            z = values[name].view(1, 2, 4, 4)
            total = total + gaussian(z, *net.prior(name, s)) - gaussian(z, *net.posterior(name, s, features[name]))
            s = net.onward(name, s, z)
        return total + coins(images[i], net.image(s)[0])

    parts = weighed(stacked(split(net), {"x": images}))
    assert error(parts, author) <= 6.1e-5
    stack = stacked(joint(net), {"x": images})
    whole = weighed(stack)
    assert torch.equal(parts.log_weight, whole.log_weight)
    rows = stack.functions.calls
    assert rows.joint == 4 * N and rows.infer == rows.generate == 0  # one walk
    with torch.no_grad():  # and the same function walked twice
        x = stack.numbers.unsqueeze(0)
        q = stack.infer(x, hvae.noise(stack.noise_specs(), 4, N, seed=0, purpose="test"))
        assert torch.equal(stack.weigh(q, x).log_weight, whole.log_weight)
    for name in net.LAYERS:
        assert torch.equal(q[name].value, whole.q[name].value)
        assert torch.equal(parts.kl(name), whole.kl(name))


STEPS = 100
SIGNAL = torch.linspace(0.999, 0.01, STEPS + 1).sqrt()
"""of x in z_t: z_t = s_t x + (1 - s_t²)^½ e, with z_0 = x"""


class Diffusion(nn.Module):
    """Ho et al. 2020 with few pixels: q has no weights, p predicts x from z_t and walks back."""

    def __init__(self, d: int = 2) -> None:
        super().__init__()
        self.d = d
        self.net = nn.Sequential(nn.Linear(d + 1, 8), nn.Tanh(), nn.Linear(8, d))

    def predicted(self, z: Tensor, t: int) -> Tensor:
        """x, from z_t: the best that is linear for data of variance 1/2, and a net."""
        linear = SIGNAL[t] * z / (SIGNAL[t] ** 2 + 2 * (1 - SIGNAL[t] ** 2))
        return linear + 0.1 * self.net(torch.cat([z, torch.full((*z.shape[:-1], 1), t / STEPS)], -1))

    @staticmethod
    def onward(z: Tensor, t: int) -> tuple[Tensor, Tensor]:
        """q(z_t | z_{t-1})."""
        ratio = SIGNAL[t] / SIGNAL[t - 1]
        return ratio * z, ((1 - SIGNAL[t] ** 2) - ratio**2 * (1 - SIGNAL[t - 1] ** 2)).sqrt()

    @staticmethod
    def back(z: Tensor, x: Tensor, t: int) -> tuple[Tensor, Tensor]:
        """q(z_{t-1} | z_t, x): Ho et al., equations 6 and 7."""
        ratio = SIGNAL[t] / SIGNAL[t - 1]
        step = (1 - SIGNAL[t] ** 2) - ratio**2 * (1 - SIGNAL[t - 1] ** 2)
        before = 1 - SIGNAL[t - 1] ** 2
        total = 1 - SIGNAL[t] ** 2
        return ratio * before / total * z + SIGNAL[t - 1] * step / total * x, (before * step / total).sqrt()


def test_o_a_diffusion_of_a_hundred_layers_in_both_orders() -> None:
    """q from the data upward, and from the top downward: one density, so the bounds agree up to chance."""
    torch.manual_seed(0)
    n, k = 6, 400
    net, x = Diffusion(), 0.7 * torch.randn(n, 2)

    def generate(visit: Any) -> None:
        z = visit(f"z{STEPS}", Normal(torch.zeros(2), 1.0))
        for t in range(STEPS, 1, -1):
            z = visit(f"z{t - 1}", Normal(*net.back(z, net.predicted(z, t), t)))
        visit("x", Normal(net.predicted(z, 1), 0.3))

    def upward(visit: Any) -> None:
        z = visit("z1", Normal(SIGNAL[1] * visit.code, (1 - SIGNAL[1] ** 2).sqrt()))
        for t in range(2, STEPS + 1):
            z = visit(f"z{t}", Normal(*net.onward(z, t)))

    def downward(visit: Any) -> None:
        z = visit(f"z{STEPS}", Normal(SIGNAL[STEPS] * visit.code, (1 - SIGNAL[STEPS] ** 2).sqrt()))
        for t in range(STEPS, 1, -1):
            z = visit(f"z{t - 1}", Normal(*net.back(z, visit.code, t)))

    def author(values: Any, i: int) -> Tensor:
        """Upward, whatever order drew."""
        total = gaussian(values[f"z{STEPS}"], torch.zeros(2), 1.0)
        total = total - gaussian(values["z1"], SIGNAL[1] * x[i], (1 - SIGNAL[1] ** 2).sqrt())
        for t in range(2, STEPS + 1):
            z, before = values[f"z{t}"], values[f"z{t - 1}"]
            total = total + gaussian(before, *net.back(z, net.predicted(z, t), t)) - gaussian(z, *net.onward(before, t))
        return total + gaussian(x[i], net.predicted(values["z1"], 1), 0.3)

    bounds = []
    for infer, limit in ((upward, 3.6e-4), (downward, 1.8e-3)):
        evidence = weighed(stacked(hvae.Model(infer, generate), {"x": x}), k)
        assert error(evidence, author, of=2) <= limit
        bounds.append(evidence.log_weight)
    assert_mean((bounds[0] - bounds[1]).flatten(), 0.0, detect=1.0)
