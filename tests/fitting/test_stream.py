"""`hvae.fit` against loops by hand in plain PyTorch, in float64: replicas, stops, states, and what it refuses."""

import copy
import io
import itertools
import math
import re
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import hvae
from hvae import Elbo, Iwae, StickingTheLanding, rng
from hvae.errors import ConfigError, TrainingError
from hvae.families import Bernoulli, Relaxation
from hvae.fitting import Fit, Record, Stage, fit
from hvae.nets import BatchNorm
from hvae.objectives import DoublyReparametrised, Objective, UnsuitedError, WakeSleep
from hvae.schedules import Cyclical, LinearWarmup, StepDecay
from tests.fitting.models import Branching, Running, X, apart, make, several, weights

BATCHES = list(X.split(20))


def by_hand(
    model: hvae.HVAE,
    objective: Objective,
    n_steps: int,
    *,
    seed: int = 0,
    n_samples: int = 1,
    rate: Any = 0.05,
    clip_norm: float = math.inf,
    stages: tuple[Stage, ...] = (),
) -> list[float]:
    """One model by `torch.optim.Adam` as everybody writes it: no stack, no vmap, no fused kernel. The losses."""
    optimiser = torch.optim.Adam(model.parameters(), lr=1.0, fused=False, foreach=False)
    losses, start = [], 0
    for step in range(n_steps):
        for stage in stages:
            if step == stage.from_step:
                objective, rate, n_samples, start = stage.objective, stage.learning_rate, stage.n_samples, step
        x = BATCHES[step % 3].double()
        noise = rng.noise(
            objective.noise_specs(model), n_samples, len(x), seed=seed, purpose="train", step=step, dtype=torch.float64
        )
        optimiser.zero_grad()
        loss = objective.on(model, x.unsqueeze(0), noise, step - start)[0]
        loss.backward()
        norm = torch.cat([weight.grad.flatten() for weight in model.parameters() if weight.grad is not None]).norm()
        for weight in model.parameters():
            if weight.grad is not None and norm > clip_norm:
                weight.grad *= clip_norm / norm
        optimiser.param_groups[0]["lr"] = rate(step - start) if callable(rate) else rate
        optimiser.step()
        losses.append(loss.item())
    return losses


def through(training: Fit) -> list[Record]:
    return list(training)


# Equal to loops by hand


@pytest.mark.parametrize(
    ("objective", "n_samples"),
    [(Elbo(beta=LinearWarmup(10)), 1), (StickingTheLanding(Elbo()), 2), (Iwae(), 3), (WakeSleep(), 1)],
    ids=["elbo", "sticking", "iwae", "wake-sleep"],
)
def test_every_replica_equals_a_loop_by_hand(objective: Objective, n_samples: int) -> None:
    models, twins = several(3), several(3)
    knobs: dict[str, Any] = {"n_samples": n_samples, "clip_norm": 1.5}
    rate = StepDecay(5, factor=0.7, start=0.05)
    start = [weights(model) for model in models]
    records = through(fit(models, objective, BATCHES, n_steps=20, learning_rate=rate, seeds=(4, 0, 7), **knobs))
    for replica, (model, twin, seed) in enumerate(zip(models, twins, (4, 0, 7), strict=True)):
        losses = by_hand(twin, objective, 20, seed=seed, rate=rate, **knobs)
        assert [record.loss_nats[replica].item() for record in records] == pytest.approx(losses, abs=1e-10)
        assert apart(weights(model), weights(twin)) < 1e-10
        assert apart(weights(model), start[replica]) > 0.1
    assert [record.step for record in records] == list(range(1, 21))
    assert [record.learning_rate for record in records] == [rate(step) for step in range(20)]


def test_stages_follow_each_other_with_schedules_of_their_own() -> None:
    then = (
        Stage(6, Iwae(beta=LinearWarmup(4)), LinearWarmup(3, start=0.01, stop=0.1), n_samples=3),
        Stage(11, Elbo(), 0.02),
    )
    (model, twin), (early, _) = several(2), several(2)
    twin.load_state_dict(model.state_dict())
    through(fit(model, Elbo(), BATCHES, n_steps=16, learning_rate=0.05, then=then))
    by_hand(twin, Elbo(), 16, stages=then)
    assert apart(weights(model), weights(twin)) < 1e-10
    through(fit(early, Elbo(), BATCHES, n_steps=16, learning_rate=0.05, then=then[:1]))
    assert apart(weights(model), weights(early)) > 1e-3


