"""Faults in what is trained: objectives, gradient estimators, the step."""

from tests.faults.fault import Edit, Fault

FAULTS = (
    Fault(
        "elbo-kl-weight",
        "the ELBO's KL weight is off",
        Edit(
            "hvae.objectives.bounds",
            "beta * layer_beta.get(name, 1.0) * price",
            "(1 + SIZE) * beta * layer_beta.get(name, 1.0) * price",
        ),
        ("tests/test_objectives.py::test_losses_equal_numpy",),
        size=0.02,
    ),
    Fault(
        "free-nats-per-draw",
        "the gate of free nats reads each draw, not their mean",
        Edit("hvae.objectives.bounds", "rate.mean((0, 1)) > free", "rate > free"),
        ("tests/test_objectives.py::test_the_gate_reads_the_batch_mean_not_each_datum",),
    ),
    Fault(
        "baseline-sees-its-own-sample",
        "the leave-one-out baseline includes the sample that it is a baseline of",
        Edit("hvae.gradients", "torch.arange(1, n, device", "torch.arange(0, n, device"),
        ("tests/test_gradients.py::test_discrete_stacks",),
    ),
    Fault(
        "signal-not-detached",
        "the score function's signal carries a gradient of its own",
        Edit("hvae.gradients", "aggregate)).detach()", "aggregate))"),
        ("tests/test_gradients.py::test_discrete_stacks",),
    ),
    Fault(
        "signal-weighed",
        "the score function's signal is too small",
        Edit("hvae.gradients", "(signal * discrete_log_q)", "((1 - SIZE) * signal * discrete_log_q)"),
        ("tests/test_gradients.py::test_discrete_stacks",),
        size=0.02,
    ),
    Fault(
        "laws-detached-in-sticking-the-landing",
        "sticking the landing detaches the parameters of q's laws, which cuts the path through lower layers",
        Edit(
            "hvae.gradients",
            "name: evidence.frozen.q[name] if site",
            "name: replace(site, law=torch.distributions.MultivariateNormal("
            "site.law.mean.detach(), scale_tril=site.law.scale_tril.detach(), validate_args=False)) if site",
        ),
        ("tests/test_gradients.py::test_at_the_exact_posterior_every_single_draw_has_the_gradient_0",),
    ),
    Fault(
        "doubly-reparametrised-by-half",
        "the path in place of the score weighs a draw by its share, not by share (1 - share)",
        Edit("hvae.gradients", "(share * (1 - share) * log_weight)", "(share * log_weight)"),
        ("tests/test_gradients.py::test_gradients_without_the_score",),
    ),
    Fault(
        "one-norm-for-all-replicas",
        "gradients are clipped by the norm of all replicas together",
        Edit("hvae.training", "squares.sum(0).sqrt()", "squares.sum().sqrt()"),
        ("tests/test_training.py::test_each_replica_is_clipped_by_its_own_norm",),
    ),
)
