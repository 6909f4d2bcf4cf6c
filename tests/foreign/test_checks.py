"""The checks at the door, each by models that it alone finds wrong, and by sound ones that it lets pass."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, Gamma, Independent, LogNormal, Normal, OneHotCategorical
from torch.nn import functional as F

import hvae
from hvae.errors import ConfigError
from hvae.foreign import checks, data, evaluating, probe, visit
from hvae.foreign.checks import NOTHING_FOUND, Checked, Finding, check
from hvae.foreign.own_elbo import likely_cause
from hvae.foreign.stack import Stack
from tests.foreign import planted
from tests.foreign.planted import D, N, Net, Planted, Z, gaussian, prior

SAME_NOISE = "the same noise gave two results"
AMONG_THEMSELVES = "among themselves are not what they are among 16"

REFUSED: tuple[tuple[Callable[[], Planted], str, str], ...] = (
    # the model, the words, the check without which it passes
    (planted.dropout, SAME_NOISE, "_repeatable"),
    (planted.rare_dropout, SAME_NOISE, "_repeatable"),
    (planted.dropout_left_on, SAME_NOISE, "_repeatable"),
    (planted.own_randn, SAME_NOISE, "_repeatable"),
    (planted.moving_average, SAME_NOISE, "_repeatable"),
    (planted.unvisited_gate, SAME_NOISE, "_repeatable"),
    (planted.batch_norm_left_on, AMONG_THEMSELVES, "_rowwise"),
    (planted.batch_normalised, AMONG_THEMSELVES, "_rowwise"),
    (planted.mean_over_rows, AMONG_THEMSELVES, "_rowwise"),
    (planted.branch_on_a_batch_mean, AMONG_THEMSELVES, "_rowwise"),
    (planted.table_by_place, AMONG_THEMSELVES, "_rowwise"),
    (planted.noise_buffer, AMONG_THEMSELVES, "_rowwise"),
    (planted.relative_to_the_first_row, AMONG_THEMSELVES, "_rowwise"),
    (planted.cache_by_shape, AMONG_THEMSELVES, "_rowwise"),
    (planted.relaxed_against_one_hot, "z: q is a density (RelaxedOneHotCategorical), p a mass function", "lawful"),
    (planted.grey_under_bernoulli, "x has values outside the support of Bernoulli, such as 0.", "lawful"),
    (planted.normal_against_gamma, "q (Normal) draws values outside the support of p (Gamma)", "lawful"),
    (planted.skip_through_a_cache, "p moves when encode has seen other data", "_blind_to_x"),
    (planted.joint_leak, "p is another when q is walked with it than when it is walked alone", "_blind_to_x"),
)
NAMES = [of.__name__ for of, _, _ in REFUSED]


@pytest.mark.parametrize(("of", "words", "which"), REFUSED, ids=NAMES)
def test_a_planted_mistake_is_refused_in_one_sentence(of: Callable[[], Planted], words: str, which: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        of().checked()
    sentence = str(refusal.value)
    assert words in sentence
    assert "\n" not in sentence and len(sentence) < 450 and sentence.endswith(".")


SEEN_BY_ROWS_TOO = "dropout rare_dropout dropout_left_on own_randn moving_average unvisited_gate".split()
"""whatever changes from call to call changes from company to company"""


@pytest.mark.parametrize(("of", "words", "which"), REFUSED, ids=NAMES)
def test_without_its_check_it_is_not(
    of: Callable[[], Planted], words: str, which: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = tuple(each for each in checks.CHECKS if each.__name__ != which)
    assert len(left) == len(checks.CHECKS) - 1
    monkeypatch.setattr(checks, "CHECKS", left)
    if of.__name__ in SEEN_BY_ROWS_TOO:
        with pytest.raises(ConfigError, match=AMONG_THEMSELVES):
            of().checked()
    else:
        of().checked()


def test_rows_in_another_order_see_what_companies_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "_companies", lambda probe: [])
    with pytest.raises(ConfigError, match="the same rows in another order give other results"):
        planted.cache_by_shape().checked()
    # of one batch mean they say nothing
    assert not planted.branch_on_a_batch_mean().checked().doubts


IN_PLACE: tuple[tuple[Callable[[], Planted], str], ...] = (
    (planted.x_in_place, "encode changed x in place"),
    (planted.x_in_place_by_numpy, "encode changed x in place"),
    (planted.x_in_place_in_infer, "infer changed x in place"),
    (planted.context_in_place, "generate changed context in place"),
    (planted.value_in_place, "the value of z was changed in place"),
)


@pytest.mark.parametrize(("of", "words"), IN_PLACE, ids=[of.__name__ for of, _ in IN_PLACE])
def test_nothing_is_changed_in_place(of: Callable[[], Planted], words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=words):
        of().checked()
    monkeypatch.setattr(data.Snapshot, "changed", lambda self, trees: [False] * len(trees))
    monkeypatch.setattr(visit, "version_of", lambda tensor: 0)
    of().checked()


def test_a_density_that_changes_its_value_is_refused() -> None:
    net = Net()

    def generate(visit: Any) -> None:
        z = visit("z", hvae.law(lambda z: -z.mul_(0.5).square().sum(-1), lambda: torch.zeros(visit.rows, Z)))
        visit("x", Normal(net.decoder(z), 0.5))

    with pytest.raises(ConfigError, match="the value of z was changed in place"):
        Planted(hvae.Model(gaussian(net).infer, generate, net.encode)).checked()


# doubts


def only(checked: Checked) -> Finding:
    (doubt,) = checked.doubts
    assert not any(str(finding) == NOTHING_FOUND for finding in checked.findings)
    return doubt


def test_an_ignored_value_is_doubted_by_name() -> None:
    doubt = only(planted.value_ignored().checked())
    assert doubt.variable == "z"
    assert "no distribution of generate moves with z, to the last bit" in str(doubt)


def test_a_value_that_q_holds_still_is_not_called_ignored() -> None:
    """q gives every datum the same code, as a codebook of one used entry does; p's draws show that it is read."""
    net, table = Net(), torch.randn(4, Z)

    def model_of(read: bool) -> hvae.Model:
        def infer(visit: Any) -> None:
            visit("z", OneHotCategorical(torch.tensor([1.0, 0, 0, 0]).expand(visit.rows, 4)))

        def generate(visit: Any) -> None:
            z = visit("z", OneHotCategorical(torch.ones(4)))
            visit("x", Normal(net.decoder(z @ table if read else torch.zeros(len(z), Z)), 0.5))

        return hvae.Model(infer, generate)

    assert not Planted(model_of(read=True)).checked().doubts
    assert only(Planted(model_of(read=False)).checked()).variable == "z"


