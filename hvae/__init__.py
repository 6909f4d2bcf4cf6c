"""Which stochastic layer of a deep VAE has collapsed, why, and what it costs.

The house has two wings. A file imports only what stands above it.

The instrument measures a model, and knows no configuration:

    errors  extras                           what is refused, and what a core install leaves out
    vocabulary  diagnosis                    words; what was measured of a model, a value; no torch
    schedules  suitability                   numbers that change with the step, rules; no torch
    shapes  numerics  rng                    legend, safe arithmetic, draws as functions of a key
    families  nets                           distributions and nets, strangers to each other
    network  posterior  evidence             the model: one conditional, one walk, one place where p and q meet
    topdown                                  VDVAE's residual stack of blocks, with spatial latents
    gradients  objectives                    what is maximised
    exact  likelihood  diagnostics           exact answers, log p(x), and what is said of each layer
    data                                     from names to tensors
    foreign  fitting  measuring              anybody's model, training without files, and what is measured

The laboratory, `hvae.lab`, makes models, runs and results:

    strict  config  runs                     settings, and a run on disk; no torch
    assembly  training  evaluation           from settings to objects, R replicas at once, and their diagnosis
    completion  sweep                        one run made complete, and many
    experiment  options  cli                 the command line

Below both stand `hvae.analysis` (claims, tables, figures, the report) and `hvae.experiments` (one question each).

Legend: R replicas (seeds), K samples, B data, D units, L latent layers; x the observation, z1 touches it, zL is the
top. Values are ``[K, B, D]``, log-probabilities ``[K, B]``. The unit is the nat. A bound is better when higher, a loss
when lower.

``__all__`` holds the parts of a model of one's own, such as `hvae.HVAE`. A name is imported when it is first asked
for, so `import hvae` loads no torch. `__init__.pyi` tells type checkers the same.
"""

_HOMES = {
    "errors": "ConfigError MissingExtraError",
    "rng": "noise",
    "families": "Autoregressive Bernoulli Categorical DiagonalGaussian DiscretisedLogistic DiscretisedLogisticMixture "
    "Family Flow FullGaussian MixtureGaussian NegativeBinomial Poisson",
    "nets": "Root mlp residual",
    "network": "BeliefNetwork Conditional Decoder",
    "posterior": "Ladder NetworkPosterior Posterior",
    "evidence": "HVAE Evidence",
    "topdown": "BlockStyle ResidualDecoder ResidualPosterior from_vdvae",
    "fitting": "fit",
    "objectives": "DoublyReparametrised Elbo Iwae Objective ReweightedWakeSleep StickingTheLanding "
    "SymmetricEquilibrium Tvo WakeSleep",
    "foreign": "Model Visit law masked pushed",
    "diagnosis": "Diagnosis Sizes",
    "measuring": "diagnose",
    "foreign.flat": "from_laws",
    "foreign.pyro": "from_pyro",
    "foreign.pythae": "from_pythae",
    "foreign.scvi": "from_scvi scvi_data",
    "likelihood": "Estimate anneal importance_sample log_likelihood_curve sandwich",
}
"""room -> its names on the face"""
_HOME = {name: room for room, names in _HOMES.items() for name in names.split()}

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
