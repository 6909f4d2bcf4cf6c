"""What the door refuses before anything is measured: one sentence each, with the remedy."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import (
    Bernoulli,
    Categorical,
    Distribution,
    Independent,
    Normal,
    RelaxedOneHotCategorical,
    constraints,
)

import hvae
from hvae.errors import ConfigError, NotMeasuredError
from hvae.foreign.stack import Stack
from hvae.rng import noise
from tests.foreign import planted
from tests.foreign.planted import D, N, Net, Planted, Z, gaussian, prior


class Delta(Distribution):
    """As Pyro has it: all mass on one value."""

    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012 - torch declares it so

    def __init__(self, v: Tensor) -> None:
        self.v = v
        super().__init__(v.shape, validate_args=False)


def model(
    q: Callable[[Any], Any] = lambda visit: visit("z", Normal(*visit.code)),
    p: Callable[[Any], Any] = lambda visit: visit("z", prior()),
    x: Callable[[Any, Tensor, Net], Any] = lambda visit, z, net: visit("x", Normal(net.decoder(z), 0.5)),
    encode: Callable[..., Any] | None = None,
    net: Net | None = None,
) -> Planted:
    """A sound model of one latent, of which a part is another."""
    own = net or Net()
    return Planted(hvae.Model(q, lambda visit: x(visit, p(visit), own), encode or own.encode))


def global_latent() -> Planted:
    mean = torch.zeros(5)

    def infer(visit: Any) -> None:
        visit("w", Normal(mean, 1.0))
        visit("z", Normal(*visit.code))

    def generate(visit: Any) -> None:
        w, z = visit("w", Normal(torch.zeros(5), 1.0)), visit("z", prior())
        visit("x", Normal(Net().decoder(z) + w.mean(-1, keepdim=True), 0.5))

    net = Net()
    return Planted(hvae.Model(infer, generate, net.encode))


def together() -> Planted:
    def infer(visit: Any) -> None:
        mean, scale = visit.code
        visit(("z1", "z2"), Normal(mean, scale))

    return model(q=infer)


def own_samples(visit: Any) -> None:
    mean, scale = visit.code
    visit("z", Normal(mean.expand(5, *mean.shape), scale))


def samples_in_p(visit: Any, z: Tensor, net: Net) -> None:
    visit("x", Normal(net.decoder(z).expand(5, len(z), D), 0.5))


def time_major(visit: Any, z: Tensor, net: Net) -> None:
    visit("x", Normal(net.decoder(z).T, 0.5))


def twice(visit: Any) -> None:
    visit("z", Normal(*visit.code))
    visit("z", Normal(*visit.code))


def twice_in_p(visit: Any, z: Tensor, net: Net) -> None:
    visit("z", prior())


def other_name(visit: Any) -> Any:
    return visit("u", prior())


def never_x(visit: Any, z: Tensor, net: Net) -> None:
    return None


def two_in_q(visit: Any) -> None:
    visit("z", Normal(*visit.code))
    visit("u", Normal(*visit.code))


def negative_scale(visit: Any, z: Tensor, net: Net) -> None:
    visit("x", Normal(net.decoder(z), -torch.ones(D), validate_args=True))


def unvalidated(visit: Any, z: Tensor, net: Net) -> None:
    visit("x", Normal(net.decoder(z), -torch.ones(D), validate_args=False))


def not_finite(visit: Any) -> None:
    mean, scale = visit.code
    visit("z", Normal(mean / 0 * 0, scale, validate_args=False))


def not_a_distribution(visit: Any) -> None:
    visit("z", visit.code)


def simplex_and_line() -> Planted:
    net = Net()
    q = torch.distributions.Dirichlet
    return model(
        q=lambda visit: visit("z", q(net.body(visit.code).exp())),
        p=lambda visit: visit("z", Normal(torch.zeros(2 * Z), 1.0)),
        x=lambda visit, z, net: visit("x", Normal(net.decoder(z[:, :Z]), 0.5)),
        encode=lambda x: x,
    )


def with_weights_elsewhere() -> Planted:
    net = Net()
    return Planted(gaussian(net, module=net.to("meta")))


def with_context_elsewhere() -> Planted:
    return Planted(gaussian(Net()), context=torch.zeros(N, 1, device="meta"))


def of_another_type() -> Planted:
    found = planted.sound()
    assert isinstance(found.x, Tensor)
    found.x = found.x.double()
    return found


def given(change: Callable[[Tensor], Tensor]) -> Planted:
    """A sound model, of other data than it takes."""
    found = planted.sound()
    assert isinstance(found.x, Tensor)
    found.x = change(found.x)
    return found


def many_missing_numbers(x: Tensor) -> Tensor:
    holes = torch.rand(x.shape, generator=torch.Generator().manual_seed(0)) < 0.3
    return x.masked_fill(holes, torch.nan)


def a_joint_walk_that_fails_in_q() -> Planted:
    net = nn.Linear(Z + 1, 2)

    def walk(visit: Any) -> None:
        top = visit("z2", prior(), lambda: Normal(visit.code[0], visit.code[1]))
        z = visit("z1", Normal(top, 1.0), lambda: Normal(net(visit.code[0]), 1.0))
        visit("x", Normal(Net().decoder(z), 0.5))

    return Planted(hvae.Model.joint(walk, Net().encode))


def missing_numbers() -> Planted:
    found = model(encode=lambda x: Net().encode(x.nan_to_num()))
    assert isinstance(found.x, Tensor)
    found.x[3, 2] = torch.nan
    found.model = hvae.Model(
        found.model.infer,
        lambda visit: visit("x", Normal(Net().decoder(visit("z", prior())), 0.5, validate_args=False)),
        found.model.encode,
    )
    return found


SENTENCES: dict[str, tuple[Callable[[], Planted], str]] = {
    "delta": (
        lambda: model(q=lambda visit: visit("z", Delta(visit.code[0]))),
        "z has no density under q (Delta): a continuous deterministic code has no rate and no likelihood. A choice "
        "from a codebook: visit its one-hot index.",
    ),
    "delta, its elements independent": (
        lambda: model(q=lambda visit: visit("z", Independent(Delta(visit.code[0]), 1))),
        "z has no density under q (Delta)",
    ),
    "measures": (
        planted.relaxed_against_one_hot,
        "z: q is a density (RelaxedOneHotCategorical), p a mass function (OneHotCategorical); log q - log p is no "
        "rate. Visit OneHotCategorical in both, as at test time.",
    ),
    "sets": (simplex_and_line, "z: q (Dirichlet) and p (Normal) are densities over different sets"),
    "one for all": (
        global_latent,
        "w is one for all data: its distribution under q has no row axis and no datum has an evidence of its own; "
        "condition on a value of w (write it into generate)",
    ),
    "together": (
        together,
        "z1 and z2 are drawn together by q: visit them one after the other (q(z1), q(z2|z1)) or as one variable.",
    ),
    "own K axis in q": (
        lambda: model(q=own_samples),
        "samples are drawn by visit; take your K axis out.",
    ),
    "own K axis in p": (
        lambda: model(x=samples_in_p),
        "the distribution of x begins with 5, the rows are 3: samples are drawn by visit; take your K axis out.",
    ),
    "time first": (lambda: model(x=time_major), "the distribution of x begins with 6, the rows are 3"),
    "the same noise": (
        planted.dropout,
        "net.eval(), or hand it as module=; a gate that belongs to the model is visited",
    ),
    "twice in q": (lambda: model(q=twice), "z is visited twice in one walk; each variable has one distribution."),
    "twice in p": (lambda: model(x=twice_in_p), "z is visited twice in one walk"),
    "other names": (lambda: model(p=other_name), "generate visits u, which infer does not and the data do not have"),
    "only in q": (lambda: model(q=two_in_q), "infer visits u, which generate does not; names in both must agree."),
    "x never": (lambda: model(x=never_x), "generate never visits x, which the data have"),
    "no latent": (lambda: model(q=lambda visit: None), "generate visits z, which infer does not"),
    "negative scale": (lambda: model(x=negative_scale), "generate, after z: ValueError: Expected parameter "),
    "negative scale without validation": (
        lambda: model(x=unvalidated),
        "the log-probability of x under p is nan in 16 of 16 rows; look at the parameters there",
    ),
    "not finite": (lambda: model(q=not_finite), "z is not finite as q draws it; look at the parameters of its Normal"),
    "missing numbers": (missing_numbers, "x has missing values (NaN), which no density scores; visit hvae.masked"),
    "no distribution": (lambda: model(q=not_a_distribution), "z was visited with a tuple"),
    "the code in p": (planted.code_read_in_p, "visit.code was read while p is walked, and p must not see x"),
    "grey x": (planted.grey_under_bernoulli, "x has values outside the support of Bernoulli, such as 0."),
    "another device": (
        with_weights_elsewhere,
        "x lies on cpu, the weights of the module on meta; move x, as in x.to('meta'), or the module.",
    ),
    "context on another device": (with_context_elsewhere, "the context lies on meta, x on cpu; move it"),
    "another type": (of_another_type, "encode: RuntimeError: "),
    "bytes": (lambda: given(lambda x: x.abs().byte()), "(x is uint8 [64, 6]; nets take floats: give x.float())"),
    "another width": (
        lambda: given(lambda x: x[:, :5]),
        "(x is float32 [64, 5]; if the nets want another shape, reshape",
    ),
    "images": (lambda: given(lambda x: x.view(-1, 1, 2, 3)), "(x is float32 [64, 1, 2, 3]; if the nets want another"),
    "many missing numbers": (lambda: given(many_missing_numbers), "numbers that are not finite, the first in column "),
    "one missing number": (
        lambda: given(lambda x: x.index_fill(1, torch.tensor([2]), torch.inf)[:2].repeat(32, 1)),
        "x has 64 numbers that are not finite, the first in column 2; leave such data out",
    ),
    "in q of a joint walk": (a_joint_walk_that_fails_in_q, "q of z1: RuntimeError: "),
    "rows of a code": (
        lambda: model(encode=lambda x: x[:1]),
        "data; the first axis of all that it returns is the data.",
    ),
}


@pytest.mark.parametrize("case", SENTENCES)
def test_it_is_refused_in_one_sentence_with_the_remedy(case: str) -> None:
    of, words = SENTENCES[case]
    with pytest.raises(ConfigError) as refusal:
        of().checked()
    sentence = str(refusal.value)
    assert words in sentence, sentence
    assert "\n" not in sentence and len(sentence) < 450


def test_what_a_flow_without_inverse_cannot_score_is_named_with_the_remedy() -> None:
    net = Net()

    def infer(visit: Any) -> None:
        mean, scale = visit.code
        visit("z", hvae.pushed(Normal(mean, scale), lambda e: (2 * e, torch.full(e.shape, 2.0).log())))

    stack = Planted(hvae.Model(infer, gaussian(net).generate, net.encode)).stack()
    x = stack.numbers[:5].unsqueeze(0)
    with pytest.raises(
        NotMeasuredError, match=r"z: it cannot score a value that it did not draw .*hand `pull` to hvae"
    ):
        stack.infer(x, {}, {"z": torch.zeros(1, 5, Z)})
    drawn = noise(stack.noise_specs(), 1, 5, seed=0, purpose="test")
    assert stack(x, drawn).log_weight.isfinite().all()


@pytest.mark.parametrize("width", [1, 2, 3, 5, 8, 16])
@pytest.mark.parametrize("n", [3, 5, 16])
def test_a_prior_without_rows_is_told_from_rows_whatever_the_numbers(width: int, n: int) -> None:
    """Units, data and rows of the first looks may all be one number."""
    down, up = nn.Linear(width, 2 * width), nn.Linear(width, width)

    def infer(visit: Any) -> None:
        mean, log_scale = down(visit.code).chunk(2, -1)
        visit("z", Normal(mean, log_scale.exp()))

    def generate(visit: Any) -> None:
        visit("x", Normal(up(visit("z", Normal(torch.zeros(width), 1.0))), 1.0))

    found = Planted(hvae.Model(infer, generate), torch.randn(n, width))
    checked = found.checked()
    assert not checked.doubts
    stack = checked.probe.stack
    x = stack.numbers[:2].unsqueeze(0)
    evidence = stack(x, noise(stack.noise_specs(), 4, 2, seed=0, purpose="test"))
    z = evidence.q["z"].value
    assert torch.allclose(evidence.p["z"].log_prob.float(), Normal(0.0, 1.0).log_prob(z).sum(-1), atol=1e-4)


def test_time_before_rows_is_refused_also_where_there_are_sixteen_steps() -> None:
    net = nn.Linear(Z, 16)

    def generate(visit: Any) -> None:
        z = visit("z", prior())
        visit("x", Normal(net(z).T.unsqueeze(-1), 1.0))  # [time, rows, 1]

    found = Planted(hvae.Model(lambda visit: visit("z", Normal(visit.code[:, :Z, 0], 1.0)), generate))
    found.x = torch.randn(20, 16, 1)
    with pytest.raises(ConfigError, match="the distribution of x begins with 16, the rows are 3"):
        found.checked()


def test_whole_numbers_are_scored_as_such() -> None:
    """Tokens, of type long, under a categorical distribution and under two functions."""
    words, table, out = torch.randint(0, 7, (N, 4)), nn.Embedding(7, 2 * Z), nn.Linear(Z, 28)

    def infer(visit: Any) -> None:
        mean, log_scale = table(visit.code).mean(1).chunk(2, -1)
        visit("z", Normal(mean, log_scale.exp()))

    def model_of(law: Callable[[Tensor], Any]) -> hvae.Model:
        return hvae.Model(infer, lambda visit: visit("x", law(out(visit("z", prior())).view(-1, 4, 7))))

    def two_functions(logits: Tensor) -> Any:
        each = Categorical(logits=logits)
        return hvae.law(lambda x: each.log_prob(x).sum(-1), each.sample)

    weights = []
    for law in (lambda logits: Categorical(logits=logits), two_functions):
        stack = Stack.of(model_of(law), {"x": words})
        assert not Planted(model_of(law), words).checked().doubts
        drawn = noise(stack.noise_specs(), 2, 5, seed=0, purpose="test")
        weights.append(stack(stack.numbers[:5].unsqueeze(0), drawn).log_weight)
    assert torch.allclose(weights[0], weights[1], atol=1e-4)


def test_values_on_the_edge_of_a_support_are_inside() -> None:
    """A simplex whose sum is 1 in float32 only, and probabilities of 0 and 1."""
    logits = torch.randn(N, 60) * 5
    found = Planted(
        hvae.Model(
            lambda visit: visit("z", RelaxedOneHotCategorical(torch.tensor(0.7), logits=visit.code)),
            lambda visit: visit(
                "x", Normal(visit("z", RelaxedOneHotCategorical(torch.tensor(0.7), logits=torch.zeros(60))), 1.0)
            ),
        ),
        logits,
    )
    assert not found.checked().doubts
    net = Net()
    black = Planted(
        hvae.Model(
            lambda visit: visit("z", Normal(visit.code[:, :Z], 1.0)),
            lambda visit: visit("x", Bernoulli(logits=net.decoder(visit("z", prior())))),
        ),
        torch.zeros(N, D),
    )
    assert not black.checked().doubts
