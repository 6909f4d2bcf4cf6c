"""Models with one mistake each, as their authors would write them, that a door must not let pass in silence."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import (
    Bernoulli,
    Gamma,
    Normal,
    OneHotCategorical,
    RelaxedOneHotCategorical,
    kl_divergence,
)
from torch.nn import functional as F

import hvae
from hvae.foreign.checks import Checked, check, evaluating
from hvae.foreign.stack import Stack

D, Z, N = 6, 2, 64


def data(n: int = N, seed: int = 0) -> Tensor:
    """Rows of correlated numbers, ``[n, D]``."""
    source = torch.Generator().manual_seed(seed)
    return torch.randn(n, 2, generator=source) @ torch.randn(2, D, generator=source)


class Net(nn.Module):
    """A VAE of two small nets; what a mistake changes comes as an argument."""

    def __init__(self, between: nn.Module | None = None, n_latents: int = Z, seed: int = 1) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.body = nn.Sequential(nn.Linear(D, 32), between or nn.Identity(), nn.Tanh(), nn.Linear(32, 2 * n_latents))
        self.decoder = nn.Sequential(nn.Linear(n_latents, 32), nn.Tanh(), nn.Linear(32, D))

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_scale = self.body(x).chunk(2, -1)
        return 3 * mean, (log_scale - 1).exp()


def prior(n: int = Z) -> Normal:
    return Normal(torch.zeros(n), 1.0)


@dataclass
class Planted:
    """What is handed over."""

    model: hvae.Model
    x: Tensor | Mapping[str, Tensor] = field(default_factory=data)
    context: Any = None
    own_elbo: Callable[..., Tensor] | None = None
    parents: Mapping[str, Sequence[str]] | None = None

    def stack(self) -> Stack:
        observed = {"x": self.x} if isinstance(self.x, Tensor) else self.x
        return Stack.of(self.model, observed, self.context, whole=isinstance(self.x, Tensor))

    def checked(self) -> Checked:
        """As a diagnosis begins."""
        with evaluating(self.model):
            return check(self.stack(), own_elbo=self.own_elbo, parents=self.parents)


def gaussian(
    net: Net,
    *,
    encode: Callable[..., Any] | None = None,
    decode: Callable[[Tensor], Tensor] | None = None,
    module: nn.Module | None = None,
) -> hvae.Model:
    """q and p Gaussian, with another encoder or decoder than the net's."""

    def infer(visit: Any) -> None:
        mean, scale = visit.code
        visit("z", Normal(mean, scale))

    def generate(visit: Any) -> None:
        z = visit("z", prior())
        visit("x", Normal((decode or net.decoder)(z), 0.5))

    return hvae.Model(infer, generate, encode=encode or net.encode, module=module)


def sound() -> Planted:
    """No mistake."""
    net = Net()
    return Planted(gaussian(net, module=net), own_elbo=elbo_of(net))


def elbo_of(net: Net, *, beta: float = 1.0, scale: float = 0.5) -> Callable[[Tensor], Tensor]:
    """An author's ELBO, with a closed KL and four draws."""

    def own(x: Tensor) -> Tensor:
        mean, sd = net.encode(x)
        z = mean + sd * torch.randn(4, *mean.shape)
        likelihood = Normal(net.decoder(z), scale).log_prob(x).sum(-1).mean(0)
        return likelihood - beta * kl_divergence(Normal(mean, sd), prior()).sum(-1)

    return own


# 1: noise of their own, and state


def dropout(rate: float = 0.2) -> Planted:
    net = Net()
    return Planted(gaussian(net, encode=lambda x: net.encode(F.dropout(x, rate, training=True))))


def rare_dropout() -> Planted:
    net = Net()

    def decode(z: Tensor) -> Tensor:
        return net.decoder[2](F.dropout(net.decoder[:2](z), 0.001, training=True))

    return Planted(gaussian(net, decode=decode))


def dropout_left_on() -> Planted:
    net = Net(nn.Dropout(0.1))
    return Planted(gaussian(net))  # no module=