def test_replicas_together_equal_fits_of_one_each() -> None:
    together, alone = several(4), several(4)
    records = through(fit(together, Elbo(), BATCHES, n_steps=15, learning_rate=0.05, clip_norm=1.0))
    for replica, model in enumerate(alone):
        single = through(fit(model, Elbo(), BATCHES, n_steps=15, learning_rate=0.05, clip_norm=1.0, seeds=(replica,)))
        assert apart(weights(model), weights(together[replica])) < 1e-10
        for one, all_of_them in zip(single, records, strict=True):
            assert one.terms.keys() == all_of_them.terms.keys()
            for name, term in one.terms.items():
                torch.testing.assert_close(all_of_them.terms[name][replica], term[0], atol=1e-10, rtol=0)
    assert apart(weights(together[0]), weights(together[1])) > 0.01


def test_the_models_hold_discrete_draws_as_the_relaxation_says_in_training_only() -> None:
    relaxation = Relaxation(0.7)
    model, twin = make(0, family=Bernoulli), make(0, family=Bernoulli)
    through(fit(model, Elbo(), BATCHES, n_steps=8, learning_rate=0.05, relaxation=relaxation))
    for module in twin.posterior.modules():
        if isinstance(module, Bernoulli):
            module.relaxation = relaxation
    by_hand(twin, Elbo(), 8)
    assert apart(weights(model), weights(twin)) < 1e-10
    assert all(not isinstance(m, Bernoulli) or m.relaxation is None for m in model.modules())


# The record


def test_the_record_is_that_of_the_batch_before_the_step() -> None:
    model, untouched = make(0), make(0)
    (record,) = fit(
        model, Elbo(), BATCHES, n_steps=1, n_samples=4, also=lambda evidence, step: {"draws": evidence.q["z1"].value}
    )
    specs = untouched.noise_specs()
    noise = rng.noise(specs, 4, 20, seed=0, purpose="train", dtype=torch.float64)
    evidence = untouched(BATCHES[0].double().unsqueeze(0), noise)
    assert record.bound_nats.item() == pytest.approx(evidence.log_weight.mean().item(), abs=1e-10)
    assert record.distortion_nats.item() == pytest.approx(evidence.distortion.mean().item(), abs=1e-10)
    assert list(record.rate_nats) == ["z1", "z2"]
    for name, rate in record.rate_nats.items():
        assert rate.item() == pytest.approx(evidence.rate(name).mean().item(), abs=1e-10)
    torch.testing.assert_close(record.terms["draws"][0], evidence.q["z1"].value, atol=1e-10, rtol=0)
    assert record.alive.tolist() == [True]
    assert not any(term.requires_grad for term in (record.loss_nats, *record.terms.values()))


def test_noise_is_keyed_by_seed_and_step() -> None:
    """Every replica and step has numbers of its own, which are those of its key."""
    seen: list[Tensor] = []
    records = through(
        fit(
            several(2), Elbo(), BATCHES, n_steps=2, learning_rate=1e-12, n_samples=2, seeds=(3, 5),
            also=lambda evidence, step: {"z1": evidence.q["z1"].value},
        )
    )  # fmt: skip
    for record, (replica, seed) in itertools.product(records, enumerate((3, 5))):
        noise = rng.noise(
            make(0).noise_specs(), 2, 20, seed=seed, purpose="train", step=record.step - 1, dtype=torch.float64
        )
        x = BATCHES[record.step - 1].double().unsqueeze(0)
        expected = make(replica)(x, noise).q["z1"].value
        torch.testing.assert_close(record.terms["z1"][replica], expected, atol=1e-9, rtol=0)
        seen.append(noise["z1"])
    assert all(not torch.equal(a, b) for a, b in itertools.combinations(seen, 2))


# Which weights train, and what stands for them in the end


