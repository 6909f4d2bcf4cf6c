"""Faults in the arithmetic of weights, draws, distributions and evidence."""

from tests.faults.fault import Change, Fault

FAULTS = (
    # numerics
    Fault(
        "log-mean-exp-without-log-k",
        "the log of a sum of K weights is taken for that of their mean: log K is missing",
        Change("hvae.numerics:log_mean_exp", "math.log(x.shape[dim])", "(1 - SIZE) * math.log(x.shape[dim])"),
        ("tests/test_numerics.py::test_log_mean_exp_of_known_weights_at_any_scale",),
        size=1.0,
    ),
    Fault(
        "streaming-mean-without-log-k",
        "log K is missing from the mean of weights that come in chunks",
        Change(
            "hvae.numerics:StreamingLogMeanExp.value",
            "math.log(self.n_samples)",
            "(1 - SIZE) * math.log(self.n_samples)",
        ),
        ("tests/likelihood/test_importance.py::test_streaming_equals_one_shot_at_every_k",),
        size=1.0,
    ),
    Fault(
        "ess-outside-the-logarithm",
        "the effective sample size from exp of the log-weights, which underflows",
        Change(
            "hvae.numerics:ess",
            "_ess(torch.logsumexp(log_weight, dim), torch.logsumexp(2 * log_weight, dim))",
            "log_weight.exp().sum(dim) ** 2 / (2 * log_weight).exp().sum(dim)",
        ),
        ("tests/test_numerics.py::test_ess_counts",),
    ),
    Fault(
        "gaussian-kl-of-variance-ratio-only",
        "the KL of two Gaussians forgets how far apart their means are, in part",
        Change("hvae.numerics:gaussian_kl", "distance.square()", "(1 - SIZE) * distance.square()"),
        ("tests/test_numerics.py::test_gaussian_kl_equals_torch_where_torch_holds",),
        size=0.02,
    ),
    Fault(
        "interval-without-the-tail",
        "an interval for a mean is Student's, whatever the skewness of its terms",
        Change("hvae.certain:student_hall", "t + term.clip(min=0)", "t + 0 * term"),
        ("tests/test_numerics.py::test_the_interval_covers",),
    ),
    Fault(
        "shared-draws-as-independent",
        "terms that share a draw are counted as independent ones",
        Change("hvae.numerics:mean_interval", "clusters is not None", "False"),
        ("tests/test_numerics.py::test_terms_that_share_a_draw_are_told",),
    ),
    # draws
    Fault(
        "stale-noise",
        "the noise of every step is that of step 0",
        Change("hvae.rng:generator", 'f"{seed}/{purpose}/{step}"', 'f"{seed}/{purpose}"'),
        ("tests/test_rng.py", "tests/fitting/test_stream.py::test_noise_is_keyed_by_seed_and_step"),
    ),
    # families
    Fault(
        "counts-without-their-factorial",
        "the log-probability of a Poisson count leaves log v! out, in part",
        Change(
            "hvae.families.counts:PoissonDistribution.unit_log_prob",
            "torch.lgamma(v + 1)",
            "(1 - SIZE) * torch.lgamma(v + 1)",
        ),
        ("tests/families/test_counts.py::test_log_probabilities_are_those_of_scipy",),
        size=1e-6,
    ),
    Fault(
        "dispersion-in-the-draws-alone",
        "a negative binomial count is drawn as Poisson",
        Change(
            "hvae.families.counts:NegativeBinomial.draw",
            "(log_m - log_r + log_gamma).exp()",
            "(log_m + 0 * log_gamma).exp()",
        ),
        (
            "tests/families/test_counts.py::test_draws_fall_with_the_distribution",
            "tests/families/test_counts.py::test_draws_of_every_size_have_mean_and_shares",
        ),
    ),
    Fault(
        "standardised-without-the-jacobian",
        "the log-density of a standardised column is that of its z-score",
        Change("hvae.families.gaussian:DiagonalGaussian.distribution", "2 * self.scale.log()", "0 * self.scale.log()"),
        (
            "tests/lab/assembly/test_units.py::test_other_units_move_log_weights_by_the_jacobian",
            "tests/lab/assembly/test_units.py::test_log_densities_are_those_of_the_data_in_their_own_units",
        ),
    ),
    Fault(
        "units-averaged",
        "log-probabilities of units are averaged where they are to be summed",
        Change(
            "hvae.families.family:Family.log_prob",
            "self.unit_log_prob(distribution, value).sum",
            "self.unit_log_prob(distribution, value).mean",
        ),
        ("tests/families/test_contract.py::test_log_prob_equals_scipy_and_broadcasts",),
    ),
    Fault(
        "units-of-a-site-averaged",
        "where a variable lands in a walk, the log-probabilities of its units are averaged",
        Change("hvae.network:Site.log_prob", "self.unit_log_prob.sum", "self.unit_log_prob.mean"),
        ("tests/test_network.py::test_drawn_values_score_as_they_were_drawn_and_as_by_hand",),
    ),
    Fault(
        "deviation-for-variance",
        "a Gaussian log-density divides by the variance where it divides by the deviation",
        Change(
            "hvae.families.gaussian:DiagonalNormal.unit_log_prob",
            "self.log_variance * -0.5",
            "self.log_variance * -1.0",
        ),
        ("tests/families/test_contract.py::test_log_prob_equals_scipy_and_broadcasts",),
    ),
    Fault(
        "half-log-variance-lost",
        "a Gaussian's normaliser takes the log-variance whole, not half",
        Change(
            "hvae.families.gaussian:DiagonalNormal.unit_log_prob",
            "white.square() + self.log_variance",
            "white.square() + (1 + SIZE) * self.log_variance",
        ),
        ("tests/families/test_contract.py::test_log_prob_equals_scipy_and_broadcasts",),
        size=1.0,
    ),
    Fault(
        "draw-scaled-by-too-much",
        "Gaussian draws are wider than the distribution that scores them",
        Change(
            "hvae.families.gaussian:DiagonalGaussian.draw", "distribution.stddev", "(1 + SIZE) * distribution.stddev"
        ),
        (
            "tests/families/test_contract.py::test_gaussian_draws_are_mean_plus_scale_times_noise",
            "tests/test_evidence.py::test_weights_average_to_the_evidence_of_gaussian_stacks",
        ),
        size=0.02,
    ),
    Fault(
        "coins-by-probabilities",
        "bernoulli are scored by their probabilities, which round to 0 and 1",
        Change(
            "hvae.families.discrete:Bernoulli.unit_log_prob",
            "return value * logits - F.softplus(logits, threshold=SOFTPLUS_LIMIT)",
            """
            p = logits.sigmoid().clamp(1e-7, 1 - 1e-7)
            return value * p.log() + (1 - value) * (1 - p).log()
            """,
        ),
        ("tests/families/test_contract.py::test_bernoulli_answer_1000_where_the_truth_is_1000",),
    ),
    Fault(
        "dice-without-gumbel-tails",
        "a die falls by uniform noise on its logits in place of Gumbel noise",
        Change("hvae.families.discrete:Categorical._scores", "gumbel", "self._split(noise)"),
        ("tests/families/test_contract.py::test_discrete_draws_fall_with_the_distribution_of_every_joint_state",),
    ),
    Fault(
        "ladder-merges-by-variance",
        "the ladder weighs two Gaussians by their variances, not their precisions",
        Change("hvae.families.gaussian:DiagonalGaussian.product", "log_w - log_v", "log_v - log_w"),
        ("tests/families/test_contract.py::test_product_is_the_normalised_product", "tests/test_posterior.py"),
    ),
    # the model
    Fault(
        "ladder-prior-from-means",
        "the ladder's prior of layer l is fed by the upward pass's mean of the layer above, not by what was drawn",
        Change("hvae.posterior:Ladder.walk", "decoder.descend(values)", "decoder.descend(means)"),
        ("tests/test_posterior.py::test_the_ladder_merges_gaussians_by_precision",),
    ),
    Fault(
        "ladder-top-merged",
        "the top of a ladder is merged with its prior, where the paper has the encoder's distribution alone",
        Change("hvae.posterior:Ladder.walk", "decoder.parents(name)", "name in decoder.variables"),
        ("tests/test_posterior.py::test_the_ladder_merges_gaussians_by_precision",),
    ),
    Fault(
        "strangers-take-the-nearest-row",
        "an image to which nothing was fitted is given the parameters of another",
        Change(
            "hvae.diagnostics.unamortised:Rows.forward", "(self.keys[row] - key).abs() <= self.tolerance", "key == key"
        ),
        ("tests/test_posterior.py::test_an_image_that_was_not_stored_has_no_outputs",),
    ),
    Fault(
        "shared-top-not-merged",
        "the top of a shared ladder leaves its prior out",
        Change("hvae.posterior:shared", "family.product(upward, prior)", "upward"),
        (
            "tests/test_posterior.py::test_the_ladder_merges_gaussians_by_precision",
            "tests/lab/assembly/test_assembly.py::test_the_shared_ladder_is_the_ladder_with_its_top_merged",
        ),
    ),
    Fault(
        "prior-from-the-wrong-layer",
        "the prior of every layer is fed from the top",
        Change("hvae.lab.assembly.stack:build_hvae", "above.name", "names[-1]"),
        ("tests/lab/assembly/test_assembly.py::test_the_decoder_mirrors_the_encoder",),
    ),
    Fault(
        "transposed-convolutions-lose-a-row",
        "a transposed convolution brings back an odd number of rows only",
        Change("hvae.nets.convolutional:Transposed.__init__", "(size + 1) % 2", "0 * size"),
        ("tests/nets/test_nets.py::test_a_transposed_convolution_is_the_adjoint",),
        raises=("AssertionError", "Failed", "RuntimeError"),
    ),
    Fault(
        "floor-for-the-deviation",
        "the cap on a log-variance is that on the log of the deviation",
        Change("hvae.numerics:log_variance_cap", "v - 1 - 2 * nats", "(v - 1 - 2 * nats) / 2"),
        (
            "tests/nets/test_nets.py::test_capped_variances_keep_the_least_divergence_and_reach_it",
            "tests/lab/assembly/test_assembly.py::test_the_cures_hold_the_top_off_the_prior",
        ),
    ),
    Fault(
        "latents-in-the-wrong-order",
        "the latents of a model are listed from the top",
        Change("hvae.evidence:HVAE.latents", "reversed(self.decoder.variables)", "self.decoder.variables"),
        ("tests/lab/assembly/test_assembly.py::test_the_decoder_mirrors_the_encoder",),
    ),
    # evidence
    Fault(
        "rate-sign",
        "rates are added to the log-weight",
        Change("hvae.evidence:Evidence.log_weight", "-self.rate(name).double()", "self.rate(name).double()"),
        ("tests/test_evidence.py::test_log_weights_are_log_p_minus_log_q_by_other_arithmetic",),
    ),
    Fault(
        "rate-weighed",
        "rates enter the log-weight by a little more than 1",
        Change(
            "hvae.evidence:Evidence.log_weight", "-self.rate(name).double()", "-(1 + SIZE) * self.rate(name).double()"
        ),
        ("tests/test_evidence.py::test_log_weights_are_log_p_minus_log_q_by_other_arithmetic",),
        size=0.02,
    ),
    Fault(
        "rate-weighed-seen-by-sampling",
        "rates enter the log-weight by more than 1, and only a statistical test looks",
        Change(
            "hvae.evidence:Evidence.log_weight", "-self.rate(name).double()", "-(1 + SIZE) * self.rate(name).double()"
        ),
        ("tests/likelihood/test_importance.py::test_weights_are_unbiased",),
        size=0.1,
    ),
    Fault(
        "closed-form-in-a-weight",
        "a closed-form KL stands in an importance weight where the sampled rate belongs",
        Change(
            "hvae.evidence:Evidence.log_weight",
            "self.rate(name)",
            "kl(self.q[name].distribution, self.p[name].distribution)",
        ),
        (
            "tests/test_evidence.py::test_log_weights_are_log_p_minus_log_q_by_other_arithmetic",
            "tests/test_evidence.py::test_weights_average_to_the_evidence_of_gaussian_stacks",
        ),
    ),
    Fault(
        "closed-form-bottom-up",
        "the closed-form KL is allowed where the prior's parent was drawn from the layer itself",
        Change("hvae.evidence:Evidence.parents_first", "order[: order.index(name)]", "order"),
        ("tests/test_evidence.py::test_closed_forms_equal_the_mean_of_sampled_rates_exactly_where_they_are_allowed",),
    ),
    Fault(
        "float32-weights",
        "log-weights are summed in the dtype of the nets",
        Change(
            "hvae.evidence:Evidence.log_weight",
            "sum((-self.rate(name).double() for name in self.q), start=-self.distortion.double())",
            "sum((-self.rate(name) for name in self.q), start=-self.distortion)",
        ),
        ("tests/test_evidence.py::test_identities_and_dtypes",),
    ),
    # the VampPrior
    Fault(
        "vamp-shares-forgotten",
        "the mixture of pseudo-inputs is a sum and not a mean",
        Change("hvae.families.mixture:EqualMixture.distribution", "-math.log(self.n_components)", "0.0"),
        ("tests/families/test_vamp.py::test_the_prior_is_the_mixture_of_the_encoders_distributions_at_known_points",),
    ),
    Fault(
        "vamp-net-under-two-names",
        "the encoder's net is a submodule of the decoder as well, and evidence with constant weights leaves them there",
        Change("hvae.nets.layers:PseudoInputs.__init__", "(net,)", "nn.ModuleList([net])"),
        ("tests/families/test_vamp.py::test_frozen_evidence_and_the_stuck_gradient_see_the_shared_weights",),
    ),
    Fault(
        "vamp-of-its-own-net",
        "the prior has a net of its own, which does not learn with the encoder's",
        Change(
            "hvae.lab.assembly.stack:_vamp_prior",
            "top.net",
            "nets.mlp(len(inputs[0]), (), top.family.n_outputs, activation=nn.Tanh, "
            "initialise=nets.xavier, source=generator(seed, 'init'))",
        ),
        ("tests/families/test_vamp.py::test_shared_weights_count_once_and_move_both",),
    ),
)