def test_random_numbers_without_effect_are_doubted() -> None:
    net = Net()

    def encode(x: Tensor) -> tuple[Tensor, Tensor]:
        mean, scale = net.encode(x)
        _ = mean + scale * torch.randn_like(scale)  # a draw that nobody uses
        return mean, scale

    assert "random numbers are drawn outside of visit" in str(only(Planted(gaussian(net, encode=encode)).checked()))


def test_a_generator_that_is_moved_is_put_back() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    checked = planted.sound().stack()
    torch.set_rng_state(before)
    check(checked)
    assert torch.equal(before, torch.get_rng_state())


def test_a_support_that_q_does_not_fill_is_doubted() -> None:
    net = Net()

    def infer(visit: Any) -> None:
        visit("z", LogNormal(*visit.code))

    assert only(Planted(hvae.Model(infer, gaussian(net).generate, net.encode)).checked()).variable == "z"


def test_batch_norm_that_saw_no_batch_is_doubted() -> None:
    assert "batch norm body.1 has seen no batch" in str(only(planted.batch_norm_never_updated().checked()))


def test_batch_norm_of_other_data_is_doubted() -> None:
    assert "standard deviations from the mean of these data" in str(only(planted.batch_norm_of_other_data().checked()))
    assert not planted.batch_norm_sound().checked().doubts


def test_a_last_block_of_one_datum_says_nothing_of_batch_norm() -> None:
    found = planted.batch_norm_sound()
    assert isinstance(found.x, Tensor)
    found.x = found.x.repeat(14, 1)[:4097].clone()  # data are encoded in blocks of 4096
    found.x[-1] = 100
    assert not found.checked().doubts


def test_batch_norm_is_looked_at_by_its_module_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "CHECKS", tuple(each for each in checks.CHECKS if each is not evaluating.normalised))
    assert not planted.batch_norm_never_updated().checked().doubts
    assert not planted.batch_norm_of_other_data().checked().doubts


# declared parents


@pytest.mark.parametrize("of", [planted.hidden_by_a_threshold, planted.hidden_by_detach])
def test_a_parent_that_no_gradient_shows_is_found(of: Callable[[], Planted]) -> None:
    found = of()
    with pytest.raises(ConfigError, match="its distribution moves with z2; declare z2 too"):
        found.checked()
    found.parents = {"x": ["z1", "z2"]}
    assert not found.checked().doubts
    found.parents = {"x": ["z1", "z2"], "z1": []}
    with pytest.raises(ConfigError, match="z1 was declared to have the parents none"):
        found.checked()
    found.parents = {"x": ["z1", "z7"]}
    with pytest.raises(ConfigError, match="parents names z7, which is no variable of p; it has z2, z1, x"):
        found.checked()


