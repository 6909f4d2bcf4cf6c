"""`hvae.from_pyro` against Pyro's traces and ELBO, on models and guides that SVI trains; what it refuses, by name."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hvae
from hvae.errors import ConfigError
from hvae.foreign.pyro import from_pyro
from tests.adapters.weights import EXACT, draws, stack_of
from tests.statistics import assert_mean

pyro = pytest.importorskip("pyro")
pytestmark = pytest.mark.filterwarnings("ignore")

N_DATA, D = 16, 12
Functions = tuple[Callable[..., Any], Callable[..., Any]]


class Two(nn.Module):
    """Two layers, visited bottom-up by the guide: the model of the docs."""

    def __init__(self) -> None:
        super().__init__()
        self.e1, self.e2 = nn.Linear(D, 6), nn.Linear(3, 4)
        self.d2, self.d1 = nn.Linear(2, 6), nn.Linear(3, D)

    @staticmethod
    def normal(outputs: Tensor) -> Any:
        mean, log_scale = outputs.chunk(2, -1)
        return pyro.distributions.Normal(mean, log_scale.clamp(-3, 3).exp()).to_event(1)

    def model(self, x: Tensor) -> None:
        pyro.module("two", self)
        with pyro.plate("data", x.shape[0]):
            z2 = pyro.sample("z2", pyro.distributions.Normal(x.new_zeros(2), 1.0).to_event(1))
            z1 = pyro.sample("z1", self.normal(self.d2(z2)))
            pyro.sample("obs", pyro.distributions.Bernoulli(logits=self.d1(z1)).to_event(1), obs=x.reshape(-1, D))

    def guide(self, x: Tensor) -> None:
        pyro.module("two", self)
        with pyro.plate("data", x.shape[0]):
            z1 = pyro.sample("z1", self.normal(self.e1(x.reshape(-1, D))))
            pyro.sample("z2", self.normal(self.e2(z1)))


def images(n: int, seed: int = 0) -> Tensor:
    source = torch.Generator().manual_seed(seed)
    factors, map_ = torch.randn(n, 2, generator=source), torch.randn(2, D, generator=torch.Generator().manual_seed(1))
    return (torch.rand(n, D, generator=source) < torch.sigmoid(3 * factors @ map_)).float()


@pytest.fixture(scope="module")
def trained() -> Two:
    from pyro.infer import SVI, Trace_ELBO

    pyro.clear_param_store()
    with torch.random.fork_rng():
        pyro.set_rng_seed(0)
        two, x = Two(), images(256)
        svi = SVI(two.model, two.guide, pyro.optim.Adam({"lr": 1e-2}), Trace_ELBO())
        for step in range(500):
            svi.step(x[64 * (step % 4) : 64 * (step % 4) + 64])
    return two


def test_each_site_has_the_log_probability_of_pyro(trained: Two) -> None:
    from pyro import poutine

    x = images(N_DATA, seed=2)
    foreign = from_pyro(trained.model, trained.guide)
    assert foreign.module is trained
    evidence = draws(stack_of(foreign, x), 5, seed=0)
    for k in range(5):
        values = {name: site.value[k] for name, site in evidence.q.items()}
        q, p = (
            poutine.trace(poutine.condition(function, values)).get_trace(x)
            for function in (trained.guide, trained.model)
        )
        q.compute_log_prob()
        p.compute_log_prob()
        for name in ("z1", "z2"):
            assert (q.nodes[name]["log_prob"] - evidence.q[name].log_prob[k]).abs().max() < EXACT
            assert (p.nodes[name]["log_prob"] - evidence.p[name].log_prob[k]).abs().max() < EXACT
        assert (p.nodes["obs"]["log_prob"] - evidence.p["x"].log_prob[k]).abs().max() < EXACT


def test_the_elbo_is_that_of_trace_elbo(trained: Two) -> None:
    from pyro.infer import Trace_ELBO

    x = images(N_DATA, seed=2)
    stack, elbo = stack_of(from_pyro(trained.model, trained.guide), x), Trace_ELBO()
    with torch.random.fork_rng():
        torch.manual_seed(1)
        theirs = [-elbo.loss(trained.model, trained.guide, x) / N_DATA for _ in range(400)]
    ours = draws(stack, 400, seed=0).log_weight.mean(1)
    assert_mean(ours.numpy() - theirs, 0.0, detect=0.4)


def test_verdicts_of_two_layers_and_of_one_cut_off(trained: Two) -> None:
    x = images(256, seed=2)
    found = hvae.diagnose(from_pyro(trained.model, trained.guide), x, sizes="quick", progress=False)
    assert found.verdicts["z1"] == ("active",) and list(found.verdicts) == ["z1", "z2"]
    cut = Two()
    cut.load_state_dict(trained.state_dict())
    with torch.no_grad():
        for weight in (*cut.e2.parameters(), *cut.d2.parameters()):
            weight.zero_()
    found = hvae.diagnose(from_pyro(cut.model, cut.guide), x, sizes="quick", progress=False)
    assert found.verdicts == {"z1": ("active",), "z2": ("collapsed to N(0, I)",)}


# -- ways to write it ------------------------------------------------------------------------------------


def guide(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        pyro.sample("z", pyro.distributions.Normal(x[:, :2].float(), 1.0).to_event(1))


def observed(z: Tensor, x: Tensor, name: str = "obs") -> None:
    pyro.sample(name, pyro.distributions.Normal(z.repeat(1, D // 2), 1.0).to_event(1), obs=x)


def model_with(observe: Callable[[Tensor, Tensor], Any]) -> Callable[[Tensor], None]:
    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)) as index:
            z = pyro.sample("z", pyro.distributions.Normal(torch.zeros(2), 1.0).to_event(1))
            observe(z, x[index])

    return model


model = model_with(observed)


def log_weight(functions: Functions, x: Any = None, context: Any = None) -> Tensor:
    return draws(stack_of(from_pyro(*functions), images(N_DATA) if x is None else x, context), 2, seed=0).log_weight


def test_a_conditional_model_takes_its_context_after_x() -> None:
    def conditional(x: Tensor, y: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", pyro.distributions.Normal(y, 1.0).to_event(1))
            pyro.deterministic("twice", 2 * z)
            pyro.sample("obs", pyro.distributions.Poisson(z.exp().repeat(1, D // 2)).to_event(1), obs=x)

    def amortised(x: Tensor, y: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", pyro.distributions.Normal(x[:, :2].float() + y, 1.0).to_event(1))

    x, y = images(N_DATA).long(), torch.linspace(-1, 1, 2 * N_DATA).reshape(N_DATA, 2)
    weights = [log_weight((conditional, amortised), x, context) for context in (y, (y,), {"y": y})]
    assert torch.equal(weights[0], weights[1]) and torch.equal(weights[0], weights[2])
    assert not torch.equal(weights[0], log_weight((conditional, amortised), x, -y))


def test_a_dict_x_is_observed_by_its_keys() -> None:
    def two(image: Tensor, label: Tensor) -> None:
        with pyro.plate("data", len(image)):
            z = pyro.sample("z", pyro.distributions.Normal(torch.zeros(2), 1.0).to_event(1))
            observed(z, image)
            pyro.sample("digit", pyro.distributions.Categorical(logits=z), obs=label)

    def amortised(image: Tensor, label: Tensor) -> None:
        guide(image)

    x = {"image": images(N_DATA), "label": torch.arange(N_DATA) % 2}
    stack = stack_of(from_pyro(two, amortised), x)
    assert set(stack.functions.signature.observed) == {"image", "label"}
    assert torch.isfinite(draws(stack, 2, seed=0).log_weight).all()


def test_masks_are_masks_of_the_house() -> None:
    from pyro import poutine

    def with_gaps(x: Tensor, seen: Tensor) -> None:
        with pyro.plate("data", len(x), dim=-2):
            z = pyro.sample("z", pyro.distributions.Normal(torch.zeros(1, 2), 1.0).to_event(1))
            with pyro.plate("pixels", D, dim=-1), poutine.mask(mask=seen):
                pyro.sample("obs", pyro.distributions.Normal(z.flatten(1).repeat(1, D // 2), 1.0), obs=x)

    def amortised(x: Tensor, seen: Tensor) -> None:
        with pyro.plate("data", len(x), dim=-2):
            pyro.sample("z", pyro.distributions.Normal((x * seen)[:, None, :2], 1.0).to_event(1))

    x, seen = images(N_DATA), torch.arange(N_DATA * D).reshape(N_DATA, D) % 3 > 0
    evidence = draws(stack_of(from_pyro(with_gaps, amortised), x, seen), 3, seed=0)
    for k in range(3):
        values = {"z": evidence.q["z"].value[k].reshape(N_DATA, 1, 2)}
        trace = poutine.trace(poutine.condition(with_gaps, values)).get_trace(x, seen)
        trace.compute_log_prob()
        assert (trace.nodes["obs"]["log_prob"].sum(-1) - evidence.p["x"].log_prob[k]).abs().max() < EXACT


@pytest.mark.parametrize("name", ["Gamma", "Beta", "LogNormal", "StudentT", "Dirichlet", "Exponential"])
def test_each_element_of_a_distribution_has_its_term(name: str) -> None:
    """Pyro's own classes are those of torch: what is known of these holds."""
    kind = getattr(pyro.distributions, name)
    arguments = {"StudentT": (3.0,), "Dirichlet": (torch.ones(2),), "Exponential": (1.0,)}.get(name, (1.0, 1.0))

    def prior(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            law = kind(*arguments)
            z = pyro.sample("z", law if name == "Dirichlet" else law.expand([2]).to_event(1))
            observed(z, x)

    def amortised(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            law = kind(*(torch.ones(len(x), 2) * a for a in arguments))
            pyro.sample("z", law if name == "Dirichlet" else law.to_event(1))

    stack = stack_of(from_pyro(prior, amortised), images(N_DATA))
    assert stack.posterior.family("z", stack.decoder).factorised == (name != "Dirichlet")
    evidence = draws(stack, 2, seed=0)
    assert evidence.rate("z").abs().max() < EXACT  # q is the prior


def test_scales_and_a_given_subsample_are_left_out() -> None:
    from pyro import poutine

    def of_a_batch(x: Tensor) -> None:
        with pyro.plate("data", 10_000, subsample=x), poutine.scale(scale=0.25):
            z = pyro.sample("z", pyro.distributions.Normal(torch.zeros(2), 1.0).to_event(1))
            observed(z, x)

    assert torch.equal(log_weight((of_a_batch, guide)), log_weight((model, guide)))


def test_a_global_latent_may_be_held_at_a_value() -> None:
    from pyro import poutine

    def with_global(x: Tensor) -> None:
        w = pyro.sample("w", pyro.distributions.Normal(torch.zeros(2), 1.0).to_event(1))
        model_with(lambda z, x: observed(z + w, x))(x)

    held = poutine.condition(with_global, {"w": torch.tensor([1.0, 2.0])})
    by_hand = model_with(lambda z, x: observed(z + torch.tensor([1.0, 2.0]), x))
    assert torch.equal(log_weight((held, guide)), log_weight((by_hand, guide)))


# -- what is refused -------------------------------------------------------------------------------------


def drawn(name: str = "z", **infer: Any) -> Callable[[Any], Tensor]:
    return lambda law: pyro.sample(name, law.to_event(1), infer=infer)


def refused_guides() -> dict[str, tuple[Callable[[Tensor], Any], str]]:
    dist = pyro.distributions

    def delta(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Delta(x[:, :2]).to_event(1))

    def auxiliary(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            u = pyro.sample("u", dist.Normal(x[:, :2], 1.0).to_event(1), infer={"is_auxiliary": True})
            pyro.sample("z", dist.Delta(u.exp()).to_event(1))

    def one_for_all(x: Tensor) -> None:
        pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))

    def fixed_size(x: Tensor) -> None:
        with pyro.plate("data", 100):
            pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))

    def fixed_size_of_rows(x: Tensor) -> None:
        with pyro.plate("data", 100):
            pyro.sample("z", dist.Normal(x[:, :2], 1.0).to_event(1))

    def subsampled(x: Tensor) -> None:
        with pyro.plate("data", len(x), subsample_size=2) as index:
            pyro.sample("z", dist.Normal(x[index, :2], 1.0).to_event(1))

    def on_the_right(x: Tensor) -> None:
        with pyro.plate("data", len(x)), pyro.plate("pixels", 2):
            pyro.sample("z", dist.Normal(x[:, :2].T, 1.0))

    def observes(x: Tensor) -> None:
        guide(x)
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Normal(x[:, 0], 1.0), obs=x[:, 0])

    return {
        "Delta": (delta, "^z has no density under q"),
        "auxiliary": (auxiliary, "^u is auxiliary in the guide"),
        "global": (one_for_all, "^z is one for all data: .*poutine.condition"),
        "fixed size": (fixed_size, "^z: no plate has the size of the data .*'data': 100"),
        "fixed size, rows": (fixed_size_of_rows, "Shape mismatch inside plate.*follow x"),
        "subsample": (subsampled, "^the plate 'data' draws a subsample of 2 of"),
        "plate on the right": (on_the_right, "^z: the plate 'data' over the data is not the leftmost.*dim=-2"),
        "observed": (observes, "^y is observed in the guide"),
    }


