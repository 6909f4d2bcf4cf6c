"""What is measured of a run on request: right numbers under right names, refusals in their place, nothing twice."""

import dataclasses
import itertools
from pathlib import Path

import numpy as np
import pytest
import torch

from hvae import rng
from hvae.data import Dataset, load
from hvae.diagnosis.gap import Exact
from hvae.diagnosis.record import of_one
from hvae.diagnostics.collapse import activity
from hvae.diagnostics.gap import split_gap
from hvae.diagnostics.marginals import Marginal, Sampling
from hvae.diagnostics.suboptimality import suboptimality
from hvae.errors import ConfigError
from hvae.lab.config import DataConfig, EvaluationConfig, ModelConfig, ObjectiveConfig, RunConfig, TrainingConfig
from hvae.lab.evaluation import MEASUREMENTS, Budget, measure_further, missing, read_words, replicas
from hvae.lab.options import parse
from hvae.lab.runs.run import Run
from hvae.lab.training.loop import Trained, load_trained, train
from hvae.likelihood.annealing import Annealing, anneal
from hvae.likelihood.estimate import Estimate
from hvae.likelihood.importance import log_likelihood_curve
from hvae.likelihood.sandwich import sandwich
from hvae.likelihood.target import from_encoder
from hvae.measuring import Replica, on_request
from hvae.measuring.exact import measure_exact
from hvae.measuring.replica import annealing, settings
from hvae.vocabulary import FAILED

BUDGET = Budget(images=12, temperatures=20, chains=30, leapfrog=2, draws=2, samples=400)
EVALUATION = EvaluationConfig(seed=4)
TRAINING = TrainingConfig(seeds=(3, 5), n_steps=20, batch_size=32)
LINEAR = ModelConfig(latents=(2, 1), hidden=((),), latent_variance="fixed", observation="gaussian")

Arrays = dict[str, np.ndarray]


def trained(root: Path, model: ModelConfig, n_samples: int = 1) -> tuple[Run, Dataset]:
    """A run on sixty images of five real values, or of their signs."""
    file = root / "mine.npz"
    if not file.exists():
        source = np.random.default_rng(0)
        values = source.standard_normal((300, 2)) @ source.standard_normal((2, 5))
        np.savez(file, x=(values if model.observation == "gaussian" else values > 0).astype(np.float32))
    name = str(file)
    objective = ObjectiveConfig(n_samples=n_samples)
    config = RunConfig(DataConfig(name=name), model, objective, TRAINING, EVALUATION)
    run, data = Run.create_or_open(root, "trial", "mine", config), load(name)
    train(run, data, progress=False)
    return run, data


@pytest.fixture(scope="module")
def linear(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Dataset]:
    """A linear-Gaussian stack of two replicas, measured in every way."""
    run, data = trained(tmp_path_factory.mktemp("linear"), LINEAR)
    assert measure_further(run, data, MEASUREMENTS, BUDGET, progress=False) == []
    return run, data


def images(run: Run, data: Dataset) -> torch.Tensor:
    order = rng.permutation(len(data.test), seed=EVALUATION.seed, purpose="evaluation")
    return data.test[order[: BUDGET.images]]


def dense_log_px(run: Run, data: Dataset, replica: int) -> np.ndarray:
    """log p(x) by the covariance of z2 ~ N(0, I), z1 = A z2 + a + noise, x = B z1 + b + noise."""
    decoder = load_trained(run, data).models[replica].decoder.double()
    with torch.no_grad():
        offset, slope, spread = {}, {}, {}
        for name, n_parents, n in (("z1", 1, 2), ("x", 2, 5)):
            net, family = decoder[name].net, decoder[name].family
            at_zero = net(torch.zeros(1, 1, n_parents).double())
            offset[name], spread[name] = (
                at_zero[0, 0, :n].numpy(),
                family.distribution(at_zero).variance.numpy().ravel(),
            )
            slope[name] = (net(torch.eye(n_parents).double()[None])[0, :, :n].numpy() - offset[name]).T
    of_z1 = slope["z1"] @ slope["z1"].T + np.diag(spread["z1"])
    covariance = slope["x"] @ of_z1 @ slope["x"].T + np.diag(spread["x"])
    rest = images(run, data).double().numpy() - (slope["x"] @ offset["z1"] + offset["x"])
    squares = np.einsum("bi,ij,bj->b", rest, np.linalg.inv(covariance), rest)
    return -(squares + np.linalg.slogdet(2 * np.pi * covariance)[1]) / 2