# two functions


def test_an_element_that_sees_itself_is_refused() -> None:
    with pytest.raises(ConfigError, match="its log_prob is not the distribution that its sample draws from"):
        planted.autoregressive(peeks=True).checked()
    with pytest.raises(ConfigError, match="its log_prob is not the distribution that its sample draws from"):
        planted.autoregressive(temperature=0.4).checked()


def test_a_sample_of_another_spread_is_refused() -> None:
    """It is wrong for z' and z alike, so pairs do not show it."""
    net = Net()

    def generate(visit: Any) -> None:
        law = Normal(net.decoder(visit("z", prior())), 0.5)
        visit("x", hvae.law(lambda x: law.log_prob(x).sum(-1), lambda: law.mean + 0.3 * torch.randn(visit.rows, D)))

    with pytest.raises(ConfigError, match="its log_prob is not the distribution that its sample draws from"):
        Planted(hvae.Model(gaussian(net).infer, generate, net.encode)).checked()


def test_two_functions_that_agree_say_what_would_have_been_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    checked = planted.autoregressive().checked()
    assert not checked.doubts
    assert any("log_prob and sample agree" in str(found) and "would have been seen" in str(found) for found in checked)
    monkeypatch.setattr(checks, "laws_agree", lambda probe: [])
    assert not planted.autoregressive(peeks=True).checked().doubts


# the author's own ELBO

ONLY_OWN: tuple[tuple[Callable[..., Planted], str], ...] = (
    (planted.scale_for_variance, "or one scale were a variance"),
    (planted.several_draws_inside, "or z held 5.2 draws and the likelihood their mean"),
    (planted.constant_left_out, "they differ by one constant, 6/2 log 2 pi, for all data"),
    (planted.elements_left_out, "tokens left out of log_prob"),
    (planted.mean_over_elements, "the likelihood in generate is a mean over the 6 elements of x"),
    (planted.beta_in_own, "a multiple of the rate, as if yours had beta = 3.9"),
)


@pytest.mark.parametrize(("of", "words"), ONLY_OWN, ids=[of.__name__ for of, _ in ONLY_OWN])
def test_what_own_elbo_alone_sees(of: Callable[..., Planted], words: str) -> None:
    with pytest.raises(
        ConfigError, match=r"nats \(standard error .*\) from the ELBO of infer and generate on 64 data with 16 draws"
    ) as found:
        of().checked()
    assert words in str(found.value)
    (said,) = of(own=False).checked().findings
    assert str(said) == NOTHING_FOUND and not said.doubtful


def test_an_own_elbo_that_agrees_says_what_would_have_been_seen() -> None:
    checked = planted.sound().checked()
    assert "own_elbo agrees" in str(checked.findings[0]) and "would have been seen" in str(checked.findings[0])


def test_an_own_elbo_with_a_seed_of_its_own_is_no_error() -> None:
    found = planted.sound()
    own = found.own_elbo
    assert own is not None

    def seeded(x: Tensor) -> Tensor:
        torch.manual_seed(3)
        return own(x)

    found.own_elbo = seeded
    assert not found.checked().doubts


OTHERS: tuple[tuple[Callable[[Tensor], Any], str], ...] = (
    (lambda elbo: elbo.mean(), r"own_elbo gave \(\) for 64 data; return one ELBO a datum"),
    (lambda elbo: elbo.tolist(), "own_elbo gave list for 64 data"),
    (lambda elbo: elbo / 0, "own_elbo is not finite for 64 of 64 data"),
    (lambda elbo: elbo @ elbo[:2], "own_elbo: RuntimeError: "),
    (lambda elbo: -elbo, "it is a loss, return its negative"),
    (lambda elbo: elbo / D, "yours is a mean over the 6 elements of x"),
    (lambda elbo: -elbo / D / 0.6931, "yours is in bits per dimension"),
    (lambda elbo: elbo.roll(1), "single data further than their draws allow"),
)


@pytest.mark.parametrize(("change", "words"), OTHERS, ids=[words for _, words in OTHERS])
def test_what_is_no_own_elbo_is_named(change: Callable[[Tensor], Any], words: str) -> None:
    found = planted.sound()
    own = found.own_elbo
    assert own is not None
    found.own_elbo = lambda x: change(own(x))
    with pytest.raises(ConfigError, match=words):
        found.checked()


