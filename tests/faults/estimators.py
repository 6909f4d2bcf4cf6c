"""Faults in the estimators of log p(x): importance sampling, k-hat, Hamiltonian moves, annealing, the sandwich."""

from tests.faults.fault import Change, Fault

ANNEALING = "tests/likelihood/test_annealing.py"
MOVES = f"{ANNEALING}::test_moves_leave_the_posterior_where_it_is"
FORWARD = f"{ANNEALING}::test_the_mean_weight_is_p_of_x"
BACKWARD = f"{ANNEALING}::test_the_mean_inverse_weight_of_backward_chains_is_one_over_p_of_x"
MOVED = f"{ANNEALING}::test_a_moved_target_has_the_same_evidence"
FROZEN = f"{ANNEALING}::test_a_path_starts_at_0_ends_at_1_and_is_frozen"
BY_HAND = f"{ANNEALING}::test_a_move_is_what_numpy_says"
ASKED = f"{ANNEALING}::test_every_move_is_made_with_the_frozen_step_and_temperature"
KEYS = f"{ANNEALING}::test_no_draw_serves_twice"
BACK = f"{ANNEALING}::test_the_noise_of_an_exact_draw_becomes_that_draw"

# what a chain does at every step of its path, forward and back
MOVED_ON = "move(target, state, path.betas[t], path.step_sizes[t - 1], annealing.n_leapfrog, *draws.next(t))"
INCREMENT = "(path.betas[t] - path.betas[t - 1]) * state.log_weight"
MOVE, WEIGH = f"state, chance = {MOVED_ON}", f"log_weight += {INCREMENT}"
MOVE_BACK, WEIGH_BACK = f"state, _ = {MOVED_ON}", f"log_weight -= {INCREMENT}"

