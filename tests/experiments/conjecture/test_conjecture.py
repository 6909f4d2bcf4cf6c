"""The experiment `conjecture`: teachers and their encoders, and what its claims make of arrays."""

import numpy as np
import pytest
import torch

from hvae.analysis.claims import NotMeasuredError, decide
from hvae.exact import LinearGaussian
from hvae.exact import known_stacks as examples
from hvae.experiments import conjecture
from hvae.experiments.conjecture import claims_nonlinear as nonlinear
from hvae.experiments.conjecture import figures
from hvae.experiments.conjecture.bernoulli import (
    Budget,
    EncoderKind,
    Teachers,
    fixed_rows,
    known_stacks,
    n_free,
    n_parameters,
)
from hvae.experiments.conjecture.claims import per_teacher, ratio
from hvae.experiments.conjecture.enumeration import Enumeration, fit
from hvae.experiments.conjecture.grouped import grouped_rows
from hvae.experiments.conjecture.linear import gaussian_rows, linear_threshold_rows, two_layer_bound
from hvae.experiments.conjecture.released import moved, release_rows
from hvae.experiments.conjecture.tables import conjecture_csv, conjecture_summary, conjecture_tables
from hvae.experiments.truth.accuracy import gap_rows
from hvae.families import FullGaussian
from hvae.network import BeliefNetwork, Conditional
from hvae.posterior import NetworkPosterior

LINEAR, TABLE = EncoderKind("factorised", "linear"), EncoderKind("factorised", "table")
RICH = EncoderKind("autoregressive", "mlp", 16)
QUICK = Budget(60, 0.1, 1)
WIDE, NARROW = (3, 2, 2, 2), (3, 1, 1, 1)
claims = [claim for claim in conjecture.claims if claim not in nonlinear.shapes]


@pytest.fixture(scope="module")
def measured() -> dict[str, dict[str, np.ndarray]]:
    """Every part, tiny, at the strengths that the claims speak of."""
    strengths = (0.5, 1.0, 2.0, 4.0)
    brief = Budget(5, 0.05, 2)
    kinds = {"linear": conjecture.SIZES, "parity": conjecture.SIZES}

    def say(_: str) -> None: ...

    found = {
        "fixed": fixed_rows({WIDE: [LINEAR, EncoderKind("factorised", "mlp", 4), TABLE]}, strengths, 2, QUICK, say),
        "rich": fixed_rows({WIDE: [RICH]}, strengths, 2, QUICK, say),
        "release": release_rows(
            {"wide": WIDE, "bottleneck": NARROW}, strengths, 2, [None, LINEAR, RICH], QUICK, QUICK, say
        ),
        "threshold": grouped_rows((6, 3, 2), kinds, 2, [LINEAR, TABLE], (0.0, 0.5, 1.5), brief, 1, say),
        "linear": gaussian_rows((2, 3), 2, strengths, 2),
        "linear-threshold": linear_threshold_rows(
            (6, 3, 2), conjecture.GAUSSIAN_SIZES, 2, (-1.0, 0.0, 0.5, 1.5), brief, 1, say
        ),
    }  # fmt: skip
    return found


@pytest.mark.slow
def test_every_claim_is_decided_by_the_parts(measured: dict[str, dict[str, np.ndarray]]) -> None:
    decisions = [decide(claim, {}, measured) for claim in claims]
    assert {decision.n_replicas for decision in decisions} == {2}
    assert all(decision.outcome == "not measured" for decision in (decide(claim, {}, {}) for claim in claims))


@pytest.mark.slow
def test_tables_and_figures_show_every_part(measured: dict[str, dict[str, np.ndarray]]) -> None:
    assert len(conjecture_tables(measured)) == 5 and len(conjecture_summary(measured)) == 8
    assert set(conjecture_csv({**measured, "gaps": {}})) == {f"conjecture-{part}.csv" for part in measured}
    for make in (figures.widths, figures.strengths, figures.release, figures.thresholds):
        assert make(measured) is not None and make({}) is None
    assert conjecture_tables({}) == {} and conjecture_summary({}) == []


def fabricated(gap: float, n: int = 6) -> dict[str, dict[str, np.ndarray]]:
    rows: dict[str, list[object]] = {"teacher": [], "strength": [], "depth": [], "net": [], "layer_gap_nats": []}
    for strength in (1.0, 2.0, 4.0):
        for net, share in (("linear", 1.0), ("table", 0.9)):
            for teacher in reversed(range(n)):
                for name, value in zip(
                    rows, (teacher, strength, 3, net, share * gap * (strength + 0.1 * teacher)), strict=True
                ):
                    rows[name].append(value)
    return {"fixed": {name: np.array(values) for name, values in rows.items()}}


def test_claims_follow_the_numbers() -> None:
    def outcomes(gap: float) -> list[str]:
        return [decide(claim, {}, fabricated(gap)).outcome for claim in claims[:4]]

    assert outcomes(0.1) == ["supported"] * 4
    assert outcomes(0.001) == ["not supported", "supported", "supported", "not supported"]


def test_rows_are_picked_by_teacher_and_refused_where_they_are_not_one() -> None:
    found = fabricated(0.1)
    one = per_teacher(found, "fixed", "layer_gap_nats", net="linear", strength=1.0)
    assert one.seeds == tuple(range(6)) and np.all(np.diff(one.values) > 0)
    np.testing.assert_allclose(ratio(one, one).values, 1.0)
    for part, where, reason in (
        ("rich", {"net": "linear"}, "not measured yet"),
        ("fixed", {"net": "mlp"}, "no row"),
        ("fixed", {"net": "linear"}, "same teacher"),
    ):
        with pytest.raises(NotMeasuredError, match=reason):
            per_teacher(found, part, "layer_gap_nats", **where)