def own_randn() -> Planted:
    net = Net()

    def decode(z: Tensor) -> Tensor:
        return net.decoder(torch.randn_like(z))  # instead of what visit returned

    return Planted(gaussian(net, decode=decode))


def moving_average() -> Planted:
    net, state = Net(), {"mean": torch.zeros(D)}

    def encode(x: Tensor) -> tuple[Tensor, Tensor]:
        state["mean"] = 0.9 * state["mean"] + 0.1 * x.mean(0)
        return net.encode(x - state["mean"])

    return Planted(gaussian(net, encode=encode))


def unvisited_gate() -> Planted:
    net = Net()

    def decode(z: Tensor) -> Tensor:
        return net.decoder(z) if torch.rand(()) < 0.5 else 0.5 * net.decoder(z)  # stochastic depth

    return Planted(gaussian(net, decode=decode))


# 2: rows


def batch_norm_left_on() -> Planted:
    net = Net(nn.BatchNorm1d(32))
    return Planted(gaussian(net))  # no module=


def batch_normalised() -> Planted:
    net = Net()
    return Planted(gaussian(net, encode=lambda x: net.encode((x - x.mean(0)) / x.std(0))))


def mean_over_rows() -> Planted:
    net = Net()
    return Planted(gaussian(net, decode=lambda z: net.decoder(z - 0.1 * z.mean(0))))


def branch_on_a_batch_mean() -> Planted:
    net = Net()

    def encode(x: Tensor) -> tuple[Tensor, Tensor]:
        mean, scale = net.encode(x)
        return (mean, scale) if x.mean() > 0 else (2 * mean, scale)

    return Planted(gaussian(net, encode=encode))


def table_by_place() -> Planted:
    net, table = Net(), torch.linspace(-1, 1, 5000)

    def decode(z: Tensor) -> Tensor:
        return net.decoder(z) + table[: len(z), None]

    return Planted(gaussian(net, decode=decode))


def noise_buffer() -> Planted:
    net, buffer = Net(), torch.randn(5000, Z, generator=torch.Generator().manual_seed(0))
    return Planted(gaussian(net, decode=lambda z: net.decoder(z + 0.1 * buffer[: len(z)])))


def relative_to_the_first_row() -> Planted:
    net = Net()
    return Planted(gaussian(net, encode=lambda x: net.encode(x - x[:1])))


def cache_by_shape() -> Planted:
    net, cache = Net(), {}

    def encode(x: Tensor) -> tuple[Tensor, Tensor]:
        if x.shape not in cache:
            cache[x.shape] = net.encode(x)
        return cache[x.shape]

    return Planted(gaussian(net, encode=encode))


# 4: measures and supports


def one_hot(q: Callable[[Tensor], Any], p: Callable[[], Any]) -> hvae.Model:
    net = Net()

    def infer(visit: Any) -> None:
        visit("z", q(net.body(visit.code)))

    def generate(visit: Any) -> None:
        z = visit("z", p())
        visit("x", Normal(F.pad(z, (0, D - 4)), 0.5))

    return hvae.Model(infer, generate)


def relaxed_against_one_hot() -> Planted:
    model = one_hot(
        lambda h: RelaxedOneHotCategorical(torch.tensor(0.5), logits=h, validate_args=False),
        lambda: OneHotCategorical(torch.ones(4), validate_args=False),
    )
    return Planted(model)


def grey_under_bernoulli() -> Planted:
    net = Net()
    model = gaussian(net)

    def generate(visit: Any) -> None:
        visit("x", Bernoulli(logits=net.decoder(visit("z", prior())), validate_args=False))

    return Planted(hvae.Model(model.infer, generate, net.encode), data().sigmoid())


def normal_against_gamma() -> Planted:
    net = Net()
    model = gaussian(net)

    def generate(visit: Any) -> None:
        visit("x", Normal(net.decoder(visit("z", Gamma(torch.ones(Z), 1.0, validate_args=False))), 0.5))

    return Planted(hvae.Model(model.infer, generate, net.encode))


def scale_of_zero() -> Planted:
    net = Net()
    return Planted(gaussian(net, encode=lambda x: (net.encode(x)[0], torch.zeros(len(x), Z).clamp(min=-1)), module=net))


