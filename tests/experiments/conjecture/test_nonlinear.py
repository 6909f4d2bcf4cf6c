"""Non-linear Gaussian teachers of one unit a layer: what they are, how their encoders are trained, rows and claims."""

import numpy as np
import pytest
import torch
from torch import nn

from hvae.analysis.claims import decide
from hvae.experiments.conjecture import figures_nonlinear as figures
from hvae.experiments.conjecture import nonlinear
from hvae.experiments.conjecture.bernoulli import Budget, EncoderKind, n_parameters
from hvae.experiments.conjecture.claims_nonlinear import FLOW, FREE, LINEAR, MIXTURE, shapes
from hvae.experiments.conjecture.lines import Lines
from hvae.experiments.conjecture.nonlinear import OnValues, fitted, nonlinear_rows, smooth_decoder, started
from hvae.experiments.conjecture.tables_nonlinear import nonlinear_csv, nonlinear_summary, nonlinear_tables

GAUSSIAN, TWO = EncoderKind("gaussian", "mlp", 8), EncoderKind("mixture", "mlp", 8, 2)
ENCODERS = [
    EncoderKind("gaussian", "linear"),
    EncoderKind("gaussian", "free"),
    EncoderKind("mixture", "mlp", 16, 4),
    EncoderKind("nsf", "mlp", 16),
]


def lines(strength: float = 2.0, seed: int = 0, n: int = 48) -> Lines:
    return Lines.of(smooth_decoder(strength, torch.Generator().manual_seed(seed)), n, 4.5)


@pytest.mark.parametrize("strength", [0.5, 1.0, 4.0])
@pytest.mark.parametrize("seed", [0, 1])
def test_a_teacher_has_units_of_variance_1_and_signals_of_its_strength(strength: float, seed: int) -> None:
    network = smooth_decoder(strength, torch.Generator().manual_seed(seed))
    found = Lines.of(network, 240, 7.0)
    for above, name in (("z2", "z1"), ("z1", "x")):
        weight, values = found.weight(name), found.values[name]
        mean = float((weight * values).sum())
        assert mean == pytest.approx(0, abs=1e-4)
        assert float((weight * (values - mean).square()).sum()) == pytest.approx(1, abs=1e-3)
        signal = network[name].net(found.values[above].unsqueeze(-1)).squeeze(-1)
        noise = network[name].family.log_variance
        assert isinstance(noise, torch.Tensor)
        power = (found.weight(above) * signal.square()).sum() - (found.weight(above) * signal).sum().square()
        assert float((power / noise.exp()).sqrt()) == pytest.approx(strength, rel=1e-3)


def test_a_teacher_keeps_its_directions_at_every_strength() -> None:
    weak, strong = (smooth_decoder(s, torch.Generator().manual_seed(5))["z1"].net for s in (1.0, 4.0))
    line = torch.linspace(-3, 3, 7, dtype=torch.float64).unsqueeze(-1)
    torch.testing.assert_close(weak(line) * 2**0.5, strong(line) * 17**0.5 / 4, atol=1e-10, rtol=0)


@torch.no_grad()
def test_both_stages_of_training_are_what_they_say() -> None:
    """On the chain of values: told is minus the cross-entropy of the reverse conditionals, best where q is exact."""
    known = lines()
    stack = OnValues(known, started(TWO, 0))
    told, bound = stack()
    tables = stack.tables()
    marginals = tables.marginals()
    torch.testing.assert_close(marginals[0].exp(), stack.weight, atol=1e-4, rtol=0)
    expected = 0.0
    for down, up, above in zip(tables.down, tables.up, marginals[1:], strict=True):
        joint = (above.unsqueeze(-1) + down).exp().mT
        expected += float((joint * up).sum())
    assert float(told) == pytest.approx(expected, abs=5e-3)
    gap = float((stack.weight * marginals[0]).sum() - bound)
    assert float(tables.gaps(stack.weight).sum()) == pytest.approx(gap, abs=1e-10)
    assert stack.gap() == pytest.approx(gap, abs=1e-10)
    fine, _ = known.gaps(stack.encoder)
    assert stack.gap() == pytest.approx(float(fine.sum()), rel=0.02)


def test_an_encoder_trained_beside_others_is_the_one_trained_alone() -> None:
    stacks = [OnValues(lines(seed=seed, n=24), started(TWO, seed)) for seed in (0, 1)]
    budget = Budget(5, 0.02, 1)
    together, _ = fitted(stacks, budget)
    for stack, one in zip(stacks, together, strict=True):
        (alone,), _ = fitted([stack], budget)
        for name, value in one.encoder.state_dict().items():
            torch.testing.assert_close(value, alone.encoder.state_dict()[name], atol=1e-9, rtol=0)
        assert stack.gap() != one.gap()