@torch.no_grad()
def enumerated_log_px(run: Run, data: Dataset, replica: int) -> np.ndarray:
    """log p(x) of three Bernoulli units on two fair ones, summed over all of their states."""
    decoder = load_trained(run, data).models[replica].decoder.double()

    def states(n: int) -> np.ndarray:
        return np.array(list(itertools.product([0.0, 1.0], repeat=n)))

    def log_prob(name: str, parents: np.ndarray, values: np.ndarray) -> np.ndarray:
        """``[parents, values]``"""
        on = 1 / (1 + np.exp(-decoder[name].net(torch.from_numpy(parents)[None])[0].numpy()))[:, None]
        return np.log(np.where(values == 1, on, 1 - on)).sum(-1)

    of_z1 = np.exp(log_prob("z1", states(2), states(3))).mean(0)
    x = images(run, data).double().numpy()
    return np.log(of_z1 @ np.exp(log_prob("x", states(3), x)))


# -- numbers -------------------------------------------------------------------------------------------


def test_exact_answers_are_those_of_the_dense_covariance(linear: tuple[Run, Dataset]) -> None:
    run, data = linear
    found = run.load_arrays("exact")
    for replica in range(2):
        np.testing.assert_allclose(found["log_px_datum_nats"][replica], dense_log_px(run, data, replica), atol=1e-10)
    assert str(found["reference"]) == "LinearGaussian" and found["error"].tolist() == [0.0, 0.0]
    middle = {key: values[..., 1] for key, values in found.items() if values.shape == (2, 3)}
    np.testing.assert_allclose(middle["log_px_nats"], found["log_px_datum_nats"].mean(1), atol=1e-10)
    np.testing.assert_allclose(middle["total_gap_nats"], middle["log_px_nats"] - middle["elbo_nats"], atol=1e-10)
    parts = middle["layer_gap_nats/z1"] + middle["layer_gap_nats/z2"]
    np.testing.assert_allclose(parts, middle["total_gap_nats"], atol=1e-10)
    assert (np.abs(middle["rate_exact_nats/z1"]) > 1e-3).all() and found["gaps_refused"].tolist() == ["", ""]