def test_only_named_weights_train_and_the_others_stay_bit_for_bit() -> None:
    model = make(0)
    before = weights(model)
    encoder = {name for name, owner in model.owners.items() if owner != "decoder"}
    through(fit(model, Elbo(), BATCHES, n_steps=5, trainable=encoder))
    for name, value in weights(model).items():
        assert torch.equal(value, before[name]) == (name not in encoder), name


def test_weights_that_train_now_and_then_equal_two_optimisers_by_hand() -> None:
    model, twin = make(0), make(0)
    encoder = frozenset(name for name, owner in model.owners.items() if owner != "decoder")
    everything = frozenset(model.owners)
    through(
        fit(
            model, Elbo(), BATCHES, n_steps=9, learning_rate=0.05,
            trainable=lambda step: everything if step % 3 == 2 else encoder,
        )
    )  # fmt: skip
    parts = [[w for name, w in twin.named_parameters() if (name in encoder) == chosen] for chosen in (True, False)]
    optimisers = [torch.optim.Adam(part, lr=0.05, fused=False, foreach=False) for part in parts]
    for step in range(9):
        x = BATCHES[step % 3].double().unsqueeze(0)
        noise = rng.noise(twin.noise_specs(), 1, 20, seed=0, purpose="train", step=step, dtype=torch.float64)
        twin.zero_grad()
        Elbo().on(twin, x, noise, step)[0].backward()
        for optimiser in optimisers[: 2 if step % 3 == 2 else 1]:
            optimiser.step()
    assert apart(weights(model), weights(twin)) < 1e-10


def test_a_weight_without_gradient_stands_still_and_may_be_unused() -> None:
    model, frozen = make(0), make(0)
    frozen.decoder.requires_grad_(False)
    frozen.posterior.register_parameter("unused", nn.Parameter(torch.ones(2, dtype=torch.float64)))
    before = weights(frozen)
    encoder = {name for name, owner in model.owners.items() if owner != "decoder"}
    through(fit(frozen, Elbo(), BATCHES, n_steps=5))
    through(fit(model, Elbo(), BATCHES, n_steps=5, trainable=encoder))
    after, expected = weights(frozen), weights(model)
    assert torch.equal(after.pop("posterior.unused"), before["posterior.unused"])
    assert apart(after, expected) < 1e-10


def test_averaged_weights_are_what_the_models_are_given() -> None:
    model, twin = make(0), make(0)
    average = weights(twin)
    through(fit(twin, Elbo(), BATCHES, n_steps=6, learning_rate=0.05))
    training = fit(model, Elbo(), BATCHES, n_steps=6, learning_rate=0.05, ema_decay=0.8)
    for _ in training:
        latest = training.state()["parameters"]
        average = {name: 0.8 * value + 0.2 * latest[name][0] for name, value in average.items()}
    assert apart(weights(model), average) < 1e-10
    assert apart({name: value[0] for name, value in latest.items()}, weights(twin)) < 1e-10
    assert apart(average, weights(twin)) > 1e-3


class Normed(nn.Sequential):
    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__(nn.Linear(n_in, 4), BatchNorm(4), nn.Linear(4, n_out))


def test_batch_norm_has_the_constants_of_one_pass_when_the_training_ends() -> None:
    models = several(2, Normed)
    training = fit(models, Elbo(), BATCHES, n_steps=7, learning_rate=0.05)
    through(training)
    for replica, model in enumerate(models):
        assert not model.training
        first, norm = (model.posterior.network.conditionals["z1"].net[i] for i in range(2))  # type: ignore[union-attr,index]
        seen = X.double() @ first.weight.T + first.bias
        torch.testing.assert_close(norm.mean, seen.mean(0), atol=1e-10, rtol=0)
        torch.testing.assert_close(norm.variance, seen.var(0, unbiased=False), atol=1e-10, rtol=0)
        assert torch.equal(
            training.state()["buffers"]["posterior.network.conditionals.z1.net.1.mean"][replica], norm.mean
        )


def test_a_model_in_evaluation_mode_is_trained_as_any_other() -> None:
    model, twin = make(0, Normed), make(0, Normed)
    model.eval()
    training = fit(model, Elbo(), BATCHES, n_steps=4, learning_rate=0.05)
    for _ in training:
        assert not any(module.training for module in model.modules())
    through(fit(twin, Elbo(), BATCHES, n_steps=4, learning_rate=0.05))
    assert apart(weights(model), weights(twin)) < 1e-10


