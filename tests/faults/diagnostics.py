"""Faults in the diagnostics: information, units, usage, verdict, and the split of the gap by layer."""

from tests.faults.fault import Change, Fault

INFORMATION = "tests/diagnostics/test_information.py"
PROPOSALS = "tests/diagnostics/test_proposals.py"
RICH_DISTRIBUTIONS = "tests/diagnostics/test_rich_distributions.py"
GAP = "tests/diagnostics/test_gap.py"
CONSISTENCY = "tests/experiments/shared/test_chain.py"
NUMERICS = "tests/test_numerics.py"
SPECTRUM = "tests/experiments/flach_equilibrium/test_spectrum.py"

FAULTS = (
    # consistency of encoder and decoder
    Fault(
        "chain-throws-the-same-coins",
        "every step of the encode-decode chain takes the same noise",
        Change(
            "hvae.experiments.shared.consistency.chain:_decoded",
            'rng.noise({**model.noise_specs(), "x": decoder.noise_specs()["x"]}, 1, len(x), '
            'seed=seed, purpose="encode and decode", step=step, device=str(x.device), dtype=x.dtype)',
            'rng.noise({**model.noise_specs(), "x": decoder.noise_specs()["x"]}, 1, len(x), '
            'seed=seed, purpose="encode and decode", device=str(x.device), dtype=x.dtype)',
        ),
        (f"{CONSISTENCY}::test_after_any_number_of_steps_the_distribution_is_a_power_of_the_transition_matrix",),
    ),
    Fault(
        "chain-passes-means",
        "the chain decodes to the mean of x in place of a draw",
        Change(
            "hvae.experiments.shared.consistency.chain:chain",
            'model.decoder.family("x").draw(distribution, noise)',
            'model.decoder.family("x").mean(distribution)',
        ),
        (CONSISTENCY,),
    ),
    Fault(
        "chain-stands-still",
        "every step encodes the first x again",
        Change(
            "hvae.experiments.shared.consistency.chain:chain",
            "_decoded(model, x, step, seed)",
            "_decoded(model, found.get(marks[0], x), step, seed)",
        ),
        (CONSISTENCY,),
    ),
    Fault(
        "frechet-of-the-plain-product",
        "the Fréchet distance takes the root of a trace for the trace of a root",
        Change(
            "hvae.numerics:frechet_distance",
            "np.linalg.svd(root_a.T @ root_b, compute_uv=False).sum()",
            "np.sqrt(np.trace(cov_a @ cov_b))",
        ),
        (NUMERICS,),
    ),
    Fault(
        "frechet-uncorrected",
        "the interval of a Fréchet distance is not corrected for what finite samples add",
        Change(
            "hvae.numerics:frechet_interval",
            "[2 * found - top, 2 * found - resampled.mean(), 2 * found - bottom]",
            "[bottom, found, top]",
        ),
        (NUMERICS,),
    ),
    # what bernoulli are told
    Fault(
        "spectrum-of-draws",
        "the information of bernoulli is taken from their states in place of their probabilities",
        Change("hvae.experiments.flach_equilibrium.spectrum:probabilities", "site.mean", "site.value"),
        (f"{SPECTRUM}::test_of_a_stack_it_is_the_information_of_its_listed_states",),
    ),
    Fault(
        "coins-without-tails",
        "the entropy of a bernoulli counts one of its sides twice",
        Change(
            "hvae.numerics:bernoulli_entropy",
            "special.entr(probability) + special.entr(1 - probability)",
            "2 * special.entr(probability)",
        ),
        (f"{SPECTRUM}::test_over_states_that_weigh_alike_it_is_the_information_of_the_joint_table",),
    ),
    # information
    Fault(
        "own-image-left-out",
        "the mixture over all images leaves out the draw's own",
        Change(
            "hvae.diagnostics.mixture:Mixture.bounds",
            "torch.logaddexp(rest_of_all, image_with) - log_n",
            "rest_of_all - math.log(n - 1)",
        ),
        (f"{INFORMATION}::test_raw_bounds_lie_on_their_sides_and_close_in",),
    ),
    Fault(
        "own-path-in-the-lower-bound",
        "the lower bound keeps the draw's own path in the numerator, and reads noise as information",
        Change("hvae.diagnostics.mixture:Mixture.bounds", "image_without - all_with", "image_with - all_with"),
        (f"{INFORMATION}::test_raw_bounds_lie_on_their_sides_and_close_in",),
    ),
    Fault(
        "clipped-where-x-is-seen",
        "a layer that sees x itself is held to know no more of it than the layer below",
        Change("hvae.diagnostics.nested:nested_information", "len(seen) == 1", "seen"),
        (f"{INFORMATION}::test_layers_that_see_x_against_the_population",),
    ),
    Fault(
        "throws-not-shared",
        "intervals that had several throws keep the whole 5 % for each",
        Change("hvae.diagnostics.bounds:Intervals._interval", "0.05 / self.n_throws", "0.05"),
        (f"{INFORMATION}::test_every_throw_takes_its_share_of_the_five_percent",),
    ),
    Fault(
        "ladder-inherits-information",
        "a ladder's layer is credited with what the layers above already told",
        Change("hvae.diagnostics.conditional:_conditional", "ratio - above", "ratio"),
        (f"{INFORMATION}::test_top_down_against_the_reference",),
    ),
    # distributions that only score and draw
    Fault(
        "divergence-from-the-wrong-law",
        "the sampled divergence is taken from the second distribution to the first",
        Change("hvae.diagnostics.draws:divergence", "site.log_prob - other.log_prob", "other.log_prob - site.log_prob"),
        (f"{RICH_DISTRIBUTIONS}::test_divergences_by_draws_have_the_closed_form_for_their_mean",),
    ),
    Fault(
        "read-at-the-encoders-draw",
        "what the decoder reads through a rich distribution is sampled at values that q drew",
        Change("hvae.diagnostics.usage:use", "site.family.draw(site.distribution, drawn)", "site.value"),
        (f"{RICH_DISTRIBUTIONS}::test_rates_and_reading_agree_with_the_twin",),
    ),
    Fault(
        "classifier-sees-the-path-it-judges",
        "the classifier of images is fitted to the draws that it tells apart",
        Change(
            "hvae.diagnostics.mixture:Mixture.add",
            "slice(1 if begins else 0, None)",
            "slice(0, 1)",
        ),
        (f"{RICH_DISTRIBUTIONS}::test_the_classifier_of_draws_bounds_information_from_below",),
    ),
    # units
    Fault(
        "twins-on-one-path",
        "the active-unit statistic inherits the sampling noise: both twins are of one path",
        Change("hvae.diagnostics.units:mean_variance", "means[1]", "means[0]"),
        ("tests/diagnostics/test_units.py::test_twins_are_unbiased_for_the_variance_of_the_expected_mean",),
    ),
    Fault(
        "residual-without-the-parent",
        "the active-unit statistic of a ladder inherits the parent's variance",
        Change("hvae.diagnostics.units:_shift", "q.mean - p.mean", "q.mean"),
        ("tests/diagnostics/test_units.py::test_top_down_burda_inherits_and_the_residual_does_not",),
    ),
    # usage and verdict
    Fault(
        "read-from-the-same-datum",
        "what the decoder reads is compared with a draw for the same datum",
        Change("hvae.diagnostics.draws:Sampler._paired", "rank - start + 1", "rank - start"),
        ("tests/diagnostics/test_usage.py::test_reading_of_each_layer",),
    ),
    Fault(
        "knock-out-off-by-one",
        "the knock-out of a layer leaves the layer itself in",
        Change("hvae.diagnostics.knockouts:Knockouts._stopped_at", "order.index(name)", "order.index(name) + 1"),
        ("tests/diagnostics/test_usage.py::test_encoder_knockout_is_the_difference_of_two_exact_bounds",),
    ),
    Fault(
        "verdict-by-the-middle",
        "a layer is called collapsed by the share that was seen, whatever its upper limit",
        Change(
            "hvae.diagnostics.verdict:Found.verdict", "self.moved_share(epsilon)[2]", "self.moved_share(epsilon)[1]"
        ),
        ("tests/diagnostics/test_verdict.py",),
    ),
    # the gap by layer
    Fault(
        "gap-remaining-off-by-one",
        "what remains of the gap after a layer still holds the layer's own q",
        Change("hvae.diagnostics.gap:split_gap", "later[k + 1]", "later[k]"),
        (f"{GAP}::test_where_the_later_conditionals_are_exact_the_first_bear_the_gap",),
    ),
    Fault(
        "gap-sign",
        "a layer's gap is counted from p to q",
        Change(
            "hvae.diagnostics.gap:split_gap",
            "log_q[name] - paths[k + 1] + paths[k]",
            "paths[k + 1] - paths[k] - log_q[name]",
        ),
        (f"{GAP}::test_parts_add_up_draw_by_draw",),
    ),
    Fault(
        "gap-on-latents-of-another-datum",
        "the evidence of what is left is that of latents drawn for the datum before",
        Change("hvae.diagnostics.gap:split_gap", "evidence.q[name].value", "evidence.q[name].value.roll(1, 1)"),
        (f"{GAP}::test_where_the_later_conditionals_are_exact_the_first_bear_the_gap",),
    ),
    Fault(
        "error-of-log-px-forgotten",
        "the standard error of a gap is that of the draws of q alone",
        Change(
            "hvae.diagnostics.gap:split_gap",
            "np.square(marginals[0].estimate.standard_error) if 0 in used else 0.0",
            "0.0",
        ),
        (f"{GAP}::test_the_error_of_log_px_is_part_of_the_gaps",),
    ),
    Fault(
        "rest-without-its-constant",
        "the factors that no free latent touches are left out",
        Change("hvae.diagnostics.rest:Rest.log_joint", "self.constant", "torch.zeros_like(self.constant)"),
        (f"{PROPOSALS}::test_with_exact_conditionals_every_weight_is_the_exact_marginal",),
    ),
    Fault(
        "rest-of-a-markov-decoder",
        "once z_l is given, the layers below it are taken to say nothing of those above, skips or not",
        Change(
            "hvae.diagnostics.rest:Rest.of",
            "name not in settled",
            'name not in (*settled, *(("x", *list(given)[:-1]) if given else ()))',
        ),
        (f"{GAP}::test_with_skips_what_is_left_hangs_on_all_that_was_visited[bottom-up]",),
    ),
    Fault(
        "given-latents-in-the-proposal",
        "latents that are given are weighed as if the ladder had drawn them",
        Change("hvae.diagnostics.rest:Rest.visit", "{name: trace[name] for name in self.specs}", "trace"),
        (f"{GAP}::test_every_order_of_visit",),
    ),
    Fault(
        "reading-of-one-child",
        "with generative skips only one child of a layer is asked whether it reads it",
        Change(
            "hvae.diagnostics.usage:use",
            "found[name] + per_datum(read(child, site), sampler.n_images)",
            "per_datum(read(child, site), sampler.n_images)",
        ),
        ("tests/diagnostics/test_usage.py::test_reading_with_skips_is_the_sum_over_children",),
    ),
    Fault(
        "knock-out-forgets-skips",
        "with a layer set, those above it are no more weighed, though x hangs from them by skips",
        Change("hvae.diagnostics.knockouts:_read", "found[1:]", "found[1:][: 0 if without == 'z1' else None]"),
        ("tests/diagnostics/test_usage.py::test_model_knockout_with_skips_weighs_the_layers_above",),
    ),
    Fault(
        "mixture-without-log-2",
        "a mixture of two halves is scored as the sum of two proposals",
        Change("hvae.diagnostics.proposals:_wide", "math.log(2)", "(1 - SIZE) * math.log(2)"),
        (f"{PROPOSALS}::test_gaussian_weights_are_unbiased",),
        size=0.1,
    ),
    Fault(
        "refinement-without-log-s",
        "a refined q forgets by how much it was stretched",
        Change(
            "hvae.likelihood.refinement:scaled",
            "log_scale.double().sum(-1)",
            "(1 - SIZE) * log_scale.double().sum(-1)",
        ),
        (f"{PROPOSALS}::test_a_scaled_target_has_the_same_mean",),
        size=1.0,
    ),
    Fault(
        "images-left-out",
        "an interval of a mean over seeds and images counts the seeds alone",
        Change("hvae.certain:crossed_interval", "(quantile * error) ** 2", "0.0 * quantile"),
        ("tests/analysis/test_samples.py::test_a_false_claim_on_a_likelihood_is_supported_in_one_of_forty",),
    ),
    Fault(
        "seeds-left-out",
        "an interval of a mean over seeds and images counts the images alone",
        Change("hvae.certain:_of_seeds", "max(float(of_seeds - of_rest), 0.0)", "0.0"),
        ("tests/analysis/test_samples.py::test_a_false_claim_on_a_likelihood_is_supported_in_one_of_forty",),
    ),
    Fault(
        "equal-counts-decide",
        "a claim on a count is decided by a t-interval over seeds",
        Change("hvae.analysis.claims:decide", "first.count or _alike(first, second)", "False"),
        ("tests/analysis/test_samples.py::test_a_false_claim_on_a_count_is_supported_in_one_of_forty",),
    ),
    Fault(
        "newton-uphill",
        "the fit of a full covariance steps away from the mode",
        Change(
            "hvae.likelihood.refinement:_Fit.newton",
            "self.shift + (self.scale_tril @ step).squeeze(-1)",
            "self.shift - (self.scale_tril @ step).squeeze(-1)",
        ),
        (f"{PROPOSALS}::test_full_covariance_is_exact_where_the_posterior_is_gaussian",),
    ),
    Fault(
        "trust-without-k-hat",
        "an estimate is trusted whatever its k-hat",
        Change(
            "hvae.diagnostics.marginals:Marginal.doubtful_share",
            "~light | ~(estimate.ess > TRUSTED_ESS)",
            "~(estimate.ess > TRUSTED_ESS)",
        ),
        (f"{PROPOSALS}::test_the_rule_of_trust",),
    ),
    Fault(
        "halving-sign",
        "the halving difference is negative, and so never too large",
        Change(
            "hvae.diagnostics.marginals:measured",
            "curve.bound_datum_nats[-1] - curve.bound_datum_nats[0]",
            "curve.bound_datum_nats[0] - curve.bound_datum_nats[-1]",
        ),
        (f"{PROPOSALS}::test_the_bias_of_a_mean_of_weights_is_seen",),
    ),
    Fault(
        "lowest-marginal-kept",
        "without trust the lowest of several lower bounds is kept",
        Change("hvae.diagnostics.marginals:settled", "max", "min"),
        (f"{PROPOSALS}::test_without_trust_the_highest_mean_is_kept",),
    ),
    # causes of the gap
    Fault(
        "every-layer-free",
        "the refinement of one layer refines all of them",
        Change("hvae.likelihood.refinement:refine", "gradient if free is None else gradient * free", "gradient"),
        (
            "tests/diagnostics/test_suboptimality.py::test_only_what_is_free_moves",
            "tests/diagnostics/test_suboptimality.py::test_the_layer_that_is_wrong_is_the_one_that_frees",
        ),
    ),
    Fault(
        "twins-of-the-same-chains",
        "both twins of the posterior's activity are of the same half of the chains",
        Change("hvae.diagnostics.collapse:_shares", "slice(n_chains // 2, n_chains)", "slice(0, n_chains // 2)"),
        ("tests/diagnostics/test_collapse.py::test_twins_of_few_weighted_draws_are_unbiased",),
    ),
)