def test_annealed_bounds_are_of_the_same_images_and_of_simulated_data(linear: tuple[Run, Dataset]) -> None:
    run, data = linear
    found, x = run.load_arrays("annealed"), images(run, data)
    assert found["n_samples"].tolist() == [1, 10, 100, 400] and str(found["path"][0]) == "encoder"
    for replica, model in enumerate(load_trained(run, data).models):
        annealed = anneal(from_encoder(model, x), Annealing(20, 30, 2), EVALUATION.seed, "annealing/0")
        between = sandwich(model, len(x), Annealing(20, 30, 2), seed=EVALUATION.seed, like=x)
        curve = log_likelihood_curve(model, x, (1, 10, 100, 400), seed=EVALUATION.seed)
        simulated = log_likelihood_curve(model, between.x, (1, 10, 100, 400), seed=EVALUATION.seed)
        for key, values in (
            ("annealed_datum_nats", annealed.estimate.log_px),
            ("annealed_se_nats", annealed.estimate.standard_error),
            ("annealed_ess", annealed.estimate.ess),
            ("annealed_pareto_k", annealed.estimate.pareto_k),
            ("curve_pareto_k", curve.estimate.pareto_k),
            ("simulated_lower_datum_nats", between.lower.log_px),
            ("simulated_upper_datum_nats", between.upper.log_px),
            ("acceptance", annealed.acceptance),
            ("warning", annealed.estimate.warning),
        ):
            np.testing.assert_array_equal(found[key][replica], values, err_msg=key)
        for key, mean in (
            ("annealed_nats", annealed.estimate.log_px.mean()),
            ("elbo_nats", curve.bound_datum_nats[0].mean()),
            ("simulated_elbo_nats", simulated.bound_datum_nats[0].mean()),
            ("simulated_lower_nats", between.lower.log_px.mean()),
            ("simulated_upper_nats", between.upper.log_px.mean()),
            ("sandwich_nats", (between.upper.log_px - between.lower.log_px).mean()),
        ):
            low, middle, high = found[key][replica]
            assert low < middle < high and middle == pytest.approx(mean, abs=1e-12), key
        np.testing.assert_allclose(found["curve_nats"][replica, :, 1], curve.bound_datum_nats.mean(1))
        np.testing.assert_allclose(found["simulated_curve_nats"][replica, :, 1], simulated.bound_datum_nats.mean(1))


def test_the_gap_agrees_with_the_exact_one_it_knows_log_px_from(linear: tuple[Run, Dataset]) -> None:
    run, _ = linear
    found, exact = run.load_arrays("gap"), run.load_arrays("exact")
    assert found["log_px_direction"].tolist() == ["exact"] * 2 and found["warning"].tolist() == ["", ""]
    np.testing.assert_allclose(found["log_px_datum_nats"], exact["log_px_datum_nats"], atol=1e-10)
    parts = sum(found[f"layer_gap_nats/{name}"][:, 1] for name in ("z1", "z2"))
    np.testing.assert_allclose(parts, found["total_gap_nats"][:, 1], atol=1e-5)
    causes = found["approximation_nats"][:, 1] + found["amortisation_nats"][:, 1]
    freed = sum(found[f"freed_nats/{name}"][:, 1] for name in ("z1", "z2"))
    np.testing.assert_allclose(freed + found["remainder_nats"][:, 1], found["amortisation_nats"][:, 1], atol=1e-8)
    for name, width in (("z1", 2), ("z2", 1)):
        assert found[f"trusted/{name}"].dtype == bool and found[f"posterior_share/{name}"].shape == (2, width, 3)
        for owner in ("posterior", "encoder"):
            counted = (found[f"{owner}_share/{name}"][..., 0] > 0.01).sum(1).astype(float)
            doubted = np.array([bool(text) and owner == "posterior" for text in found["posterior_warning"]])
            np.testing.assert_array_equal(found[f"{owner}_active/{name}"], np.where(doubted, np.nan, counted))
        # the estimate from two paths is as far from the exact gap as chance takes it: six of its standard errors
        slack = 6 * found[f"layer_gap_se_nats/{name}"] + found[f"layer_gap_bias_nats/{name}"]
        assert (np.abs(found[f"layer_gap_nats/{name}"] - exact[f"layer_gap_nats/{name}"])[:, 1] < slack).all()
    # the total has an ELBO of two draws a datum, the causes one of their own: as far apart as chance takes them
    low, _, high = (found["total_gap_nats"][:, i] for i in range(3))
    assert (np.abs(causes - found["total_gap_nats"][:, 1]) < 3 * (high - low)).all()


