"""Which stochastic layer of a deep VAE has collapsed, why, and what it costs.

The house, in reading order (a file imports only what stands above it):

    errors  extras                           what is refused, and what a core install leaves out
    vocabulary  schedules  strict  config    words and settings; no torch
    provenance  files  runs                  a run on disk; no torch
    shapes  numerics  rng  checkpoints       legend, safe arithmetic, draws as functions of a key
    families  nets                           distributions and nets, strangers to each other
    network  posterior  evidence             the model: one conditional, one walk, one place where p and q meet
    gradients  objectives                    what is maximised
    reference  likelihood  diagnostics       what is measured, and the exact answers it is held against
    data  build                              from names to tensors, from settings to objects
    board  health  interrupts  training      R replicas at once
    evaluation                               from a trained run to arrays on disk
    completion  sweep  options  cli          one run, many runs, the command line

Legend: R replicas (seeds), K samples, B data, D units, L latent layers; x the observation, z1 touches it, zL is the
top. Values are ``[K, B, D]``, log-probabilities ``[K, B]``. The unit is the nat. A bound is better when higher, a loss
when lower.

What own stacks are built of is in ``__all__``, as `hvae.HVAE`. Each name is imported when it is first asked for, so
that `import hvae` loads no torch; `__init__.pyi` tells type checkers the same.
"""

_HOMES = {
    "errors": ("ConfigError", "MissingExtraError"),
    "rng": ("noise",),
    "families": (
        "Autoregressive",
        "Bernoulli",
        "Categorical",
        "DiagonalGaussian",
        "DiscretisedLogistic",
        "Family",
        "Flow",
        "FullGaussian",
        "MixtureGaussian",
    ),
    "nets": ("Root", "mlp", "residual"),
    "network": ("BeliefNetwork", "Conditional"),
    "posterior": ("Ladder", "NetworkPosterior", "Posterior"),
    "evidence": ("HVAE", "Evidence"),
    "objectives": (
        "DoublyReparametrised",
        "Elbo",
        "Iwae",
        "Objective",
        "ReweightedWakeSleep",
        "StickingTheLanding",
        "SymmetricEquilibrium",
        "Tvo",
        "WakeSleep",
    ),
    "likelihood": ("Estimate", "anneal", "importance_sample", "log_likelihood_curve", "sandwich"),
}
"""room -> what the face shows of it"""
_HOME = {name: room for room, names in _HOMES.items() for name in names}

__all__ = ["__version__", *_HOME]


def __getattr__(name: str) -> object:
    from importlib import import_module, metadata

    value: object
    if name == "__version__":
        value = metadata.version("hvae")
    elif name in _HOME:
        value = getattr(import_module(f"hvae.{_HOME[name]}"), name)
    else:
        raise AttributeError(f"module 'hvae' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