def test_causes_that_explain_equally_well_are_named_together() -> None:
    """With a rate that is nearly the same for all data, a weight on it and a constant are one."""
    rate = torch.full((64,), 3.0) + 0.001 * torch.randn(64)
    distortion = 50 + 20 * torch.rand(64)
    terms = {"own": -distortion - 2 * rate, "ours": -distortion - rate, "rate": rate, "distortion": distortion}
    said = likely_cause(terms, 0.01, D)
    assert "one constant for all data" in said and "beta = 2" in said


# what nothing sees


def test_what_nothing_sees_is_said_to_be_unseen() -> None:
    (said,) = planted.normalised_by_the_first_batch().checked().findings
    assert "found nothing" in str(said) and "normalised by the first batch ever seen" in str(said)
    assert not said.doubtful


# after the last measurement


def test_drift_is_found_after_the_last_measurement() -> None:
    net = Net()
    checked = Planted(gaussian(net, module=net)).checked()
    assert checked.drift() == ()
    with torch.no_grad():
        net.decoder[0].weight.mul_(1.01)
    (doubt,) = checked.drift()
    assert "other results than before the measurement (x under p" in str(doubt)


def test_a_module_that_is_back_in_training_mode_has_not_drifted() -> None:
    net = Net(nn.Dropout(0.5)).train()
    checked = Planted(gaussian(net, module=net)).checked()
    assert net.training and checked.drift() == () and net.training


# the mode of a module


def test_a_module_is_put_in_evaluation_mode_and_back() -> None:
    net = Net(nn.Dropout(0.5))
    net.decoder.eval()
    net.body[0].weight.requires_grad_(False)
    modes = [part.training for part in net.modules()]
    wanted = [weight.requires_grad for weight in net.parameters()]
    assert len({*modes}) == len({*wanted}) == 2
    assert not Planted(gaussian(net, module=net)).checked().doubts
    with pytest.raises(KeyError), checks.evaluating(gaussian(net, module=net)):
        assert not any(part.training for part in net.modules())
        assert not any(weight.requires_grad for weight in net.parameters())
        raise KeyError
    assert [part.training for part in net.modules()] == modes
    assert [weight.requires_grad for weight in net.parameters()] == wanted


# models of other shapes, all sound


def test_sound_models_pass_whatever_their_shapes() -> None:
    for of in (deep, images, parts, plates, in_half_precision):
        checked = of().checked()
        assert [str(found) for found in checked if found.doubtful] == [], of.__name__


def deep(n_layers: int = 20) -> Planted:
    """A ladder in the joint form, with a context."""
    net = Net()
    cells = [nn.Linear(D, 2 * Z) for _ in range(n_layers)]
    back = nn.Linear(Z, D)

    def walk(visit: Any) -> None:
        state = visit.context.expand(-1, D)
        for i, cell in enumerate(cells):
            mean, log_scale = cell(state).chunk(2, -1)
            law = Normal(mean, log_scale.tanh().exp())
            state = state.tanh() + 0.3 * back(
                visit(f"z{n_layers - i}", law, lambda law=law: Normal(law.mean + visit.code, law.scale))
            )
        visit("x", Normal(state, 0.5))

    return Planted(hvae.Model.joint(walk, lambda x, context: net.encode(x)[0]), context=torch.randn(N, 1))


def images() -> Planted:
    """Latents with space, one-hot latents, and x of three axes."""
    down, up, mix = nn.Conv2d(1, 4, 2, 2), nn.ConvTranspose2d(2, 1, 2, 2), nn.Linear(3, 1)

    def infer(visit: Any) -> None:
        h = down(visit.code)
        visit("space", Independent(Normal(h[:, :2], h[:, 2:].exp()), 3))
        visit("kind", OneHotCategorical(logits=h.flatten(1)[:, :3]))

    def generate(visit: Any) -> None:
        kind = visit("kind", OneHotCategorical(torch.ones(3)))
        space = visit("space", Normal(torch.zeros(2, 3, 3), 1.0))
        visit("x", Bernoulli(logits=up(space) + mix(kind)[..., None, None]))

    return Planted(hvae.Model(infer, generate), (torch.randn(20, 1, 6, 6) > 0).float())