# Stopped and resumed


def test_it_goes_on_where_it_was_left_and_the_models_carry_the_weights_so_far() -> None:
    models, whole = several(2), several(2)
    training = fit(models, Elbo(), BATCHES, n_steps=9, learning_rate=0.05)
    for record in training:
        if record.step == 4:
            break
    part = several(2)
    through(fit(part, Elbo(), BATCHES, n_steps=4, learning_rate=0.05))
    assert training.step == 4
    assert all(apart(weights(a), weights(b)) == 0 for a, b in zip(models, part, strict=True))
    assert [record.step for record in training] == [5, 6, 7, 8, 9]
    through(fit(whole, Elbo(), BATCHES, n_steps=9, learning_rate=0.05))
    assert all(apart(weights(a), weights(b)) == 0 for a, b in zip(models, whole, strict=True))
    assert through(training) == []
    assert not any(model.training for model in models)


@pytest.mark.parametrize("net", [nn.Linear, Normed, Running])
def test_resumed_from_its_state_it_is_the_same_training_bit_for_bit(net: Any) -> None:
    knobs: dict[str, Any] = {"n_steps": 11, "learning_rate": 0.05, "ema_decay": 0.9, "clip_norm": 1.0}
    knobs["then"] = (Stage(6, Iwae(), 0.02, n_samples=2),)
    whole = fit(several(2, net), Elbo(), BATCHES, **knobs)
    kept = {}
    for record in whole:
        if record.step in (4, 8):
            file = io.BytesIO()
            torch.save(whole.state(), file)
            kept[record.step] = torch.load(io.BytesIO(file.getvalue()), weights_only=True)
            kept[record.step, "live"] = whole.state()
    assert_same(kept[4], kept[4, "live"])  # a state does not move on with the training
    for step, state in kept.items():
        before = copy.deepcopy(state)
        resumed = fit(several(2, net), Elbo(), BATCHES, **knobs, state=state)
        steps = [record.step for record in resumed]
        assert steps == list(range((step if isinstance(step, int) else step[0]) + 1, 12))
        assert_same(resumed.state(), whole.state())
        assert_same(state, before)
        assert all(
            torch.equal(a, b)
            for one, other in zip(resumed.models, whole.models, strict=True)
            for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True)
        )


def test_the_state_of_the_end_leaves_nothing_to_do() -> None:
    def no_batch(step: int) -> Tensor:
        raise AssertionError

    whole = fit(several(2, Normed), Elbo(), BATCHES, n_steps=3)
    through(whole)
    again = fit(several(2, Normed), Elbo(), no_batch, n_steps=3, state=whole.state())
    assert through(again) == [] and not again.models[0].training
    assert_same(dict(again.models[1].state_dict()), dict(whole.models[1].state_dict()))


def assert_same(a: Any, b: Any) -> None:
    assert type(a) is type(b)
    if isinstance(a, Tensor):
        assert torch.equal(a, b) and not a.requires_grad
    elif isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_same(a[key], b[key])
    elif isinstance(a, list | tuple):
        for one, other in zip(a, b, strict=True):
            assert_same(one, other)
    else:
        assert a == b


# A replica that dies


@pytest.mark.parametrize("net", [nn.Linear, Branching])
def test_a_replica_that_dies_is_stopped_and_named_and_the_others_go_on(net: Any) -> None:
    """At step 4 the data of replica 1 are so large that its bound overflows."""

    def batches(step: int) -> Tensor:
        x = BATCHES[step % 3].double().expand(3, -1, -1).clone()
        if step == 3:
            x[1] *= 1e200
        return x

    models, clean = several(3, net), several(3, net)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        training = fit(models, Elbo(), batches, n_steps=9, learning_rate=0.05, seeds=(4, 8, 9))
        alive, kept = [], {}
        for record in training:
            alive.append(record.alive.tolist())
            if record.step == 3:
                kept = training.state()["parameters"]
        through(fit(clean, Elbo(), BATCHES, n_steps=9, learning_rate=0.05, seeds=(4, 8, 9)))
    assert alive == [[True] * 3] * 3 + [[True, False, True]] * 6
    told = [str(one.message) for one in said if "became" in str(one.message)]
    assert len(told) == 1 and told[0].startswith("seed 8 became non-finite at step 4 in the ")
    for replica in (0, 2):
        assert apart(weights(models[replica]), weights(clean[replica])) < 1e-10
    for name, value in weights(models[1]).items():
        assert torch.equal(value, kept[name][1])


