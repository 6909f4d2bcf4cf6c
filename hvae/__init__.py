"""Which stochastic layer of a deep VAE has collapsed, why, and what it costs.

The house, in reading order (a file imports only what stands above it):

    vocabulary  schedules  strict  config    words and settings; no torch
    provenance  files  runs                  a run on disk; no torch
    shapes  numerics  rng  checkpoints       legend, safe arithmetic, draws as functions of a key
    families  nets                           laws and nets, strangers to each other
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
"""