def parts() -> Planted:
    """Several observed variables, one of counts, one with missing entries; a Gamma latent."""
    counts, numbers = torch.poisson(torch.full((N, 3), 2.0)), planted.data()
    numbers[::2, 0] = torch.nan

    def infer(visit: Any) -> None:
        visit("rate", Gamma(1 + visit.code["counts"], 1.5))

    def generate(visit: Any) -> None:
        rate = visit("rate", Gamma(torch.ones(3), 1.0))
        visit("counts", torch.distributions.Poisson(rate))
        mean = F.pad(rate, (0, D - 3))
        visit("numbers", hvae.masked(Normal(mean, 1.0), visit.context, fill=float("nan")))

    return Planted(hvae.Model(infer, generate), {"counts": counts, "numbers": numbers}, context=~numbers.isnan())


def plates() -> Planted:
    """A flow without inverse as q."""
    net = Net()

    def infer(visit: Any) -> None:
        mean, scale = visit.code
        visit("z", hvae.pushed(Normal(mean, scale), lambda e: (2 * e, torch.full(e.shape, 2.0).log())))

    return Planted(hvae.Model(infer, gaussian(net).generate, net.encode))


def in_half_precision() -> Planted:
    net = Net().bfloat16()

    def infer(visit: Any) -> None:
        mean, scale = visit.code
        visit("z", Normal(mean.float(), scale.float()))

    def generate(visit: Any) -> None:
        z = visit("z", prior())
        visit("x", Normal(net.decoder(z.bfloat16()).float(), 0.5))

    return Planted(hvae.Model(infer, generate, lambda x: net.encode(x.bfloat16()), module=net))


@pytest.mark.parametrize("n", [1, 2, 3, 5, 16])
def test_few_data_are_enough(n: int) -> None:
    found = planted.sound()
    assert isinstance(found.x, Tensor)
    found.x, found.own_elbo = found.x[:n], None
    assert not found.checked().doubts


def test_a_flow_that_only_draws_is_still_seen_to_move() -> None:
    """Its log-probability of its own draw is the same wherever its mean goes; the draw is not."""
    found = plates()
    mistaken = hvae.Model(found.model.infer, found.model.generate, lambda x: (Net().encode(x)[0] - x[:1, :2], 1.0))
    with pytest.raises(ConfigError, match=rf"{AMONG_THEMSELVES} \(z under q"):
        Planted(mistaken).checked()


def test_draws_by_blocks_without_inverse_are_said_to_be_unseen() -> None:
    def infer(visit: Any) -> None:
        visit("z", hvae.pushed(Gamma(torch.ones(visit.rows, Z), 1.0), lambda e: (e.log(), -e.log())))

    assert "whether rows depend on each other was not seen" in str(
        only(Planted(hvae.Model(infer, gaussian(Net()).generate)).checked())
    )


def test_the_checks_of_twenty_layers_take_a_few_hundred_rows() -> None:
    found = deep()
    stack = found.stack()
    check(stack)
    assert stack.functions.calls.rows < 400
    assert isinstance(stack, Stack)


def test_the_checks_take_no_gradients() -> None:
    found = planted.sound()
    assert not any(values.requires_grad for values in found.checked().probe.values.values())


def test_variables_that_come_and_go_are_refused() -> None:
    net = Net()

    def infer(visit: Any) -> None:
        mean, scale = visit.code
        visit("z", Normal(mean, scale))
        if visit.rows != 4:  # of the first looks none has four rows
            visit("u", Normal(mean, scale))

    def generate(visit: Any) -> None:
        z = visit("z", prior())
        u = visit("u", prior())
        visit("x", Normal(net.decoder(z + u), 0.5))

    with pytest.raises(ConfigError, match="infer did not visit u in this call"):
        Planted(hvae.Model(infer, generate, net.encode)).checked()


def test_an_order_that_changes_is_refused() -> None:
    net = Net()

    def infer(visit: Any) -> None:
        mean, scale = visit.code
        for name in ("z", "u") if visit.rows != 4 else ("u", "z"):
            visit(name, Normal(mean, scale))

    def generate(visit: Any) -> None:
        visit("x", Normal(net.decoder(visit("z", prior()) + visit("u", prior())), 0.5))

    with pytest.raises(ConfigError, match="infer visits u, z in one call, and z, u in another"):
        Planted(hvae.Model(infer, generate, net.encode)).checked()


def test_half_precision_and_tf32_round_more() -> None:
    single, half = {torch.float32, torch.int64}, {torch.float32, torch.float16}
    assert probe.rounding(single, tf32=False) == (probe.FLOOR_NATS, probe.SHARE)
    assert probe.rounding(single, tf32=True) == probe.rounding(half, tf32=False) == probe.COARSE[torch.float16]
    assert probe.rounding({torch.bfloat16, torch.float16}, tf32=False) == probe.COARSE[torch.bfloat16]
    assert in_half_precision().checked().probe._tolerance == probe.COARSE[torch.bfloat16]