def test_parts_of_the_gap_have_their_own_names(linear: tuple[Run, Dataset]) -> None:
    run, data = linear
    found, x, model = run.load_arrays("gap"), images(run, data), load_trained(run, data).models[1]
    zero, nan = np.zeros(len(x)), np.full(len(x), np.nan)
    estimate = Estimate(run.load_arrays("exact")["log_px_datum_nats"][1], "exact", zero, zero, nan, 0)
    known = Marginal("log p(x)", estimate, zero, "exact")
    causes = suboptimality(model, x, known, n_draws=32, seed=EVALUATION.seed)
    for key, term in (
        ("approximation_nats", causes.approximation),
        ("amortisation_nats", causes.amortisation),
        ("remainder_nats", causes.remainder),
        ("freed_nats/z1", causes.freed["z1"]),
        ("freed_nats/z2", causes.freed["z2"]),
    ):
        np.testing.assert_allclose(found[key][1], term.interval(), atol=1e-10, err_msg=key)
    gap = split_gap(model, x, BUDGET.draws, Sampling(n_samples=BUDGET.samples, seed=EVALUATION.seed))
    last = gap.layers["z2"]  # does not rest on log p(x), which this one estimates
    np.testing.assert_allclose(found["layer_gap_nats/z2"][1], last.interval(), atol=1e-10)
    assert (found["reason/z2"][1], bool(found["trusted/z2"][1])) == (last.reason, last.trusted)
    assert found["proposal/z2"][1] == last.proposal != ""
    target = from_encoder(model, x)
    chains = anneal(target, annealing(BUDGET), EVALUATION.seed, "annealing/0")
    for name, units in activity(
        model, x, target.split(chains.noise), chains.log_weight,
        n_paths=128, seed=EVALUATION.seed, risk=0.05,
    ).items():  # fmt: skip
        shown = units.withheld() if found["posterior_warning"][1] else units
        np.testing.assert_allclose(found[f"posterior_share/{name}"][1], shown.posterior, atol=1e-6)
        np.testing.assert_allclose(found[f"encoder_share/{name}"][1], units.encoder, atol=1e-6)


def test_settings_and_replicas_lead_every_array(linear: tuple[Run, Dataset]) -> None:
    run, data = linear
    shared = {"n_samples", "reference", *settings(BUDGET, "gap", 99), "seed", "step", "n_test"}
    for word in MEASUREMENTS:
        found = run.load_arrays(word)
        assert all(values.shape[:1] == (2,) for key, values in found.items() if key not in shared)
        assert int(found["n_images"]) == 12 and int(found["step"]) == 20 and int(found["n_test"]) == len(data.test)
        assert found["refused"].tolist() == ["", ""]
        for key, values in found.items():
            if values.shape == (2, 3):
                assert np.isfinite(values).all(), key
                assert (values[:, 0] <= values[:, 1]).all() and (values[:, 1] <= values[:, 2]).all(), key


# -- nothing twice -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "again"),
    [
        ({}, ()),
        ({"images": 13}, MEASUREMENTS),
        ({"temperatures": 21}, ("annealed", "gap")),
        ({"chains": 31}, ("annealed", "gap")),
        ({"leapfrog": 3}, ("annealed", "gap")),
        ({"samples": 401}, ("annealed", "gap")),
        ({"draws": 3}, ("gap",)),
    ],
)
def test_only_what_other_settings_move_is_missing(
    linear: tuple[Run, Dataset], change: dict[str, int], again: tuple[str, ...]
) -> None:
    run, _ = linear
    assert missing(run, MEASUREMENTS, dataclasses.replace(BUDGET, **change), 20) == list(again)


def test_another_checkpoint_or_seed_is_measured_anew(linear: tuple[Run, Dataset]) -> None:
    run, _ = linear
    assert missing(run, MEASUREMENTS, BUDGET, 21) == list(MEASUREMENTS)
    config = dataclasses.replace(run.config, evaluation=dataclasses.replace(EVALUATION, seed=5))
    assert missing(dataclasses.replace(run, config=config), MEASUREMENTS, BUDGET, 20) == list(MEASUREMENTS)


def test_more_images_than_there_are_is_all_of_them(linear: tuple[Run, Dataset]) -> None:
    run, data = linear
    budget = dataclasses.replace(BUDGET, images=10**6)
    assert measure_further(run, data, ["exact"], budget, progress=False) == []
    assert int(run.load_arrays("exact")["n_images"]) == len(data.test)
    assert missing(run, ["exact"], budget, 20) == [] and missing(run, ["exact"], BUDGET, 20) == ["exact"]
    measure_further(run, data, ["exact"], BUDGET, progress=False)