def test_training_does_not_give_up_the_modes() -> None:
    """0.45 nats are left here; climbing the bound from the start, without being told, leaves 2.6."""
    (whole,), change = fitted([OnValues(lines(4.0, seed=0, n=64), started(TWO, 0))], Budget(120, 0.05, 1))
    assert 0.1 < whole.gap() < 1.0 and abs(float(change[0])) < 0.05


@torch.no_grad()
def test_a_masked_autoregressive_flow_of_one_unit_is_a_gaussian() -> None:
    """Why it is not among the distributions: noise is affine in the value."""
    encoder = started(EncoderKind("maf", "mlp", 4), 0)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(0.3)
    family = encoder["z1"].family
    distribution = encoder["z1"]({"x": torch.ones(1, 1).double()})
    noise = family.noise_of(distribution, torch.linspace(-2, 2, 9, dtype=torch.float64).unsqueeze(-1)).squeeze(-1)
    assert float(noise.diff().diff().abs().max()) < 1e-12
    spline = started(EncoderKind("nsf", "mlp", 4), 0)
    with torch.no_grad():
        for parameter in spline.parameters():
            parameter.add_(0.3)
    distribution = spline["z1"]({"x": torch.ones(1, 1).double()})
    noise = (
        spline["z1"]
        .family.noise_of(distribution, torch.linspace(-2, 2, 9, dtype=torch.float64).unsqueeze(-1))
        .squeeze(-1)
    )
    assert float(noise.diff().diff().abs().max()) > 1e-3


@torch.no_grad()
def test_hidden_units_turn_all_over_the_parent() -> None:
    net = started(GAUSSIAN, 0)["z1"].net
    assert isinstance(net, nn.Sequential)
    turns = -net[0].bias / net[0].weight.squeeze(-1)
    assert float(turns.std()) > 0.5
    assert n_parameters(started(GAUSSIAN, 0)) == 2 * (8 + 8 + 8 * 2 + 2)


@pytest.fixture(scope="module")
def measured() -> dict[str, dict[str, np.ndarray]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nonlinear, "TRAINED", (40, 4.5))
        patch.setattr(nonlinear, "MEASURED", (100, 6.5))
        return {"nonlinear": nonlinear_rows((1.0, 4.0), 2, ENCODERS, Budget(4, 0.02, 1), lambda _: None)}


def test_rows_tables_and_figure_show_every_distribution(measured: dict[str, dict[str, np.ndarray]]) -> None:
    rows = measured["nonlinear"]
    assert list(dict.fromkeys(rows["encoder"].tolist())) == [LINEAR, FREE, MIXTURE, FLOW]
    assert len(rows["gap_nats"]) == 16
    np.testing.assert_allclose(rows["gap_nats"], rows["gap1_nats"] + rows["gap2_nats"], atol=1e-12)
    free, linear = (rows["gap_nats"][rows["encoder"] == name] for name in (FREE, LINEAR))
    assert (free > 0).all() and (free < linear).all()
    assert np.isnan(rows["late_gain_nats"]).sum() == 4
    (table,) = nonlinear_tables(measured).values()
    assert len(table.rows) == 4
    assert set(nonlinear_csv(measured)) == {"conjecture-nonlinear.csv"}
    (sentence,) = nonlinear_summary(measured)
    assert "12 encoders" in sentence and "nan" not in sentence
    assert figures.distributions(measured) is not None and figures.distributions({}) is None
    assert nonlinear_tables({}) == nonlinear_csv({}) == {} and nonlinear_summary({}) == []
    assert {decide(claim, {}, measured).n_replicas for claim in shapes} == {2}


def test_claims_follow_the_numbers() -> None:
    def outcomes(weak: float, strong: float, mixture: float, flow: float) -> list[str]:
        cells = [
            (name, strength, teacher, gap * (1 + 0.01 * teacher))
            for strength in (1.0, 4.0)
            for name, gap in (
                (LINEAR, 0.3),
                (FREE, weak if strength == 1.0 else strong),
                (MIXTURE, mixture),
                (FLOW, flow),
            )
            for teacher in range(6)
        ]
        names = ("encoder", "strength", "teacher", "layer_gap_nats")
        rows = {name: np.array(column) for name, column in zip(names, zip(*cells, strict=True), strict=True)}
        return [decide(claim, {}, {"nonlinear": rows}).outcome for claim in shapes]

    assert outcomes(0.05, 0.2, 0.01, 0.02) == ["supported"] * 5
    assert outcomes(0.05, 0.06, 0.03, 0.03) == ["supported", *["not supported"], "supported", *["not supported"] * 2]
    assert outcomes(0.01, 0.01, 0.001, 0.001)[:2] == ["not supported"] * 2
    assert outcomes(0.1, 0.29, 0.01, 0.07)[2:] == ["not supported", "supported", "not supported"]
    assert all(decide(claim, {}, {}).outcome == "not measured" for claim in shapes)
