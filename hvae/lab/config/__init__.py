"""Every setting of a run, as nested frozen dataclasses.

A `RunConfig` is complete. Two equal configurations are the same run and share a directory, named by
`RunConfig.digest`. Settings that do not change the meaning of numbers (device, threads, folder of
the data) are no part of it. The JSON form is strict: an unknown key, a wrong type or a value out of
range is refused with one sentence.

Settings per layer take one entry for all latent layers, or one entry per layer, z1 first.
"""

from hvae.lab.config.blocks import BlockMerge as BlockMerge
from hvae.lab.config.blocks import BlocksConfig as BlocksConfig
from hvae.lab.config.checks import per_layer as per_layer
from hvae.lab.config.data import DataConfig as DataConfig
from hvae.lab.config.evaluation import EvaluationConfig as EvaluationConfig
from hvae.lab.config.latents import DISCRETE as DISCRETE
from hvae.lab.config.latents import MERGING as MERGING
from hvae.lab.config.latents import LatentFamily as LatentFamily
from hvae.lab.config.latents import Order as Order
from hvae.lab.config.latents import OrderName as OrderName
from hvae.lab.config.model import ModelConfig as ModelConfig
from hvae.lab.config.objective import GAMES as GAMES
from hvae.lab.config.objective import RELAXED as RELAXED
from hvae.lab.config.objective import ObjectiveConfig as ObjectiveConfig
from hvae.lab.config.run import RunConfig as RunConfig
from hvae.lab.config.training import Stage as Stage
from hvae.lab.config.training import TrainingConfig as TrainingConfig
from hvae.lab.config.typed import as_typed as as_typed