# 5: in place


def x_in_place() -> Planted:
    net = Net()
    return Planted(gaussian(net, encode=lambda x: net.encode(x.clamp_(-1, 1))))


def x_in_place_by_numpy() -> Planted:
    net = Net()

    def encode(x: Tensor) -> tuple[Tensor, Tensor]:
        array = x.numpy()
        array[array > 1] = 1
        return net.encode(x)

    return Planted(gaussian(net, encode=encode))


def x_in_place_in_infer() -> Planted:
    net = Net()

    def infer(visit: Any) -> None:
        visit("z", Normal(*net.encode(visit.code.clamp_(-1, 1))))

    return Planted(hvae.Model(infer, gaussian(net).generate))


def context_in_place() -> Planted:
    net = Net()

    def generate(visit: Any) -> None:
        z = visit("z", prior())
        visit("x", Normal(net.decoder(z) + visit.context.mul_(2), 0.5))

    return Planted(
        hvae.Model(gaussian(net).infer, generate, lambda x, context: net.encode(x)), context=torch.ones(N, 1)
    )


def value_in_place() -> Planted:
    net = Net()
    return Planted(gaussian(net, decode=lambda z: net.decoder(z.mul_(2))))


# 6: p sees x


def skip_through_a_cache() -> Planted:
    net, kept = Net(), {}

    def encode(x: Tensor) -> tuple[Tensor, Tensor]:
        kept["skip"] = x[:, :2]
        return net.encode(x)

    def decode(z: Tensor) -> Tensor:
        skip = kept["skip"].repeat(1 + len(z) // len(kept["skip"]), 1)[: len(z)]
        return net.decoder(z) + F.pad(skip, (0, D - 2))

    return Planted(gaussian(net, encode=encode, decode=decode))


def code_read_in_p() -> Planted:
    net = Net()

    def generate(visit: Any) -> None:
        z = visit("z", prior())
        visit("x", Normal(net.decoder(z) + visit.code[0].mean(), 0.5))

    return Planted(hvae.Model(gaussian(net).infer, generate, net.encode))


def joint_leak() -> Planted:
    net = Net()

    def walk(visit: Any) -> None:
        seen = {}

        def q() -> Normal:
            seen["mean"], scale = visit.code
            return Normal(seen["mean"], scale)

        z = visit("z", prior(), q)
        visit("x", Normal(net.decoder(z) + seen.get("mean", torch.zeros(1)).mean(-1, keepdim=True), 0.5))

    return Planted(hvae.Model.joint(walk, net.encode))


# 7 and 8: what moves with what


def two_layers(decode: Callable[[Net, Tensor, Tensor], Tensor], **more: Any) -> Planted:
    """z2, then z1 given z2, top-down; what x is made of is handed over."""
    net, top = Net(n_latents=2 * Z), nn.Linear(Z, Z)

    def infer(visit: Any) -> None:
        mean, scale = visit.code
        z2 = visit("z2", Normal(mean[:, :Z], scale[:, :Z]))
        visit("z1", Normal(mean[:, Z:] + z2, scale[:, Z:]))

    def generate(visit: Any) -> None:
        z2 = visit("z2", prior())
        z1 = visit("z1", Normal(top(z2), 1.0))
        visit("x", Normal(decode(net, z1, z2), 0.5))

    return Planted(hvae.Model(infer, generate, net.encode, module=net), **more)


def value_ignored() -> Planted:
    net = Net()
    return Planted(gaussian(net, decode=lambda z: net.decoder(prior().mean.expand(len(z), -1))))


def hidden_by_a_threshold() -> Planted:
    def decode(net: Net, z1: Tensor, z2: Tensor) -> Tensor:
        return net.decoder(torch.cat([z1, (z2 > 0).float()], -1))

    return two_layers(decode, parents={"x": ["z1"]})


def hidden_by_detach() -> Planted:
    def decode(net: Net, z1: Tensor, z2: Tensor) -> Tensor:
        return net.decoder(torch.cat([z1, z2.detach()], -1))

    return two_layers(decode, parents={"x": ["z1"]})


def batch_norm_never_updated() -> Planted:
    net = Net(nn.BatchNorm1d(32)).eval()
    return Planted(gaussian(net, module=net))


def batch_norm_of_other_data() -> Planted:
    net = Net(nn.BatchNorm1d(32))
    for seed in range(100):
        net.encode(3 + data(200, seed))
    return Planted(gaussian(net, module=net), data(300))


def batch_norm_sound() -> Planted:
    net = Net(nn.BatchNorm1d(32))
    x = data(300)
    for _ in range(100):
        net.encode(x)
    return Planted(gaussian(net, module=net), x)


# 9: two functions


def autoregressive(*, peeks: bool = False, temperature: float = 1.0) -> Planted:
    """Binary x, one after another; ``peeks`` lets an element see itself."""
    net = Net()
    mix = torch.randn(D, D, generator=torch.Generator().manual_seed(3)).tril(-1) + 4 * peeks * torch.eye(D)

    def generate(visit: Any) -> None:
        h = 2 * net.decoder(visit("z", prior()))

        def log_prob(x: Tensor) -> Tensor:
            return Bernoulli(logits=h + x @ mix.T).log_prob(x).sum(-1)

        def sample() -> Tensor:
            x = torch.zeros(visit.rows, D)
            for i in range(D):
                x[:, i] = Bernoulli(logits=(h[:, i] + x @ mix[i]) / temperature).sample()
            return x

        visit("x", hvae.law(log_prob, sample))

    return Planted(hvae.Model(gaussian(net).infer, generate, net.encode), (data() > 0).float())


# 10: only the author's own ELBO sees these


def against_own(model_of: Callable[[Net], hvae.Model], *, own: bool = True, **of: Any) -> Planted:
    net = Net()
    return Planted(model_of(net), own_elbo=elbo_of(net, **of) if own else None)


def scale_for_variance(*, own: bool = True) -> Planted:
    return against_own(gaussian, own=own, scale=0.25)  # the author means a variance of 0.25**2, and hands on 0.5


def several_draws_inside(*, own: bool = True) -> Planted:
    """z is five draws, and their mean stands within the likelihood."""

    def of(net: Net) -> hvae.Model:
        def infer(visit: Any) -> None:
            mean, scale = (part.unsqueeze(1).expand(-1, 5, -1) for part in visit.code)
            visit("z", Normal(mean, scale))

        def generate(visit: Any) -> None:
            z = visit("z", Normal(torch.zeros(5, Z), 1.0))
            visit("x", hvae.law(lambda x: Normal(net.decoder(z), 0.5).log_prob(x.unsqueeze(1)).sum(-1).mean(1)))

        return hvae.Model(infer, generate, net.encode)

    return against_own(of, own=own)


def law_of(log_prob: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Net], hvae.Model]:
    def of(net: Net) -> hvae.Model:
        def generate(visit: Any) -> None:
            mean = net.decoder(visit("z", prior()))
            visit("x", hvae.law(lambda x: log_prob(mean, x)))

        return hvae.Model(gaussian(net).infer, generate, net.encode)

    return of


def constant_left_out(*, own: bool = True) -> Planted:
    return against_own(law_of(lambda mean, x: -0.5 * (x - mean).square().sum(-1)), own=own, scale=1.0)


def elements_left_out(*, own: bool = True) -> Planted:
    return against_own(law_of(lambda mean, x: Normal(mean, 0.5).log_prob(x)[:, 2:].sum(-1)), own=own)


def mean_over_elements(*, own: bool = True) -> Planted:
    return against_own(law_of(lambda mean, x: Normal(mean, 0.5).log_prob(x).mean(-1)), own=own)


def beta_in_own(*, own: bool = True) -> Planted:
    return against_own(gaussian, own=own, beta=4.0)


# what nothing sees


def normalised_by_the_first_batch() -> Planted:
    net, state = Net(), {}

    def encode(x: Tensor) -> tuple[Tensor, Tensor]:
        state.setdefault("mean", x.mean(0))
        return net.encode(x - state["mean"])

    return Planted(gaussian(net, encode=encode))