def test_damaged_arrays_are_missing(linear: tuple[Run, Dataset]) -> None:
    run, _ = linear
    file = run.path / "evaluation" / "exact.npz"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    assert missing(run, MEASUREMENTS, BUDGET, 20) == ["exact"]
    file.write_bytes(whole)


# -- refusals ------------------------------------------------------------------------------------------


def test_bernoulli_have_exact_answers_but_neither_chains_nor_causes(tmp_path: Path) -> None:
    bernoulli = ModelConfig(latents=(3, 2), hidden=((4,),), families=("bernoulli",))
    run, data = trained(tmp_path, bernoulli, n_samples=2)
    (sentence,) = measure_further(run, data, MEASUREMENTS, BUDGET, progress=False)
    assert sentence.startswith("mine has no annealed numbers: ") and "discrete" in sentence and sentence.endswith(".")
    annealed, exact, gap = (run.load_arrays(word) for word in MEASUREMENTS)
    assert "annealed_nats" not in annealed and all("discrete" in text for text in annealed["refused"])
    assert missing(run, MEASUREMENTS, BUDGET, 20) == ["annealed"]  # a refusal is asked again
    assert str(exact["reference"]) == "DiscreteChain" and np.isfinite(exact["layer_gap_nats/z2"]).all()
    for replica in range(2):
        np.testing.assert_allclose(
            exact["log_px_datum_nats"][replica], enumerated_log_px(run, data, replica), atol=1e-10
        )
    for key in ("suboptimality_refused", "posterior_refused"):
        assert all("discrete" in text for text in gap[key])
    for key in ("amortisation_nats", "freed_nats/z1", "posterior_active/z1", "encoder_share/z2"):
        assert np.isnan(gap[key]).all(), key
    assert gap["encoder_share/z2"].shape == (2, 2, 3) and np.isfinite(gap["layer_gap_nats/z1"]).all()


def test_a_reference_for_the_decoder_alone_answers_half(tmp_path: Path) -> None:
    """A linear decoder has log p(x), whatever the encoder; a tanh encoder's gaps have no closed form."""
    run, data = trained(tmp_path, LINEAR)
    trained_run = load_trained(run, data)
    model = trained_run.models[0]
    encoder = model.posterior.network["z1"]  # type: ignore[attr-defined]
    encoder.net = torch.nn.Sequential(encoder.net, torch.nn.Tanh())
    found = measure_exact(Replica(model, images(run, data), BUDGET, seed=4))
    np.testing.assert_allclose(found.log_px_datum_nats[0], dense_log_px(run, data, 0), atol=1e-10)
    assert found.gaps_refused[0] and np.isnan(found.total_gap_nats).all()
    assert np.isnan(found.layer_gap_nats["z1"]).all()