# Where batches come from


def sources() -> Iterator[tuple[str, Any]]:
    yield "a list", BATCHES
    yield "a tuple", tuple(BATCHES)
    yield "arrays", [batch.numpy() for batch in BATCHES]
    yield "an endless iterator", itertools.cycle(BATCHES)
    yield "a generator of just enough", (BATCHES[step % 3] for step in range(7))
    yield "a function", lambda step: BATCHES[step % 3]
    yield "a function, for each replica", lambda step: BATCHES[step % 3].expand(2, -1, -1)
    yield "a loader with labels", DataLoader(TensorDataset(X, torch.arange(60)), batch_size=20)
    yield "a loader", DataLoader(X, batch_size=20)  # type: ignore[arg-type]
    yield "whole numbers", [batch.to(torch.uint8) for batch in BATCHES]


@pytest.mark.parametrize("source", [pytest.param(source, id=name) for name, source in sources()])
def test_batches_come_from_anywhere(source: Any) -> None:
    expected, found = several(2), several(2)
    through(fit(expected, Elbo(), BATCHES, n_steps=7))
    through(fit(found, Elbo(), source, n_steps=7))
    assert all(apart(weights(a), weights(b)) == 0 for a, b in zip(expected, found, strict=True))


def test_replicas_may_have_data_of_their_own() -> None:
    together, alone = several(2), make(1)
    through(fit(together, Elbo(), lambda step: torch.stack([X[:20], X[20:40]]), n_steps=5))
    through(fit(alone, Elbo(), [X[20:40]], n_steps=5, seeds=(1,)))
    assert apart(weights(together[1]), weights(alone)) < 1e-10


# What is refused, with nothing trained


def spoilt(x: Tensor) -> Tensor:
    x = x.clone()
    x[3, 2] = math.nan
    return x