@pytest.mark.parametrize("name", ["Delta", "auxiliary", "global", "fixed size", "fixed size, rows", "subsample",
                                  "plate on the right", "observed"])  # fmt: skip
def test_a_guide_is_refused_by_the_name_of_its_site(name: str) -> None:
    function, sentence = refused_guides()[name]
    with pytest.raises(ConfigError, match=sentence):
        log_weight((model, function))


@pytest.mark.parametrize(
    ("observe", "sentence"),
    [
        (lambda z, x: observed(z + x.mean(), x), "^p reads x .by mean., and p must not see x"),
        (lambda z, x: observed(z, x.flip(1)), "^obs observes x after flip"),
        (lambda z, x: pyro.sample("a", pyro.distributions.Normal(z, 1.0).to_event(1), obs=x[:, :2]), "after indexing"),
        (lambda z, x: (observed(z, x), observed(z, x, "b")), "^b and obs observe the same x"),
        (lambda z, x: observed(z, torch.zeros(len(z), D)), "^obs observes a tensor that is no part of x"),
        (lambda z, x: (pyro.factor("f", z.sum(-1)), observed(z, x)), "^f is a factor"),
        (lambda z, x: pyro.sample("a", pyro.distributions.Normal(x.new_zeros(D), 1.0).to_event(1).mask(False), obs=x),
         "^a is masked altogether"),
        (lambda z, x: (pyro.sample("w", pyro.distributions.Normal(z, 1.0).to_event(1)), observed(z, x)),
         "^w is latent in the model, and the guide has no site"),
        (lambda z, x: (pyro.sample("c", pyro.distributions.Delta(z).to_event(1)), observed(z, x)), "^c has no density"),
    ],
    ids=["reads x", "flipped", "a part", "twice", "a constant", "factor", "masked", "not in the guide", "Delta"],
)  # fmt: skip
def test_a_model_is_refused_by_the_name_of_its_site(observe: Callable[[Tensor, Tensor], Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        log_weight((model_with(observe), guide))


def test_whole_numbers_cannot_be_read_either() -> None:
    with pytest.raises(ConfigError, match=r"p reads x .by cumsum."):
        log_weight((model_with(lambda z, x: observed(z + x.cumsum(1)[:, :2], x)), guide), images(N_DATA).long())


def test_an_autoguide_is_refused() -> None:
    from pyro.infer.autoguide import AutoNormal

    with pytest.raises(ConfigError, match=r"^AutoNormal fits its parameters to one set of data"):
        from_pyro(model, AutoNormal(model))