FAULTS = (
    # importance sampling
    Fault(
        "data-share-their-draws",
        "all data are weighed on the same noise",
        Change("hvae.likelihood.importance:encoder_draws", 'f"{purpose}/{datum}"', "purpose"),
        ("tests/likelihood/test_importance.py::test_data_do_not_share_their_draws",),
    ),
    Fault(
        "error-without-a-root",
        "the standard error is a variance",
        Change(
            "hvae.likelihood.estimate:log_mean_error",
            "(1 / ess - 1 / n_samples).clamp(min=0).sqrt()",
            "(1 / ess - 1 / n_samples).clamp(min=0)",
        ),
        ("tests/likelihood/test_importance.py::test_streaming_equals_one_shot_at_every_k",),
    ),
    Fault(
        "last-chunk-dropped",
        "draws that do not fill a chunk are left out",
        Change(
            "hvae.likelihood.importance:importance_sample",
            "range(0, total, chunk_samples)",
            "range(0, max(1, total - chunk_samples + 1), chunk_samples)",
        ),
        ("tests/likelihood/test_importance.py::test_streaming_equals_one_shot_at_every_k",),
    ),
    Fault(
        "k-hat-sign",
        "Pareto k-hat is fitted to the inverse weights",
        Change("hvae.likelihood.estimate:_pareto_k", "np.sort(largest)", "np.sort(-largest)"),
        ("tests/likelihood/test_estimate.py::test_k_hat_reads_log_weights_and_not_their_negatives",),
    ),
    Fault(
        "warning-without-k-hat",
        "an estimate is believed whatever its k-hat",
        Change("hvae.likelihood.estimate:Estimate.doubtful", "heavy | poor", "poor"),
        ("tests/likelihood/test_estimate.py::test_a_warning_is_about_the_mean_in_nats",),
    ),
    Fault(
        "doubt-counts-images",
        "a warning takes no notice of how far doubtful data may move the mean",
        Change("hvae.likelihood.estimate:Estimate.missing_nats", "np.maximum(reach, rise)", "rise"),
        ("tests/likelihood/test_cheapest.py::test_few_hopeless_data_are_warned_of_by_nats_and_mended",),
    ),
    Fault(
        "the-pilot-counts",
        "draws that decide whether they suffice are counted",
        Change("hvae.likelihood.cheapest:cheapest_bound", "table[spending.n_pilot :]", "table[: spending.n_pilot]"),
        ("tests/likelihood/test_cheapest.py::test_draws_that_stop_do_not_count",),
    ),
    # moves
    Fault(
        "no-accept-step",
        "every trajectory is accepted",
        Change("hvae.likelihood.hmc:move", "uniform[..., 1] < chance", "chance >= 0"),
        (MOVES,),
    ),
    Fault(
        "accepted-too-often",
        "a trajectory is accepted with more than its chance",
        Change("hvae.likelihood.hmc:move", "uniform[..., 1] < chance", "uniform[..., 1] < chance + SIZE"),
        (BY_HAND,),
        size=0.02,
    ),
    Fault(
        "start-without-kinetic-energy",
        "the accept step ignores the kinetic energy that the trajectory started with",
        Change(
            "hvae.likelihood.hmc:move",
            "_log_density(state, momentum, beta)",
            "_log_density(state, torch.zeros_like(momentum), beta)",
        ),
        (MOVES,),
    ),
    Fault(
        "accepted-at-full-weight",
        "the accept step weighs by w where the density at hand has w to the power of beta",
        Change("hvae.likelihood.hmc:_log_density", "beta * state.log_weight", "state.log_weight"),
        (FORWARD,),
    ),
    Fault(
        "one-number-for-jitter-and-acceptance",
        "the accept step reads the number that the step size was made of",
        Change("hvae.likelihood.hmc:move", "uniform[..., 1]", "uniform[..., 0]"),
        (BY_HAND,),
    ),
    Fault(
        "kick-of-the-wrong-sign",
        "the kicks along a trajectory push away from where the weight grows",
        Change(
            "hvae.likelihood.hmc:move",
            "p + (h if leap < n_leapfrog - 1 else h / 2) * beta * end.gradient",
            "p - (h if leap < n_leapfrog - 1 else h / 2) * beta * end.gradient",
        ),
        (MOVES,),
    ),
    Fault(
        "last-kick-whole",
        "a trajectory ends with a whole kick, not half of one, and cannot be reversed",
        Change(
            "hvae.likelihood.hmc:move",
            "h if leap < n_leapfrog - 1 else h / 2",
            "h if leap < n_leapfrog - 1 else (1 + SIZE) * h / 2",
        ),
        (MOVES,),
        size=1.0,
    ),
    Fault(
        "jitter-that-sees-the-state",
        "the step size depends on where the chain is",
        Change(
            "hvae.likelihood.hmc:move", "JITTER * (2 * uniform[..., 0] - 1)", "JITTER * 8 * state.noise[..., 0].tanh()"
        ),
        (MOVES,),
    ),
    # annealing
    Fault(
        "stale-momenta",
        "every move of a run has the momenta of the first",
        Change("hvae.likelihood.annealing:_Draws.next", "t", "0"),
        (FORWARD,),
    ),
    Fault(
        "steps-adapt-while-measuring",
        "the step sizes of the frozen path go on adapting in the run that is measured",
        Change(
            "hvae.likelihood.annealing:run_forward",
            "accepted = accepted + chance.mean()",
            """
            accepted = accepted + chance.mean()
            path.step_sizes[t:] *= (EAGERNESS * (chance.mean(0) - ACCEPTANCE)).exp()
            """,
        ),
        (FROZEN,),
    ),
    Fault(
        "steps-adapt-in-a-copy",
        "step sizes go on adapting in the run that is measured, in a copy of the frozen path",
        Change(
            "hvae.likelihood.annealing:run_forward",
            "accepted = accepted + chance.mean()",
            """
            accepted = accepted + chance.mean()
            path = Path(path.betas, path.step_sizes * (EAGERNESS * (chance.mean(0) - ACCEPTANCE)).exp())
            """,
        ),
        (ASKED,),
    ),
    Fault(
        "tuned-on-the-measured-draws",
        "the path is tuned on the very noise that the forward run then measures with",
        Change("hvae.likelihood.annealing:tune", 'f"{purpose}/tuning"', 'f"{purpose}/forward"'),
        (KEYS,),
    ),
    Fault(
        "weight-after-the-move",
        "the weight is taken where the chain went, not where it was",
        Change(
            "hvae.likelihood.annealing:run_forward",
            f"{WEIGH}\n{MOVE}",
            f"{MOVE}\n{WEIGH}",
        ),
        (FORWARD,),
    ),
    Fault(
        "weight-before-the-backward-move",
        "backward chains take the weight before they move",
        Change(
            "hvae.likelihood.annealing:run_backward",
            f"{MOVE_BACK}\n{WEIGH_BACK}",
            f"{WEIGH_BACK}\n{MOVE_BACK}",
        ),
        (BACKWARD,),
    ),
    Fault(
        "increments-weighed",
        "an increment of the log-weight is a little too large",
        Change(
            "hvae.likelihood.annealing:run_forward",
            "path.betas[t] - path.betas[t - 1]",
            "(1 + SIZE) * (path.betas[t] - path.betas[t - 1])",
        ),
        (FORWARD,),
        size=0.02,
    ),
    Fault(
        "backward-from-the-encoder",
        "backward chains start from the encoder's draws, not from the exact one",
        Change(
            "hvae.likelihood.annealing:run_backward",
            "exact.expand(annealing.n_chains, -1, -1).contiguous()",
            "draws.start",
        ),
        (BACKWARD,),
    ),
    Fault(
        "exact-draw-in-the-wrong-order",
        "the exact draw's latents are laid out from the other end of the stack",
        Change("hvae.likelihood.sandwich:noise_at", "target.specs", "reversed(target.specs)"),
        (BACK,),
    ),
    Fault(
        "upper-bound-from-the-mean",
        "the upper bound is the log of the mean inverse weight, its sign forgotten",
        Change("hvae.likelihood.weights:Weights.estimate", "-value", "value"),
        (BACKWARD,),
    ),
    # the target
    Fault(
        "moved-without-log-det",
        "a moved target forgets by how much its map stretches",
        Change("hvae.likelihood.target:Target.moved", "log_det", "(1 - SIZE) * log_det"),
        (MOVED,),
        size=1.0,
    ),
)