@pytest.mark.parametrize("alive", [[True, False], [False, False]], ids=["one dead", "all dead"])
def test_a_dead_replica_has_no_numbers(
    linear: tuple[Run, Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, alive: list[bool]
) -> None:
    _, data = linear
    run, _ = trained(tmp_path, LINEAR)

    def load_dead(run: Run, data: Dataset, device: str) -> Trained:
        found = load_trained(run, data, device)
        found.health.alive = torch.tensor(alive)
        return found

    monkeypatch.setattr(replicas, "load_trained", load_dead)
    refusals = measure_further(run, data, ["exact"], BUDGET, progress=False)
    found = run.load_arrays("exact")
    if any(alive):
        assert refusals == [] and found["refused"].tolist() == ["", FAILED]
        assert np.isnan(found["log_px_nats"][1]).all() and np.isfinite(found["log_px_nats"][0]).all()
        assert found["gaps_refused"].tolist() == ["", FAILED]
    else:
        assert len(refusals) == 1 and "failed in training" in refusals[0]
        assert all("failed in training" in text for text in found["refused"])


def test_one_replica_may_refuse(linear: tuple[Run, Dataset], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    run, data = trained(tmp_path, LINEAR)
    seen: list[object] = []

    def second_refuses(replica: Replica) -> Exact:
        seen.append(replica.model)
        if len(seen) == 2:
            raise ValueError("the second\nhas no number.")
        interval = np.array([1.0, 2.0, 3.0])
        return of_one(
            Exact, settings={}, reference="mine", log_px_nats=interval, log_px_datum_nats=np.ones(12),
            elbo_nats=interval, total_gap_nats=interval, layer_gap_nats={"z1": interval}, rate_exact_nats={},
            error=0.0, gaps_refused="words", refused="",
        )  # fmt: skip

    monkeypatch.setattr(on_request, "MEASURES", {"exact": second_refuses})
    assert measure_further(run, data, ["exact"], BUDGET, progress=False) == []
    found = run.load_arrays("exact")
    assert found["refused"].tolist() == ["", "the second has no number."]
    assert found["log_px_nats"][0].tolist() == [1, 2, 3] and np.isnan(found["log_px_nats"][1]).all()
    assert np.isnan(found["layer_gap_nats/z1"][1]).all() and found["gaps_refused"].tolist() == ["words", ""]
    assert missing(run, ["exact"], BUDGET, 20) == ["exact"]


# -- words and budget ----------------------------------------------------------------------------------


def test_words_are_read_once_each() -> None:
    assert read_words("gap, annealed,gap") == ("gap", "annealed")
    for text in ("fly", "gap,", "", "Exact"):
        with pytest.raises(ConfigError, match="give one or more of importance, annealed, exact, gap"):
            read_words(text)


def test_the_command_line_and_annealing_have_the_same_defaults() -> None:
    assert annealing(Budget()) == Annealing()
    _, options = parse(["evaluate", "somewhere"])
    assert {field.name: options[field.name] for field in dataclasses.fields(Budget)} == dataclasses.asdict(Budget())
    assert annealing(Budget(temperatures=7, chains=8, leapfrog=9)) == Annealing(7, 8, 9)


@pytest.mark.parametrize(
    ("knob", "least"),
    [("images", 2), ("draws", 2), ("temperatures", 1), ("chains", 1), ("leapfrog", 1), ("samples", 1)],
)
def test_too_little_budget_is_refused(knob: str, least: int) -> None:
    Budget(**{knob: least})
    with pytest.raises(ConfigError, match=f"--{knob} is {least - 1}; give at least {least}."):
        Budget(**{knob: least - 1})


def test_the_signal_of_gradients_is_measured_by_replica_and_asked_again_for_other_counts(tmp_path: Path) -> None:
    run, data = trained(tmp_path, LINEAR)
    budget = dataclasses.replace(BUDGET, gradients=(1, 3))
    assert measure_further(run, data, ["gradients"], budget, progress=False) == []
    found = run.load_arrays("gradients")
    for part in ("z1", "z2", "decoder"):
        for kind in ("snr", "variance"):
            low, middle, high = np.moveaxis(found[f"gradient_{kind}/{part}"], -1, 0)
            assert middle.shape == (2, 2) and (low <= middle).all() and (middle < high).all()
    assert missing(run, ["gradients"], budget, 20) == []
    assert missing(run, ["gradients"], dataclasses.replace(budget, gradients=(1, 4)), 20) == ["gradients"]
    with pytest.raises(ConfigError, match="--gradients is"):
        Budget(gradients=(0, 2))
    assert parse(["evaluate", "somewhere", "--gradients", "5, 1,5"])[1].gradients == (1, 5)
    with pytest.raises(ConfigError, match="gradients"):
        parse(["evaluate", "somewhere", "--gradients", "many"])
