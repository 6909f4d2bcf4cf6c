"""Faults in the arithmetic of weights, draws, laws and evidence."""

from tests.faults.fault import Edit, Fault

FAULTS = (
    # numerics
    Fault(
        "log-mean-exp-without-log-k",
        "the log of a sum of K weights is taken for that of their mean: log K is missing",
        Edit("hvae.numerics", "(x, dim) - math.log(x.shape[dim])", "(x, dim) - (1 - SIZE) * math.log(x.shape[dim])"),
        ("tests/test_numerics.py::test_log_mean_exp_of_known_weights_at_any_scale",),
        size=1.0,
    ),
    Fault(
        "streaming-mean-without-log-k",
        "log K is missing from the mean of weights that come in chunks",
        Edit(
            "hvae.numerics", "_log_sum - math.log(self.n_samples)", "_log_sum - (1 - SIZE) * math.log(self.n_samples)"
        ),
        ("tests/likelihood/test_importance.py::test_streaming_equals_one_shot_at_every_k",),
        size=1.0,
    ),
    Fault(
        "ess-outside-the-logarithm",
        "the effective sample size from exp of the log-weights, which underflows",
        Edit(
            "hvae.numerics",
            "return _ess(torch.logsumexp(log_weight, dim), torch.logsumexp(2 * log_weight, dim))",
            "return log_weight.exp().sum(dim) ** 2 / (2 * log_weight).exp().sum(dim)",
        ),
        ("tests/test_numerics.py::test_ess_counts",),
    ),
    Fault(
        "gaussian-kl-of-variance-ratio-only",
        "the KL of two Gaussians forgets how far apart their means are, in part",
        Edit("hvae.numerics", "- d + distance.square())", "- d + (1 - SIZE) * distance.square())"),
        ("tests/test_numerics.py::test_gaussian_kl_equals_torch_where_torch_holds",),
        size=0.02,
    ),
    Fault(
        "bootstrap-of-pooled-rows",
        "rows (replicas, layers) are pooled with the data before the bootstrap",
        Edit(
            "hvae.numerics",
            "means: FloatArray = values @ _bootstrap_shares",
            "means: FloatArray = np.broadcast_to(values.mean(tuple(range(values.ndim - 1))), values.shape)"
            " @ _bootstrap_shares",
        ),
        ("tests/test_numerics.py::test_bootstrap_is_a_function_of_its_seed_and_pairs_rows",),
    ),
    Fault(
        "bootstrap-of-unpaired-rows",
        "every row draws data of its own, so that differences of rows are not paired",
        Edit(
            "hvae.numerics",
            "means: FloatArray = values @ _bootstrap_shares(n_data, n_bootstrap, seed)",
            "rows = values.reshape(-1, n_data)\n"
            "        found = [row @ _bootstrap_shares(n_data, n_bootstrap, seed + i) for i, row in enumerate(rows)]\n"
            "        means: FloatArray = np.stack(found).reshape(*values.shape[:-1], n_bootstrap)",
        ),
        ("tests/test_numerics.py::test_bootstrap_is_a_function_of_its_seed_and_pairs_rows",),
    ),
    # draws
    Fault(
        "stale-noise",
        "the noise of every step is that of step 0",
        Edit("hvae.rng", 'f"{seed}/{purpose}/{step}"', 'f"{seed}/{purpose}"'),
        ("tests/test_rng.py", "tests/test_training.py::test_noise_is_keyed_by_seed_and_step"),
    ),
    # families
    Fault(
        "units-averaged",
        "log-probabilities of units are averaged where they are to be summed",
        Edit("hvae.families.family", "unit_log_prob(law, value).sum(-1)", "unit_log_prob(law, value).mean(-1)"),
        ("tests/test_families.py::test_log_prob_equals_scipy_and_broadcasts",),
    ),
    Fault(
        "units-of-a-site-averaged",
        "where a variable lands in a walk, the log-probabilities of its units are averaged",
        Edit("hvae.network", "return self.unit_log_prob.sum(-1)", "return self.unit_log_prob.mean(-1)"),
        ("tests/test_network.py::test_drawn_values_score_as_they_were_drawn_and_as_by_hand",),
    ),
    Fault(
        "deviation-for-variance",
        "a Gaussian log-density divides by the variance where it divides by the deviation",
        Edit("hvae.families.gaussian", "(self.log_variance * -0.5).exp()", "(self.log_variance * -1.0).exp()"),
        ("tests/test_families.py::test_log_prob_equals_scipy_and_broadcasts",),
    ),
    Fault(
        "half-log-variance-lost",
        "a Gaussian's normaliser takes the log-variance whole, not half",
        Edit("hvae.families.gaussian", "+ self.log_variance + LOG_2PI", "+ (1 + SIZE) * self.log_variance + LOG_2PI"),
        ("tests/test_families.py::test_log_prob_equals_scipy_and_broadcasts",),
        size=1.0,
    ),
    Fault(
        "draw-scaled-by-too-much",
        "Gaussian draws are wider than the law that scores them",
        Edit("hvae.families.gaussian", "law.mean + law.stddev * noise", "law.mean + (1 + SIZE) * law.stddev * noise"),
        (
            "tests/test_families.py::test_gaussian_draws_are_mean_plus_scale_times_noise",
            "tests/test_evidence.py::test_weights_average_to_the_evidence_of_gaussian_stacks",
        ),
        size=0.02,
    ),
    Fault(
        "coins-by-probabilities",
        "coins are scored by their probabilities, which round to 0 and 1",
        Edit(
            "hvae.families.discrete",
            "return value * logits - F.softplus(logits)",
            "p = logits.sigmoid().clamp(1e-7, 1 - 1e-7)\n        return value * p.log() + (1 - value) * (1 - p).log()",
        ),
        ("tests/test_families.py::test_coins_answer_1000_where_the_truth_is_1000",),
    ),
    Fault(
        "dice-without-gumbel-tails",
        "a die falls by uniform noise on its logits in place of Gumbel noise",
        Edit("hvae.families.discrete", "return _logits(law) + gumbel", "return _logits(law) + self._split(noise)"),
        ("tests/test_families.py::test_discrete_draws_fall_with_the_law_of_every_joint_state",),
    ),
    Fault(
        "ladder-merges-by-variance",
        "the ladder weighs two Gaussians by their variances, not their precisions",
        Edit("hvae.families.gaussian", "torch.sigmoid(log_w - log_v)", "torch.sigmoid(log_v - log_w)"),
        ("tests/test_families.py::test_product_is_the_normalised_product", "tests/test_posterior.py"),
    ),
    # the model
    Fault(
        "ladder-prior-from-means",
        "the ladder's prior of layer l is fed by the upward pass's mean of the layer above, not by what was drawn",
        Edit("hvae.posterior", "decoder.descend(values)", "decoder.descend(means)"),
        ("tests/test_posterior.py::test_the_ladder_merges_gaussians_by_precision",),
    ),
    Fault(
        "ladder-top-merged",
        "the top of a ladder is merged with its prior, where the paper has the encoder's law alone",
        Edit("hvae.posterior", "if decoder.parents(name) else", "if name in decoder.variables else"),
        ("tests/test_posterior.py::test_the_ladder_merges_gaussians_by_precision",),
    ),
    Fault(
        "strangers-take-the-nearest-row",
        "an image to which nothing was fitted is given the parameters of another",
        Edit("hvae.posterior", "stored = (self.keys[row] - key).abs() <= self.tolerance", "stored = key == key"),
        ("tests/test_posterior.py::test_an_image_that_was_not_stored_has_no_outputs",),
    ),
    Fault(
        "shared-top-not-merged",
        "the top of a shared ladder leaves its prior out",
        Edit("hvae.posterior", "return family.product(upward, prior)", "return upward"),
        (
            "tests/test_posterior.py::test_the_ladder_merges_gaussians_by_precision",
            "tests/test_build.py::test_the_shared_ladder_is_the_ladder_with_its_top_merged",
        ),
    ),
    Fault(
        "prior-from-the-wrong-layer",
        "the prior of every layer is fed from the top",
        Edit(
            "hvae.build.stack",
            "Conditional(child, [above.name for above in seen], net",
            "Conditional(child, [names[-1] for above in seen], net",
        ),
        ("tests/test_build.py::test_the_decoder_mirrors_the_encoder",),
    ),
    Fault(
        "transposed-convolutions-lose-a-row",
        "a transposed convolution brings back an odd number of rows only",
        Edit("hvae.nets.convolutional", "(size + 1) % 2 for size in shape", "0 * size for size in shape"),
        ("tests/test_nets.py::test_a_transposed_convolution_is_the_adjoint",),
        raises=("AssertionError", "Failed", "RuntimeError"),
    ),
    Fault(
        "floor-for-the-deviation",
        "the cap on a log-variance is that on the log of the deviation",
        Edit("hvae.numerics", "return v - 1 - 2 * nats", "return (v - 1 - 2 * nats) / 2"),
        (
            "tests/test_nets.py::test_capped_variances_keep_the_least_divergence_and_reach_it",
            "tests/test_build.py::test_the_cures_hold_the_top_off_the_prior",
        ),
    ),
    Fault(
        "latents-in-the-wrong-order",
        "the latents of a model are listed from the top",
        Edit(
            "hvae.evidence",
            'return tuple(name for name in reversed(self.decoder.variables) if name != "x")',
            'return tuple(name for name in self.decoder.variables if name != "x")',
        ),
        ("tests/test_build.py::test_the_decoder_mirrors_the_encoder",),
    ),
    # evidence
    Fault(
        "rate-sign",
        "rates are added to the log-weight",
        Edit("hvae.evidence", "sum((-self.rate(name).double()", "sum((self.rate(name).double()"),
        ("tests/test_evidence.py::test_log_weights_are_log_p_minus_log_q_by_other_arithmetic",),
    ),
    Fault(
        "rate-weighed",
        "rates enter the log-weight by a little more than 1",
        Edit("hvae.evidence", "sum((-self.rate(name).double()", "sum((-(1 + SIZE) * self.rate(name).double()"),
        ("tests/test_evidence.py::test_log_weights_are_log_p_minus_log_q_by_other_arithmetic",),
        size=0.02,
    ),
    Fault(
        "rate-weighed-seen-by-sampling",
        "rates enter the log-weight by more than 1, and only a statistical test looks",
        Edit("hvae.evidence", "sum((-self.rate(name).double()", "sum((-(1 + SIZE) * self.rate(name).double()"),
        ("tests/likelihood/test_importance.py::test_weights_are_unbiased",),
        size=0.1,
    ),
    Fault(
        "closed-form-in-a-weight",
        "a closed-form KL stands in an importance weight where the sampled rate belongs",
        Edit(
            "hvae.evidence",
            "sum((-self.rate(name).double()",
            "sum((-kl(self.q[name].law, self.p[name].law).double()",
        ),
        (
            "tests/test_evidence.py::test_log_weights_are_log_p_minus_log_q_by_other_arithmetic",
            "tests/test_evidence.py::test_weights_average_to_the_evidence_of_gaussian_stacks",
        ),
    ),
    Fault(
        "closed-form-bottom-up",
        "the closed-form KL is allowed where the prior's parent was drawn from the layer itself",
        Edit("hvae.evidence", "<= set(order[: order.index(name)])", "<= set(order)"),
        ("tests/test_evidence.py::test_closed_forms_equal_the_mean_of_sampled_rates_exactly_where_they_are_allowed",),
    ),
    Fault(
        "float32-weights",
        "log-weights are summed in the dtype of the nets",
        Edit(
            "hvae.evidence",
            "sum((-self.rate(name).double() for name in self.q), start=-self.distortion.double())",
            "sum((-self.rate(name) for name in self.q), start=-self.distortion)",
        ),
        ("tests/test_evidence.py::test_identities_and_dtypes",),
    ),
    # the VampPrior
    Fault(
        "vamp-shares-forgotten",
        "the mixture of pseudo-inputs is a sum and not a mean",
        Edit("hvae.families.mixture", "-math.log(self.n_components)", "0.0"),
        ("tests/test_vamp.py::test_the_prior_is_the_mixture_of_the_encoders_laws_at_known_points",),
    ),
    Fault(
        "vamp-net-under-two-names",
        "the encoder's net is a submodule of the decoder as well, and evidence with constant weights leaves them there",
        Edit("hvae.nets.layers", "self.shared = (net,)", "self.shared = nn.ModuleList([net])"),
        ("tests/test_vamp.py::test_frozen_evidence_and_the_stuck_gradient_see_the_shared_weights",),
    ),
    Fault(
        "vamp-of-its-own-net",
        "the prior has a net of its own, which does not learn with the encoder's",
        Edit(
            "hvae.build.stack",
            "nets.PseudoInputs(inputs, top.net)",
            "nets.PseudoInputs(inputs, nets.mlp(len(inputs[0]), (), top.family.n_outputs,"
            " activation=nn.Tanh, initialise=nets.xavier, source=generator(seed, 'init')))",
        ),
        ("tests/test_vamp.py::test_shared_weights_count_once_and_move_both",),
    ),
)
