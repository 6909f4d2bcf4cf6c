"""Faults in residual stacks of blocks, in their distribution of natural images, and in the bounds above a layer."""

from tests.faults.fault import Change, Fault

LINEAR, WALK = "tests/topdown/test_linear.py", "tests/topdown/test_walk.py"
MIXTURE, ABOVE = "tests/families/test_logistic_mixture.py", "tests/diagnostics/test_above.py"

FAULTS = (
    # the decoder's blocks
    Fault(
        "features-left-out",
        "what the net of a prior adds to the state is lost, in part",
        Change("hvae.topdown.blocks:Block.hand_on", "h + features", "h + (1 - SIZE) * features"),
        ("tests/topdown/test_checkpoint.py::test_p_and_q_of_every_layer_are_those_of_the_layout",),
        size=1.0,
    ),
    Fault(
        "state-begins-at-zero",
        "a resolution begins without its learned numbers, in part",
        Change("hvae.topdown.blocks:Block.begin", "self.start + h", "(1 - SIZE) * self.start + h"),
        ("tests/topdown/test_linear.py::test_the_joint_distribution_is_the_dense_gaussian",),
        size=1.0,
    ),
    Fault(
        "pixels-tiled",
        "a state is enlarged by copies of the image side by side, not by copies of its pixels",
        Change(
            "hvae.topdown.blocks:enlarged",
            "h[..., :, None, :, None].expand(*h.shape[:-1], times, rows, times)",
            "h[..., None, :, None, :].expand(*h.shape[:-2], times, rows, times, rows)",
        ),
        (f"{LINEAR}::test_the_joint_distribution_is_the_dense_gaussian",),
    ),
    Fault(
        "residual-reads-the-state-above",
        "the residual net of a block reads the state before the latent is added",
        Change("hvae.topdown.blocks:Block.hand_on", "self.residual(told)", "self.residual(h)"),
        (f"{LINEAR}::test_the_joint_distribution_is_the_dense_gaussian",),
    ),
    Fault(
        "skips-never-off",
        "a block without skips hands on the state too",
        Change("hvae.topdown.blocks:Block.hand_on", "self.style.skips", "True"),
        (f"{WALK}::test_what_a_layer_reads",),
    ),
    Fault(
        "log-scales-as-log-variances",
        "numbers that are logarithms of deviations are read as those of variances",
        Change("hvae.topdown.blocks:BlockStyle.outputs", "self.log_variance(spread)", "spread"),
        ("tests/topdown/test_checkpoint.py::test_p_and_q_of_every_layer_are_those_of_the_layout",),
    ),
    Fault(
        "large-steps-at-depth",
        "the last layers of blocks start as large in a deep stack as in a shallow one",
        Change("hvae.topdown.blocks:Block.__init__", "depth**-0.5", "1.0"),
        (f"{WALK}::test_a_stack_starts_from_its_source_with_small_steps",),
    ),
    # the posterior
    Fault(
        "largest-pixel-upward",
        "the upward pass takes the largest of the pixels that it averages",
        Change("hvae.topdown.blocks:UpwardBlock.forward", "F.avg_pool2d", "F.max_pool2d"),
        (f"{LINEAR}::test_the_posterior_and_each_layers_kl",),
    ),
    Fault(
        "activations-before-the-last-block",
        "q reads the first activations of x at a resolution, not the last",
        Change(
            "hvae.topdown.posterior:Upward.forward",
            "found[int(h.shape[-1])] = h",
            "found.setdefault(int(h.shape[-1]), h)",
        ),
        ("tests/topdown/test_linear.py::test_the_posterior_and_each_layers_kl",),
    ),
    Fault(
        "one-walk-scores-the-mean",
        "the walk that gives both traces scores p at the mean of q, not at its draw",
        Change(
            "hvae.topdown.posterior:ResidualPosterior._down",
            "Site(values[name], stop.prior, family)",
            "Site(q[name].mean if name in q else values[name], stop.prior, family)",
        ),
        ("tests/topdown/test_walk.py::test_one_walk_gives_the_two_traces_of_two",),
    ),
    Fault(
        "mean-over-pixels",
        "a channel's terms are averaged over its pixels, not summed",
        Change(
            "hvae.families.family:Family.per_unit",
            "terms.unflatten(-1, (self.units, -1)).sum(-1)",
            "terms.unflatten(-1, (self.units, -1)).mean(-1)",
        ),
        ("tests/topdown/test_walk.py::test_units_are_channels",),
    ),
    Fault(
        "one-bias-for-all-colours",
        "the output of a stack of blocks starts at the mean of all colours together",
        Change(
            "hvae.lab.assembly.stack:build_hvae",
            "Unfold(pixels)(data.train.mean(0)).mean((-2, -1))",
            "data.train.mean().expand(pixels.channels)",
        ),
        ("tests/lab/assembly/test_blocks.py::test_the_bias_of_x_starts_at_the_mean_of_each_colour",),
    ),
    Fault(
        "merged-at-the-top-alone",
        "a ladder of blocks merges its top layer, and no other",
        Change(
            "hvae.lab.assembly.blocks:build_blocks",
            "merge, top = MERGES[blocks.merge]",
            "top, merge = MERGES[blocks.merge]",
        ),
        ("tests/lab/assembly/test_blocks.py::test_it_is_the_stack_that_python_makes",),
    ),
    Fault(
        "blocks-never-merged",
        "q of a ladder of blocks is what its nets say, without the product with p",
        Change(
            "hvae.topdown.posterior:ResidualPosterior._distribution",
            "self.merges[stop.name](family, told, stop.prior)",
            "told",
        ),
        (f"{WALK}::test_a_merged_layer_is_the_product_of_two_gaussians",),
    ),
    Fault(
        "top-of-blocks-merged",
        "the top of a ladder of blocks is merged with its prior like the others",
        Change("hvae.topdown.posterior:ResidualPosterior.__init__", "merge if top is None else top", "merge"),
        (f"{WALK}::test_a_merged_layer_is_the_product_of_two_gaussians",),
    ),
    Fault(
        "given-latents-drawn-again",
        "a latent that is given is drawn all the same",
        Change("hvae.topdown.posterior:ResidualPosterior._down", "name not in given", "name in noise"),
        (f"{WALK}::test_one_walk_gives_the_two_traces_of_two",),
    ),
    # natural images
    Fault(
        "couplings-swapped",
        "the third colour takes the first colour's coupling for the second's",
        Change(
            "hvae.families.logistic_mixture:PixelMixture.mean_given",
            "mean + b * before[0] + c * before[1]",
            "mean + c * before[0] + b * before[1]",
        ),
        (f"{MIXTURE}::test_log_probabilities_equal_a_loop_of_high_precision",),
    ),
    Fault(
        "bins-too-narrow",
        "the bins of levels are a little too narrow, in part",
        Change(
            "hvae.families.logistic_mixture:PixelMixture.log_prob",
            "1 / (self.n_levels - 1)",
            "(1 - SIZE) / (self.n_levels - 1)",
        ),
        (f"{MIXTURE}::test_probabilities_of_all_pixels_sum_to_one",),
        size=1e-4,
    ),
    Fault(
        "shares-over-pixels",
        "the shares of components sum to one over pixels, not within each",
        Change(
            "hvae.families.logistic_mixture:DiscretisedLogisticMixture.distribution",
            "numbers[..., :k, :].log_softmax(-2)",
            "numbers[..., :k, :].log_softmax(-1)",
        ),
        (f"{MIXTURE}::test_probabilities_of_all_pixels_sum_to_one",),
    ),
    Fault(
        "colours-drawn-from-unscaled-ones",
        "a colour is drawn given those before it in [0, 1], where the coupling takes [-1, 1]",
        Change(
            "hvae.families.logistic_mixture:DiscretisedLogisticMixture.draw",
            "2 * x.unsqueeze(-2) - 1",
            "x.unsqueeze(-2)",
        ),
        (
            f"{MIXTURE}::test_draws_are_the_quantiles_of_the_chosen_component",
            f"{MIXTURE}::test_draws_fall_with_their_probabilities",
        ),
    ),
    Fault(
        "components-by-the-next-share",
        "a draw takes the component after the one that its number falls on",
        Change(
            "hvae.families.logistic_mixture:DiscretisedLogisticMixture.draw",
            "first.unsqueeze(-2) >= reached",
            "first.unsqueeze(-2) <= reached",
        ),
        (f"{MIXTURE}::test_draws_fall_with_their_probabilities",),
    ),
    Fault(
        "colours-by-the-pixel",
        "the numbers of an image whose colours stand together are read as if the first colour came first",
        Change("hvae.families.logistic_mixture:by_colour", "pixels.channels_last", "False"),
        ("tests/topdown/test_colours.py::test_colours_first_and_last_are_one_model",),
    ),
    Fault(
        "mean-without-the-component",
        "the mean of a mixture gives all components the same share",
        Change(
            "hvae.families.logistic_mixture:DiscretisedLogisticMixture.mean",
            "distribution.log_share.exp()",
            "torch.full_like(distribution.log_share, 1 / self.n_components)",
        ),
        (f"{MIXTURE}::test_the_mean_is_that_of_numbers_before_they_are_rounded",),
    ),
    Fault(
        "components-alike-at-the-start",
        "all components start alike, so that they stay so",
        Change(
            "hvae.families.logistic_mixture:DiscretisedLogisticMixture.outputs_at",
            "(torch.arange(k, device=mean.device) - (k - 1) / 2) / k",
            "0.0 * torch.arange(k, device=mean.device)",
        ),
        (f"{MIXTURE}::test_it_starts_near_a_mean_with_components_apart",),
    ),
    Fault(
        "scale-of-the-floor",
        "the floor of levels has the variance for the square of the scale",
        Change("hvae.likelihood.floor:Columns.log_scale", "math.log(math.pi)", "math.log(3) / 2"),
        ("tests/likelihood/test_floor.py::test_independent_columns_fitted_to_training_data",),
    ),
    # bounds above a layer
    Fault(
        "above-holds-the-layer",
        "the bound above a layer keeps q's draw of the layer itself",
        Change(
            "hvae.diagnostics.knockouts:Knockouts.above",
            "model.latents.index(name) + 1",
            "model.latents.index(name)",
        ),
        (f"{ABOVE}::test_the_first_is_what_the_encoder_knockout_leaves_of_the_elbo",),
    ),
    Fault(
        "above-by-the-order-of-q",
        "the bound above a layer keeps what q visits before it, which are other layers where q is not top-down",
        Change("hvae.diagnostics.knockouts:Knockouts.above", "set(order[: order.index(name)]) == set(kept)", "True"),
        (f"{ABOVE}::test_mean_field_keeps_the_layers_above_not_those_visited_before",),
    ),
    Fault(
        "above-of-the-mean-weight",
        "the bound above a layer is the mean of log-weights, not the log of their mean",
        Change(
            "hvae.diagnostics.knockouts:Knockouts.above",
            "weight.expand(-1, self.sampler.n_images)",
            "weight.mean(0, keepdim=True).expand(len(weight), self.sampler.n_images)",
        ),
        (f"{ABOVE}::test_weights_are_those_of_the_dense_gaussian", f"{ABOVE}::test_many_samples_close_each_of_them"),
    ),
    Fault(
        "above-where-q-cannot",
        "a bound above a layer is given although q of the layers above was conditioned on it",
        Change("hvae.diagnostics.knockouts:Knockouts.above", 'parent not in ("x", *kept)', "False"),
        (f"{ABOVE}::test_bottom_up_it_is_refused_below_the_top",),
        raises=("AssertionError", "Failed"),
    ),
)
