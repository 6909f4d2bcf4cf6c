"""Faults in the estimators of log p(x): importance sampling, k-hat, Hamiltonian moves, annealing, the sandwich."""

from tests.faults.fault import Edit, Fault

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

FAULTS = (
    # importance sampling
    Fault(
        "data-share-their-draws",
        "all data are weighed on the same noise",
        Edit("hvae.likelihood.importance", 'f"likelihood/{datum}"', '"likelihood"'),
        ("tests/likelihood/test_importance.py::test_data_do_not_share_their_draws",),
    ),
    Fault(
        "error-without-a-root",
        "the standard error is a variance",
        Edit("hvae.likelihood.importance", ".clamp(min=0).sqrt()", ".clamp(min=0)"),
        ("tests/likelihood/test_importance.py::test_streaming_equals_one_shot_at_every_k",),
    ),
    Fault(
        "last-chunk-dropped",
        "draws that do not fill a chunk are left out",
        Edit(
            "hvae.likelihood.importance",
            "range(0, total, chunk_samples)",
            "range(0, max(1, total - chunk_samples + 1), chunk_samples)",
        ),
        ("tests/likelihood/test_importance.py::test_streaming_equals_one_shot_at_every_k",),
    ),
    Fault(
        "k-hat-sign",
        "Pareto k-hat is fitted to the inverse weights",
        Edit("hvae.likelihood.estimate", "np.sort(largest)", "np.sort(-largest)"),
        ("tests/likelihood/test_estimate.py::test_k_hat_reads_log_weights_and_not_their_negatives",),
    ),
    Fault(
        "warning-without-k-hat",
        "an estimate is believed whatever its k-hat",
        Edit("hvae.likelihood.estimate", "(heavy | poor).mean()", "poor.mean()"),
        ("tests/likelihood/test_estimate.py::test_more_than_a_twentieth_of_doubtful_data_is_not_believed",),
    ),
    # moves
    Fault(
        "no-accept-step",
        "every trajectory is accepted",
        Edit("hvae.likelihood.hmc", "accepted = uniform[..., 1] < chance", "accepted = chance >= 0"),
        (MOVES,),
    ),
    Fault(
        "accepted-too-often",
        "a trajectory is accepted with more than its chance",
        Edit("hvae.likelihood.hmc", "uniform[..., 1] < chance", "uniform[..., 1] < chance + SIZE"),
        (BY_HAND,),
        size=0.02,
    ),
    Fault(
        "start-without-kinetic-energy",
        "the accept step ignores the kinetic energy that the trajectory started with",
        Edit(
            "hvae.likelihood.hmc",
            "_log_density(state, momentum, beta)",
            "_log_density(state, torch.zeros_like(momentum), beta)",
        ),
        (MOVES,),
    ),
    Fault(
        "accepted-at-full-weight",
        "the accept step weighs by w where the density at hand has w to the power of beta",
        Edit("hvae.likelihood.hmc", "return beta * state.log_weight", "return state.log_weight"),
        (FORWARD,),
    ),
    Fault(
        "one-number-for-jitter-and-acceptance",
        "the accept step reads the number that the step size was made of",
        Edit("hvae.likelihood.hmc", "accepted = uniform[..., 1] <", "accepted = uniform[..., 0] <"),
        (BY_HAND,),
    ),
    Fault(
        "kick-of-the-wrong-sign",
        "the kicks along a trajectory push away from where the weight grows",
        Edit("hvae.likelihood.hmc", "p = p + (h if", "p = p - (h if"),
        (MOVES,),
    ),
    Fault(
        "last-kick-whole",
        "a trajectory ends with a whole kick, not half of one, and cannot be reversed",
        Edit(
            "hvae.likelihood.hmc", "else h / 2) * beta * end.gradient", "else (1 + SIZE) * h / 2) * beta * end.gradient"
        ),
        (MOVES,),
        size=1.0,
    ),
    Fault(
        "jitter-that-sees-the-state",
        "the step size depends on where the chain is",
        Edit("hvae.likelihood.hmc", "(2 * uniform[..., 0] - 1)", "8 * state.noise[..., 0].tanh()"),
        (MOVES,),
    ),
    # annealing
    Fault(
        "stale-momenta",
        "every move of a run has the momenta of the first",
        Edit("hvae.likelihood.annealing", "purpose=self._purpose, step=t,", "purpose=self._purpose, step=0,"),
        (FORWARD,),
    ),
    Fault(
        "steps-adapt-while-measuring",
        "the step sizes of the frozen path go on adapting in the run that is measured",
        Edit(
            "hvae.likelihood.annealing",
            "accepted = accepted + chance.mean()",
            "accepted = accepted + chance.mean()\n"
            "        path.step_sizes[t:] *= (EAGERNESS * (chance.mean(0) - ACCEPTANCE)).exp()",
        ),
        (FROZEN,),
    ),
    Fault(
        "steps-adapt-in-a-copy",
        "step sizes go on adapting in the run that is measured, in a copy of the frozen path",
        Edit(
            "hvae.likelihood.annealing",
            "accepted = accepted + chance.mean()",
            "accepted = accepted + chance.mean()\n"
            "        path = Path(path.betas, path.step_sizes * (EAGERNESS * (chance.mean(0) - ACCEPTANCE)).exp())",
        ),
        (ASKED,),
    ),
    Fault(
        "tuned-on-the-measured-draws",
        "the path is tuned on the very noise that the forward run then measures with",
        Edit("hvae.likelihood.annealing", 'f"{purpose}/tuning"', 'f"{purpose}/forward"'),
        (KEYS,),
    ),
    Fault(
        "weight-after-the-move",
        "the weight is taken where the chain went, not where it was",
        Edit(
            "hvae.likelihood.annealing",
            "        log_weight += (path.betas[t] - path.betas[t - 1]) * state.log_weight\n"
            "        state, chance = move(target, state, path.betas[t], path.step_sizes[t - 1], annealing.n_leapfrog,"
            " *draws.next(t))\n",
            "        state, chance = move(target, state, path.betas[t], path.step_sizes[t - 1], annealing.n_leapfrog,"
            " *draws.next(t))\n"
            "        log_weight += (path.betas[t] - path.betas[t - 1]) * state.log_weight\n",
        ),
        (FORWARD,),
    ),
    Fault(
        "weight-before-the-backward-move",
        "backward chains take the weight before they move",
        Edit(
            "hvae.likelihood.annealing",
            "        state, _ = move(target, state, path.betas[t], path.step_sizes[t - 1], annealing.n_leapfrog,"
            " *draws.next(t))\n"
            "        log_weight -= (path.betas[t] - path.betas[t - 1]) * state.log_weight\n",
            "        log_weight -= (path.betas[t] - path.betas[t - 1]) * state.log_weight\n"
            "        state, _ = move(target, state, path.betas[t], path.step_sizes[t - 1], annealing.n_leapfrog,"
            " *draws.next(t))\n",
        ),
        (BACKWARD,),
    ),
    Fault(
        "increments-weighed",
        "an increment of the log-weight is a little too large",
        Edit(
            "hvae.likelihood.annealing",
            "log_weight += (path.betas[t]",
            "log_weight += (1 + SIZE) * (path.betas[t]",
        ),
        (FORWARD,),
        size=0.02,
    ),
    Fault(
        "backward-from-the-encoder",
        "backward chains start from the encoder's draws, not from the exact one",
        Edit(
            "hvae.likelihood.annealing",
            "State.at(target, exact.expand(annealing.n_chains, -1, -1).contiguous())",
            "State.at(target, draws.start)",
        ),
        (BACKWARD,),
    ),
    Fault(
        "exact-draw-in-the-wrong-order",
        "the exact draw's latents are laid out from the other end of the stack",
        Edit("hvae.likelihood.sandwich", "for name in target.specs]", "for name in reversed(target.specs)]"),
        (BACK,),
    ),
    Fault(
        "upper-bound-from-the-mean",
        "the upper bound is the log of the mean inverse weight, its sign forgotten",
        Edit("hvae.likelihood.annealing", "else -log_mean)", "else log_mean)"),
        (BACKWARD,),
    ),
    # the target
    Fault(
        "moved-without-log-det",
        "a moved target forgets by how much its map stretches",
        Edit("hvae.likelihood.target", "/ 2 + log_det", "/ 2 + (1 - SIZE) * log_det"),
        (MOVED,),
        size=1.0,
    ),
)
