"""Faults in what is trained: objectives, gradient estimators, the step."""

from tests.faults.fault import Change, Fault

FAULTS = (
    Fault(
        "elbo-kl-weight",
        "the ELBO's KL weight is off",
        Change("hvae.objectives.bounds:tempered", "beta", "(1 + SIZE) * beta"),
        ("tests/objectives/test_objectives.py::test_losses_equal_numpy",),
        size=0.02,
    ),
    Fault(
        "free-nats-per-draw",
        "the gate of free nats reads each draw, not their mean",
        Change("hvae.objectives.bounds:at_least", "rate.mean((0, 1))", "rate"),
        ("tests/objectives/test_objectives.py::test_the_gate_reads_the_batch_mean_not_each_datum",),
    ),
    Fault(
        "baseline-sees-its-own-sample",
        "the leave-one-out baseline includes the sample that it is a baseline of",
        Change(
            "hvae.gradients:_others",
            "torch.arange(1, n, device=log_weight.device)",
            "torch.arange(0, n, device=log_weight.device)",
        ),
        ("tests/test_gradients.py::test_discrete_stacks",),
    ),
    Fault(
        "signal-not-detached",
        "the score function's signal carries a gradient of its own",
        Change(
            "hvae.gradients:estimate",
            "(bound - (baseline or leave_one_out)(log_weight.detach(), aggregate)).detach()",
            "bound - (baseline or leave_one_out)(log_weight.detach(), aggregate)",
        ),
        ("tests/test_gradients.py::test_discrete_stacks",),
    ),
    Fault(
        "signal-weighed",
        "the score function's signal is too small",
        Change("hvae.gradients:estimate", "signal * discrete_log_q", "(1 - SIZE) * signal * discrete_log_q"),
        ("tests/test_gradients.py::test_discrete_stacks",),
        size=0.02,
    ),
    Fault(
        "laws-detached-in-sticking-the-landing",
        "sticking the landing detaches the parameters of q's distributions, which cuts the path through lower layers",
        Change(
            "hvae.gradients:stick",
            "evidence.frozen.q[name]",
            "replace(site, distribution=torch.distributions.MultivariateNormal(site.distribution.mean.detach(), "
            "scale_tril=site.distribution.scale_tril.detach(), validate_args=False))",
        ),
        ("tests/test_gradients.py::test_at_the_exact_posterior_every_single_draw_has_the_gradient_0",),
    ),
    Fault(
        "doubly-reparametrised-by-half",
        "the path in place of the score weighs a draw by its share, not by share (1 - share)",
        Change("hvae.gradients:score_as_path", "share * (1 - share)", "share"),
        ("tests/test_gradients.py::test_gradients_without_the_score",),
    ),
    Fault(
        "free-nats-of-units-by-the-layer",
        "the gate of each unit reads the mean over units too",
        Change("hvae.objectives.bounds:at_least", "rate.mean((0, 1))", "rate.mean()"),
        ("tests/objectives/test_objectives.py::test_free_nats_of_units_are_those_of_layers_of_one_unit",),
    ),
    Fault(
        "relaxed-coin-with-the-wrong-noise",
        "the noise of a relaxed bernoulli has the wrong sign: the same distribution, but not the hard draw's limit",
        Change(
            "hvae.families.discrete:Bernoulli.soft",
            "_logits(distribution) - torch.logit(noise)",
            "_logits(distribution) + torch.logit(noise)",
        ),
        (
            "tests/objectives/test_relaxation.py::test_straight_through_values_have_the_discrete_distribution_and_relaxed_ones_lie_between",
        ),
    ),
    Fault(
        "relaxed-too-cold",
        "a relaxed bernoulli has another temperature than it says",
        Change("hvae.families.discrete:Bernoulli.soft", "temperature", "(1 - SIZE) * temperature"),
        ("tests/objectives/test_relaxation.py::test_the_relaxed_gradient_of_a_bernoulli_climbs_the_surrogate",),
        size=0.02,
    ),
    Fault(
        "waiting-weights-keep-their-momentum",
        "a weight that waits has the gradient 0, so Adam moves it by its momentum",
        Change(
            "hvae.fitting.adam:Together.step", "gradients.get(name)", "gradients.get(name, torch.zeros_like(value))"
        ),
        ("tests/lab/training/test_loop.py::test_a_weight_that_waits_and_its_moments_stay_bit_for_bit",),
    ),
    Fault(
        "decoder-moves-a-step-early",
        "the decoder's turn comes at the step before",
        Change("hvae.lab.assembly.trainable:trainable", "step + 1", "step + 2"),
        (
            "tests/lab/training/test_loop.py::test_aggressive_training_equals_a_plain_loop_with_an_optimiser_for_each_part",
        ),
    ),
    Fault(
        "frozen-decoder-moves",
        "a decoder beside which encoders are refitted moves with them",
        Change("hvae.experiments.orders.refit:refit", "owner != DECODER", "owner != ''"),
        (
            "tests/experiments/orders/test_frozen_decoder.py::test_only_encoders_move_as_in_a_plain_loop_and_replicas_as_if_alone[mean-field]",
        ),
    ),
    Fault(
        "signal-of-noise",
        "the signal-to-noise ratio is not freed of what noise alone looks like",
        Change("hvae.diagnostics.signal:_jackknife", "n * whole - (n - 1) * without.mean()", "whole"),
        ("tests/diagnostics/test_signal.py::test_intervals_hold_the_truth_and_no_signal_is_told_as_none",),
    ),
    Fault(
        "one-norm-for-all-replicas",
        "gradients are clipped by the norm of all replicas together",
        Change(
            "hvae.fitting.update:Update.__call__",
            "squares[self._applied(trained)].sum(0)",
            "squares[self._applied(trained)].sum()",
        ),
        ("tests/lab/training/test_loop.py::test_each_replica_is_clipped_by_its_own_norm",),
    ),
    Fault(
        "a-stage-counts-from-the-start",
        "the learning rate of a later stage counts from the run's first step",
        Change("hvae.fitting.stage:Stage.rate", "rate(step - self.from_step)", "rate(step)"),
        ("tests/lab/training/test_loop.py::test_stages_equal_trainings_by_hand_one_after_the_other",),
    ),
    Fault(
        "a-removed-unit-weighs",
        "a unit that is removed still counts in the log-densities",
        Change(
            "hvae.experiments.burda_tables.removed:Removed.unit_log_prob",
            "self.family.unit_log_prob(distribution, value).masked_fill(self.removed, 0.0)",
            "self.family.unit_log_prob(distribution, value)",
        ),
        (
            "tests/experiments/burda_tables/test_removal.py::test_the_log_weights_are_those_of_a_stack_that_never_had_the_units",
        ),
    ),
)