def test_gaps_of_the_rows_are_exact_and_estimated_within_their_intervals() -> None:
    rows = fixed_rows({WIDE: [TABLE]}, (2.0,), 2, QUICK, lambda _: None)
    assert rows["disagreement_nats"].max() < 1e-10
    np.testing.assert_allclose(rows["gap_nats"], rows["gap1_nats"] + rows["gap2_nats"] + rows["gap3_nats"], atol=1e-12)
    estimates = gap_rows(known_stacks(WIDE, (2.0,), 2, 4, LINEAR, QUICK), 16, 500, seed=0, say=lambda _: None)
    assert len(estimates["inside"]) == 6 and estimates["inside"][estimates["trusted"]].all()


def test_a_teacher_keeps_its_directions_at_every_strength() -> None:
    teachers = Teachers.of(WIDE, (1.0, 3.0), 2)
    weak, strong = (teachers.decoders[index]["x"].net.weight for index in (1, 3))
    torch.testing.assert_close(strong, 3 * weak)
    assert [teachers.described(index)["teacher"] for index in range(4)] == [0, 1, 0, 1]


def test_parameters_are_counted_by_what_is_free() -> None:
    """Units 2-3-2: (2·3 + 3) + (3·2 + 2) linear, with 3 + 1 direct connections; 2^2·7 + 2^3·3 in the exact table."""
    source = torch.Generator().manual_seed(0)
    assert n_parameters(LINEAR.encoder((2, 3, 2), source)) == 17
    assert n_parameters(EncoderKind("autoregressive", "linear").encoder((2, 3, 2), source)) == 21
    assert n_parameters(TABLE.encoder((2, 3, 2), source)) == 4 * 3 + 8 * 2
    assert n_free((2, 3, 2)) == 52


def test_what_did_not_move_moved_by_nothing_and_what_did_by_its_divergence() -> None:
    first, second = Teachers.of(WIDE, (1.0, 1.5), 1).tables()
    torch.testing.assert_close(moved(first, first), torch.zeros(3).double(), atol=0, rtol=0)
    p, q, above = first.down[0].exp(), second.down[0].exp(), first.marginals()[1].exp()
    expected = sum(above[i] * (p[i] * (p[i] / q[i]).log()).sum() for i in range(len(above)))
    torch.testing.assert_close(moved(first, second)[0], expected, atol=1e-12, rtol=0)


def test_the_two_layer_bound_is_the_elbo_and_its_rate_of_z2() -> None:
    source = torch.Generator().manual_seed(3)

    def weight(rows: int, columns: int) -> torch.Tensor:
        return torch.randn(rows, columns, generator=source, dtype=torch.float64) / 2

    w = {"u1": weight(4, 2), "u2": weight(2, 2), "w1": weight(2, 4), "w2": weight(2, 2)}
    w |= {name: (weight(2, 2) + torch.eye(2)).tril() for name in ("r1", "r2")}
    stack = examples.linear_stack(1.0, "best", 0, (4, 2, 2))
    decoder = stack.model.decoder
    with torch.no_grad():
        decoder["x"].net.weight.copy_(w["u1"])
        decoder["z1"].net.weight.copy_(w["u2"])
    upward = []
    for name, parent, key in (("z1", "x", "1"), ("z2", "z1", "2")):
        net = torch.nn.Linear(w["w" + key].shape[1], 2, dtype=torch.float64)
        with torch.no_grad():
            net.weight.copy_(w["w" + key])
            net.bias.zero_()
        family = FullGaussian(2, variance="fixed", scale_tril=w["r" + key])
        upward.append(Conditional(name, [parent], net, family))
    root = torch.linalg.cholesky(torch.eye(4).double() + torch.ones(4, 4).double())
    x = torch.cat([root.mT, -root.mT]) * 2  # eight points of mean 0 and covariance root root'
    gaps = LinearGaussian.of(decoder).gaps(NetworkPosterior(BeliefNetwork(upward)), x)
    covariance = x.mT @ x / len(x)
    for beta in (1.0, 2.5):
        expected = gaps.elbo.mean() - (beta - 1) * gaps.rates["z2"].mean()
        torch.testing.assert_close(two_layer_bound(w, covariance, beta), expected, atol=1e-10, rtol=0)


def test_under_exact_inference_the_teacher_is_a_point_of_rest() -> None:
    """The bound is the likelihood of the teacher's own x: no gradient, and Adam moves by what it makes of rounding."""
    teachers = Teachers.of(WIDE, (0.5, 1.0, 4.0), 2)
    stacks = [Enumeration(decoder, None) for decoder in teachers.decoders]
    still = fit(stacks, teachers.log_px().exp(), (1.0,) * 3, 1, 0.0)
    assert still.gradient.max() < 1e-14
    torch.testing.assert_close(still.bound, (teachers.log_px() * teachers.log_px().exp()).sum(-1), atol=1e-12, rtol=0)
    rows = release_rows({"wide": WIDE}, (0.5, 1.0, 4.0), 2, [None], QUICK, Budget(200, 0.02, 1), lambda _: None)
    assert rows["gap_before_nats"].max() == 0 == rows["gap_after_nats"].max()
    assert abs(rows["given_up_nats"]).max() < 1e-7
    np.testing.assert_allclose(rows["coupling_after3_nats"], rows["coupling_before3_nats"], rtol=0.05)
