"""Faults in the exact references: linear-Gaussian chains, discrete chains, quadrature."""

from tests.faults.fault import REFUSAL, Change, Fault

LINEAR = ("tests/exact/test_linear_gaps.py::test_gaps_equal_numpy_three_ways",)
DISCRETE = ("tests/exact/test_discrete.py::test_every_answer_equals_enumeration",)
ENUMERATION = (
    "tests/experiments/conjecture/test_enumeration.py::test_bound_and_gaps_equal_the_chain_of_transfer_matrices",
)
QUADRATURE = ("tests/exact/test_quadrature.py::test_answers_equal_a_grid_of_values",)

FAULTS = (
    Fault(
        "least-gap-of-the-covariance",
        "the least gap of a diagonal Gaussian is read off the covariance, not the precision",
        Change(
            "hvae.experiments.orders.frozen_decoder:least_gap",
            "torch.linalg.inv(distribution.covariance)",
            "distribution.covariance",
        ),
        ("tests/experiments/orders/test_frozen_decoder.py::test_the_least_gaps_are_those_of_the_dense_covariance",),
    ),
    # linear-Gaussian chains
    Fault(
        "linear-kl-swapped",
        "a layer's gap is KL(p ‖ q)",
        Change(
            "hvae.exact.linear_gaps:linear_gaps",
            "visit.expected_kl(q.distribution(name), joint.conditional([name], before), before)",
            "visit.expected_kl(joint.conditional([name], before), q.distribution(name), before)",
        ),
        LINEAR,
        raises=REFUSAL,
    ),
    Fault(
        "linear-expectation-under-p",
        "expectations under q are taken under p",
        Change("hvae.exact.linear_gaps:linear_gaps", "_Visit.of(q, x)", "_Visit.of(p, x)"),
        LINEAR,
        raises=REFUSAL,
    ),
    Fault(
        "linear-remaining-off-by-one",
        "what remains of the gap after a layer still holds the layer's own q",
        Change("hvae.exact.linear_gaps:linear_gaps", "order[position + 1 :]", "order[position:]"),
        LINEAR,
        raises=REFUSAL,
    ),
    Fault(
        "linear-spread-lost",
        "an expected log-density is taken at the mean, with too little of the spread about it",
        Change(
            "hvae.exact.linear_gaps:_Visit.expected_log_prob",
            "_trace_ratio(spread, distribution.root)",
            "(1 - SIZE) * _trace_ratio(spread, distribution.root)",
        ),
        LINEAR,
        size=0.02,
        raises=REFUSAL,
    ),
    Fault(
        "joint-routes-not-compared",
        "an exact conditional is given whatever its second route says",
        Change("hvae.exact.joint:_refuse_beyond_rounding", "error <= ROUNDING", "error <= 1e300"),
        ("tests/exact/test_extremes.py::test_log_px_is_right_or_refused",),
    ),
    # linear stacks trained exactly
    Fault(
        "stack-bound-weight",
        "the weight of a rate meets q's entropy and not p's density",
        Change(
            "hvae.experiments.shared.linear.training:stack_bound",
            'found + beta * (_log_density(missed, len(log_variance), w[f"p{layer}"]) + entropy)',
            'found + _log_density(missed, len(log_variance), w[f"p{layer}"]) + beta * entropy',
        ),
        ("tests/experiments/shared/test_linear_training.py::test_the_bound_of_any_depth_is_the_house_s_elbo",),
    ),
    Fault(
        "stack-bound-offset",
        "data that are off the stack's mean are not read by the encoder",
        Change(
            "hvae.experiments.shared.linear.training:stack_bound",
            '(v @ w["offset"]).outer(w["offset"])',
            '0 * (v @ w["offset"]).outer(w["offset"])',
        ),
        (
            "tests/experiments/shared/test_linear_training.py::test_the_bound_of_one_layer_is_the_elbo_that_the_house_trains",
        ),
    ),
    Fault(
        "zero-column-residual",
        "a zero column sees the whole of a direction that other columns hold",
        Change(
            "hvae.experiments.lucas_ppca.ppca:zero_column_curvature",
            "min(variance, eigenvalue) if place < n_kept else eigenvalue",
            "eigenvalue",
        ),
        ("tests/experiments/shared/test_linear_training.py::test_the_hessian_at_a_zero_column",),
    ),
    Fault(
        "column-not-the-prior",
        "an empty column is looked at where the deviation of its q is 1, and not that of the prior",
        Change(
            "hvae.experiments.shared.linear.training:column_curvature", 'w["p1"].reshape(1)', '0 * w["p1"].reshape(1)'
        ),
        ("tests/experiments/shared/test_linear_training.py::test_the_staircase_of_modes",),
    ),
    # discrete chains
    Fault(
        "softplus-cut-off",
        "the chance of a unit that is all but sure is taken for 1 above a logit of 20",
        Change("hvae.exact.discrete_visits:log_table", "F.logsigmoid(-told)", "(-F.softplus(told))"),
        ("tests/exact/test_extremes.py::test_log_px_of_bernoulli_units_is_right",),
    ),
    Fault(
        "discrete-kl-swapped",
        "a layer's gap is KL(p ‖ q)",
        Change(
            "hvae.exact.discrete:DiscreteChain.gaps",
            "exact(name, rows)",
            "log_q - (exact(name, rows) - log_q).exp() * (exact(name, rows) - log_q)",
        ),
        DISCRETE,
    ),
    Fault(
        "reverse-normalised-over-the-parent",
        "p(z_l | z_{l-1}) sums to 1 over z_{l-1}",
        Change(
            "hvae.exact.discrete:DiscreteChain._reverse",
            "(tables[below].mT + marginals[name]).log_softmax(-1)",
            "(tables[below].mT + marginals[name]).log_softmax(0)",
        ),
        DISCRETE,
    ),
    Fault(
        "discrete-expectation-under-p",
        "what remains of the gap is averaged over p(z_l), not over q(z_l | x)",
        Change(
            "hvae.exact.discrete:DiscreteChain.gaps",
            "last * (marginals if bottom_up else likelihoods)[name]",
            "marginals[name].exp() * (marginals if bottom_up else likelihoods)[name]",
        ),
        DISCRETE,
    ),
    Fault(
        "discrete-remaining-off-by-one",
        "what remains of the gap after a layer still holds the layer itself",
        Change(
            "hvae.exact.discrete:DiscreteChain.gaps",
            "visited[name] - bound",
            "visited[name] - bound - link[name] + log_q[name]",
        ),
        DISCRETE,
    ),
    Fault(
        "discrete-kl-weight",
        "the entropy of q enters the exact ELBO by a little more than 1",
        Change("hvae.exact.discrete:DiscreteChain.elbo", "log_p - log_q", "log_p - (1 + SIZE) * log_q"),
        DISCRETE,
        size=0.02,
    ),
    Fault(
        "information-inherited",
        "the information of a ladder's layer holds that of the layers above",
        Change("hvae.exact.discrete_information:_conditional", "so_far - above", "so_far"),
        ("tests/exact/test_discrete.py::test_informations_equal_enumeration",),
    ),
    # whole stacks of bernoulli
    Fault(
        "enumeration-beta-of-the-wrong-layer",
        "log p(z_l | z_{l+1}) is weighed by the layer above it, not by its own",
        Change(
            "hvae.experiments.conjecture.enumeration:Tables.bound",
            "weight.unsqueeze(-1) * q * (above * down.mT - beta * up)",
            "weight.unsqueeze(-1) * q * beta * (down.mT - up)",
        ),
        ENUMERATION,
    ),
    Fault(
        "enumeration-gap-under-p",
        "the layer gaps of a whole stack are averaged over the exact posterior of the layer below",
        Change("hvae.experiments.conjecture.enumeration:Tables.gaps", "weight @ q", "weight @ exact.exp()"),
        ENUMERATION,
    ),
    Fault(
        "best-bound-untempered",
        "exact inference forgets that a layer with a large β has a flatter posterior",
        Change(
            "hvae.experiments.conjecture.enumeration:Tables._scores",
            "beta[layer] * found[-1].logsumexp(-1)",
            "(beta[layer] * found[-1]).logsumexp(-1)",
        ),
        (
            "tests/experiments/conjecture/test_enumeration.py::test_the_best_bound_is_what_a_search_over_all_posteriors_finds",
        ),
    ),
    Fault(
        "two-layer-spread-lost",
        "the bound of a linear stack forgets the noise of q(z2 | z1) in the mean of z1",
        Change(
            "hvae.experiments.conjecture.linear:two_layer_bound",
            "missed @ first @ missed.mT + u2 @ s2 @ u2.mT",
            "missed @ first @ missed.mT",
        ),
        ("tests/experiments/conjecture/test_conjecture.py::test_the_two_layer_bound_is_the_elbo_and_its_rate_of_z2",),
    ),
    # what a needed layer may cost
    Fault(
        "worth-of-every-coin",
        "z2 is said to be worth what ties a group to all others, its own units left out",
        Change("hvae.experiments.conjecture.grouped:log_groups", "axis != group", "axis == group"),
        (
            "tests/experiments/conjecture/test_thresholds.py::test_what_z2_is_worth_is_the_total_correlation_of_the_groups",
        ),
    ),
    Fault(
        "local-threshold-of-fair-coins",
        "the local threshold takes the Bernoulli units of z1 for fair ones when it reads x",
        Change("hvae.experiments.conjecture.grouped:local_threshold", "tables.down[0].mT + prior", "tables.down[0].mT"),
        (
            "tests/experiments/conjecture/test_thresholds.py::test_a_z2_that_codes_little_pays_below_the_local_threshold_and_not_above",
        ),
    ),
    Fault(
        "local-threshold-without-the-spread-of-z1",
        "the local threshold of Gaussians takes z1 to have unit variance",
        Change("hvae.experiments.conjecture.linear:local_threshold", "u2.square().sum(-1)", "0 * u2.sum(-1)"),
        (
            "tests/experiments/conjecture/test_thresholds.py::test_a_gaussian_z2_that_codes_little_pays_below_the_local_threshold_and_not_above",
        ),
    ),
    Fault(
        "search-forgets-its-neighbours",
        "each β is trained again from the first stack known, not from the best of all",
        Change(
            "hvae.experiments.conjecture.thresholds:Search.best",
            "max(self._known[teacher], key=lambda solution: solution.value(beta))",
            "self._known[teacher][0]",
        ),
        ("tests/experiments/conjecture/test_thresholds.py::test_the_search_finds_the_threshold_of_a_known_value",),
    ),
    Fault(
        "rate-of-a-stack-at-another-price",
        "under exact inference the rate is that of the posterior at β = 1",
        Change("hvae.experiments.conjecture.grouped:_solution", "tables.best((1.0, beta))", "tables.best((1.0, 1.0))"),
        ("tests/experiments/conjecture/test_thresholds.py::test_rows_of_bernoulli_hold_what_their_stacks_have",),
    ),
    Fault(
        "autoregressive-table-without-masks",
        "the states of an autoregressive layer are scored as if its units were independent",
        Change(
            "hvae.exact.discrete_visits:log_table",
            "family.log_prob(family.distribution(part), values)",
            "family.unit.log_prob(family.unit.distribution(part[..., : family.width]), values)",
        ),
        ("tests/exact/test_discrete.py::test_autoregressive_layers_equal_enumeration",),
    ),
    # chains over values
    Fault(
        "values-visited-under-p",
        "the layers above are met as p leaves them, not as q does",
        Change("hvae.experiments.conjecture.lines:Lines.gaps", "weight @ q", "self.weight(name)"),
        (
            "tests/experiments/conjecture/test_lines.py::test_gaps_equal_those_of_numpy_on_other_values_and_sum_to_log_px_less_the_elbo",
        ),
    ),
    Fault(
        "reverse-without-prior",
        "p(z_l | z_{l-1}) is the likelihood alone",
        Change(
            "hvae.experiments.conjecture.lines:Lines.reverse",
            "self.down[child].mT + self.marginals[latent]",
            "self.down[child].mT",
        ),
        (
            "tests/experiments/conjecture/test_lines.py::test_gaps_equal_those_of_numpy_on_other_values_and_sum_to_log_px_less_the_elbo",
        ),
    ),
    Fault(
        "least-gaussian-forgets-above",
        "the best distribution of z1 does not mind what it makes of z2",
        Change(
            "hvae.experiments.conjecture.lines:Lines._least",
            "self.reverse(name) - above",
            "self.reverse(name) - 0 * above",
        ),
        ("tests/experiments/conjecture/test_lines.py::test_the_least_gaussian_equals_a_search_by_scipy",),
    ),
    Fault(
        "encoder-never-told",
        "an encoder of a non-linear teacher climbs the bound from where it starts, and loses modes",
        Change("hvae.experiments.conjecture.nonlinear:fitted", "(0, 1)", "(1, 1)"),
        ("tests/experiments/conjecture/test_nonlinear.py::test_training_does_not_give_up_the_modes",),
    ),
    # quadrature
    Fault(
        "quadrature-kl-swapped",
        "a layer's gap is KL(p ‖ q)",
        Change(
            "hvae.exact.quadrature:Quadrature._answers",
            "normaliser - ratio",
            "(ratio - normaliser).exp() * (ratio - normaliser)",
        ),
        QUADRATURE,
        raises=REFUSAL,
    ),
    Fault(
        "quadrature-remaining-off-by-one",
        "what remains of the gap after a layer still holds the layer's own rate",
        Change("hvae.exact.quadrature:Quadrature._answers", "rates[position + 1 :]", "rates[position:]"),
        QUADRATURE,
        raises=REFUSAL,
    ),
    Fault(
        "nodes-counted-as-draws",
        "nodes are averaged without their weights",
        Change(
            "hvae.exact.quadrature:Quadrature._answers",
            "(weight * terms).sum(axes)",
            "(0 * weight + terms).mean(axes)",
        ),
        QUADRATURE,
        raises=REFUSAL,
    ),
    # two linear layers
    Fault(
        "two-layers-variance-unweighed",
        "Σ2 is completed without the weight of its rate",
        Change(
            "hvae.experiments.dang_strengths.two_layers:completed",
            "beta2.log() - precision.diagonal().log()",
            "-precision.diagonal().log()",
        ),
        ("tests/experiments/dang_strengths/test_two_layers.py::test_what_is_completed_is_best",),
    ),
    Fault(
        "two-layers-given-threshold",
        "with a given Σ2 the top collapses where it would with a learned one",
        Change(
            "hvae.experiments.shared.linear.thresholds:two_layer", "sigma2**2 * threshold / eta_enc**2", "threshold"
        ),
        ("tests/experiments/shared/test_thresholds.py::test_two_layer_of_given_variances_is_where_minimisation_ends",),
    ),
)