def shared() -> list[hvae.HVAE]:
    a, b = several(2)
    b.posterior = a.posterior
    return [a, b]


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no models": ({"models": []}, "models is empty; give at least one"),
    "no model": ({"models": [nn.Linear(2, 2)]}, r"models\[0\] is Linear; give an hvae.HVAE"),
    "other widths": (
        {"models": [make(0), make(1, width=3)]},
        r"models\[1\] differs .*z2.* is \[6\] of .* there \[4\]",
    ),
    "other types": ({"models": [make(0), make(1).float()]}, r"models\[1\] differs .*float32.*there.*float64"),
    "the same twice": ({"models": [make(0)] * 2}, r"models\[1\] and models\[0\] share the weight"),
    "in part the same": ({"models": shared()}, r"models\[1\] and models\[0\] share the weight posterior"),
    "nothing to train": ({"models": make(0).requires_grad_(False)}, "the models have no weights to train"),
    "a class for an objective": ({"objective": Elbo}, r"objective is <class .*; give one, as in hvae.Elbo\(\)"),
    "no batches": ({"batches": []}, "batches is empty"),
    "no batches in a loader": ({"batches": DataLoader(TensorDataset(X[:0]))}, "batches is empty"),
    "no batches in an iterator": ({"batches": iter([])}, "batches ended before step 0; give an iterator without end"),
    "one array": ({"batches": X}, r"batches is one array; cut it into batches, as in x.split\(128\)"),
    "a number": ({"batches": 5}, "batches is int; give batches to go through"),
    "labels": ({"batches": ["cat"]}, r"batches\[0\] is str; give a tensor \[B, 6\]"),
    "a wrong width": ({"batches": [X, X[:, :5]]}, r"batches\[1\] is \[60, 5\], but x of the models has 6 numbers"),
    "pictures": ({"batches": lambda step: X.view(60, 2, 3)}, r"the first batch is \[60, 2, 3\], but x of the models"),
    "no rows": ({"batches": [X[:0]]}, r"batches\[0\] is \[0, 6\].* with one row or more"),
    "nan": (
        {"batches": [X, spoilt(X)]},
        r"batches\[1\] holds numbers that are not finite, the first in row 3, column 2, ",
    ),
    "nan at first": ({"batches": lambda step: spoilt(X)}, "the first batch holds numbers that are not finite"),
    "no steps": ({"n_steps": 0}, "n_steps is 0; give a whole number of 1 or more"),
    "half a step": ({"n_steps": 2.5}, "n_steps is 2.5; give a whole number"),
    "no learning": ({"learning_rate": 0.0}, "learning_rate is 0.0; give a positive number, or a schedule"),
    "no samples": ({"n_samples": 0}, "n_samples is 0; give a whole number of 1 or more"),
    "a stage too late": ({"then": (Stage(5, Elbo(), 0.1),)}, r"then begins stages at \[5\]; give rising .* is 5"),
    "too few seeds": ({"seeds": (1,)}, r"seeds is \[1\] for 2 models; give each a seed of its own"),
    "a seed twice": ({"seeds": (1, 1)}, r"seeds is \[1, 1\] for 2 models"),
    "negative clipping": ({"clip_norm": -1.0}, "clip_norm is -1.0; give 0"),
    "no epsilon": ({"adam_epsilon": 0.0}, "adam_epsilon is 0.0; give more than 0"),
    "a decay of 1": ({"ema_decay": 1.0}, r"ema_decay is 1.0; give a number in \[0, 1\)"),
    "an unknown weight": ({"trainable": {"encoder"}}, "trainable names 'encoder', which is no weight that trains"),
    "one name": ({"trainable": "decoder"}, "trainable names 'decoder', which is no weight"),
    "no weight": ({"trainable": set()}, "trainable is empty; name at least one weight"),
    "nothing to relax": ({"relaxation": Relaxation(0.5)}, "the draws are to be relaxed, which is for discrete layers"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_fit_is_refused_in_a_sentence_and_nothing_is_trained(name: str) -> None:
    changed, said = REFUSED[name]
    given: dict[str, Any] = {"models": several(2), "objective": Elbo(), "batches": BATCHES, "n_steps": 5} | changed
    models, objective, batches = (given.pop(part) for part in ("models", "objective", "batches"))
    every = models if isinstance(models, list) else [models]
    before = [weights(model) for model in every]
    with pytest.raises(ConfigError, match=said) as refused:
        fit(models, objective, batches, **given)
    assert "\n" not in str(refused.value) and str(refused.value).endswith(".") and refused.value.__cause__ is None
    assert all(apart(old, weights(model)) == 0 for old, model in zip(before, every, strict=True))


def test_an_objective_that_is_biased_for_the_model_is_refused_in_the_mode_of_training() -> None:
    for models in (make(0, Normed), make(0, Normed).eval()):
        with pytest.raises(UnsuitedError, match="with batch norm a draw moves the weights of all others"):
            fit(models, DoublyReparametrised(Iwae()), BATCHES, n_steps=5, n_samples=2)
    with pytest.raises(UnsuitedError, match="with batch norm"):  # also a later stage, before the first step
        fit(
            make(0, Normed),
            Elbo(),
            BATCHES,
            n_steps=5,
            then=(Stage(3, DoublyReparametrised(Iwae()), 0.1, n_samples=2),),
        )


def test_a_state_of_other_models_is_refused() -> None:
    state = fit(several(2), Elbo(), BATCHES, n_steps=3).state()
    with pytest.raises(ConfigError, match=r"state is of other models: .* is \[2, .* there and \[3, .* here"):
        fit(several(3), Elbo(), BATCHES, n_steps=3, state=state)


def test_bad_batches_are_refused_where_they_come_and_the_models_carry_the_steps_before() -> None:
    def batches(step: int) -> Tensor:
        return spoilt(X) if step == 2 else X

    ended = (X for _ in range(2))
    for source, said in ((batches, "the batch of step 2 holds numbers"), (ended, "batches ended before step 2")):
        model, two = make(0), make(0)
        with pytest.raises(ConfigError, match=said):
            through(fit(model, Elbo(), source, n_steps=5))
        through(fit(two, Elbo(), [X], n_steps=2))
        assert apart(weights(model), weights(two)) == 0


def test_a_loss_without_the_models_weights_is_refused() -> None:
    class Apart(Elbo):
        def __call__(self, evidence: hvae.Evidence, step: int) -> Tensor:
            return super().__call__(evidence, step).detach() * torch.ones((), requires_grad=True)

    with pytest.raises(ConfigError, match="the loss depends on none of the models' weights; register the nets"):
        through(fit(make(0), Apart(), BATCHES, n_steps=2))


def gaussian(seed: int) -> hvae.HVAE:
    """One layer under a Gaussian x of variance 1."""
    torch.manual_seed(seed)
    prior = hvae.Conditional("z1", [], hvae.Root(torch.zeros(4), learned=False), hvae.DiagonalGaussian(2))
    x = hvae.DiagonalGaussian(6)
    decoder = hvae.BeliefNetwork([prior, hvae.Conditional("x", ["z1"], nn.Linear(2, x.n_outputs), x)])
    encoder = hvae.BeliefNetwork([hvae.Conditional("z1", ["x"], nn.Linear(6, 4), hvae.DiagonalGaussian(2))])
    return hvae.HVAE(decoder, hvae.NetworkPosterior(encoder))


@pytest.mark.parametrize("n_replicas", [1, 3])
def test_a_training_of_which_nobody_is_left_stops_at_once_and_names_layer_and_column(n_replicas: int) -> None:
    x = torch.randn(60, 6, generator=rng.generator(0, "test"))
    spoilt = x.clone()
    spoilt[:, 4] = 9.6e30
    batches = [*x.split(20), spoilt[:20]]
    steps = []
    with pytest.raises(TrainingError, match=r"^All replicas became non-finite, seeds? 0") as stop:
        for record in fit([gaussian(seed) for seed in range(n_replicas)], Elbo(), batches, n_steps=50):
            steps.append(record.step)
    assert steps == [1, 2, 3, 4]
    assert re.search(
        r"at step 4 in the (rate of z1|distortion of x); the largest numbers of x stand in column 4, up to 9\.6e\+30 "
        r"in size: scale it, leave it out, or give a smaller learning rate\.$",
        str(stop.value),
    )


def test_a_training_that_dies_of_its_steps_blames_no_column() -> None:
    with pytest.raises(TrainingError, match=r"no number of x is above 1 in size, so give a smaller learning rate\.$"):
        list(fit(make(0).float(), Elbo(), BATCHES, n_steps=50, learning_rate=1e30))


def test_one_of_two_that_is_left_goes_on() -> None:
    models = several(2)
    with torch.no_grad():
        next(iter(models[1].parameters())).fill_(math.nan)
    with pytest.warns(UserWarning, match="seed 1 became non-finite at step 1 .* the other seeds go on"):
        assert len(list(fit(models, Elbo(), BATCHES, n_steps=5))) == 5


@pytest.mark.parametrize(
    ("knobs", "said"),
    [
        ({"objective": Elbo(beta=LinearWarmup(5000))}, "beta warms up for 5000 of 4 steps and is 0.0006 at the last"),
        ({"objective": StickingTheLanding(Elbo(beta=LinearWarmup(5)))}, "beta warms up for 5 of 4 steps and is 0.6 at"),
        ({"objective": Elbo(beta=Cyclical(3, 1.0))}, "beta rises anew every 3 of 4 steps and is 0 at the last"),
        ({"objective": Elbo(), "learning_rate": LinearWarmup(9, 0.01)}, "learning_rate warms up for 9 of 4 steps"),
        (
            {"objective": Elbo(beta=LinearWarmup(2)), "then": [Stage(2, Elbo(beta=LinearWarmup(3)), 0.1)]},
            "for 3 of 2 steps",
        ),
        ({"objective": Elbo(beta=LinearWarmup(4))}, ""),
        ({"objective": Elbo(beta=Cyclical(2, 1.0))}, ""),
    ],
)
def test_a_schedule_that_does_not_end_is_said(knobs: dict[str, Any], said: str) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(make(0), batches=BATCHES, n_steps=4, **knobs)
    assert len(caught) == bool(said) and all(said in str(warning.message) for warning in caught)
