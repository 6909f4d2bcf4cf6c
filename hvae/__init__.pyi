"""What type checkers see of the face: the names of `__all__` in `__init__.py`, from where they are imported."""

from hvae.diagnosis import Diagnosis as Diagnosis
from hvae.diagnosis import Sizes as Sizes
from hvae.errors import ConfigError as ConfigError
from hvae.errors import MissingExtraError as MissingExtraError
from hvae.evidence import HVAE as HVAE
from hvae.evidence import Evidence as Evidence
from hvae.families import Autoregressive as Autoregressive
from hvae.families import Bernoulli as Bernoulli
from hvae.families import Categorical as Categorical
from hvae.families import DiagonalGaussian as DiagonalGaussian
from hvae.families import DiscretisedLogistic as DiscretisedLogistic
from hvae.families import DiscretisedLogisticMixture as DiscretisedLogisticMixture
from hvae.families import Family as Family
from hvae.families import Flow as Flow
from hvae.families import FullGaussian as FullGaussian
from hvae.families import MixtureGaussian as MixtureGaussian
from hvae.families import NegativeBinomial as NegativeBinomial
from hvae.families import Poisson as Poisson
from hvae.fitting import fit as fit
from hvae.foreign import Model as Model
from hvae.foreign import Visit as Visit
from hvae.foreign import law as law
from hvae.foreign import masked as masked
from hvae.foreign import pushed as pushed
from hvae.foreign.flat import from_laws as from_laws
from hvae.foreign.pyro import from_pyro as from_pyro
from hvae.foreign.pythae import from_pythae as from_pythae
from hvae.foreign.scvi import from_scvi as from_scvi
from hvae.foreign.scvi import scvi_data as scvi_data
from hvae.likelihood import Estimate as Estimate
from hvae.likelihood import anneal as anneal
from hvae.likelihood import importance_sample as importance_sample
from hvae.likelihood import log_likelihood_curve as log_likelihood_curve
from hvae.likelihood import sandwich as sandwich
from hvae.measuring import diagnose as diagnose
from hvae.nets import Root as Root
from hvae.nets import mlp as mlp
from hvae.nets import residual as residual
from hvae.network import BeliefNetwork as BeliefNetwork
from hvae.network import Conditional as Conditional
from hvae.network import Decoder as Decoder
from hvae.objectives import DoublyReparametrised as DoublyReparametrised
from hvae.objectives import Elbo as Elbo
from hvae.objectives import Iwae as Iwae
from hvae.objectives import Objective as Objective
from hvae.objectives import ReweightedWakeSleep as ReweightedWakeSleep
from hvae.objectives import StickingTheLanding as StickingTheLanding
from hvae.objectives import SymmetricEquilibrium as SymmetricEquilibrium
from hvae.objectives import Tvo as Tvo
from hvae.objectives import WakeSleep as WakeSleep
from hvae.posterior import Ladder as Ladder
from hvae.posterior import NetworkPosterior as NetworkPosterior
from hvae.posterior import Posterior as Posterior
from hvae.rng import noise as noise
from hvae.topdown import BlockStyle as BlockStyle
from hvae.topdown import ResidualDecoder as ResidualDecoder
from hvae.topdown import ResidualPosterior as ResidualPosterior
from hvae.topdown import from_vdvae as from_vdvae

__all__ = [
    "HVAE",
    "Autoregressive",
    "BeliefNetwork",
    "Bernoulli",
    "BlockStyle",
    "Categorical",
    "Conditional",
    "ConfigError",
    "Decoder",
    "Diagnosis",
    "DiagonalGaussian",
    "DiscretisedLogistic",
    "DiscretisedLogisticMixture",
    "DoublyReparametrised",
    "Elbo",
    "Estimate",
    "Evidence",
    "Family",
    "Flow",
    "FullGaussian",
    "Iwae",
    "Ladder",
    "MissingExtraError",
    "MixtureGaussian",
    "Model",
    "NegativeBinomial",
    "NetworkPosterior",
    "Objective",
    "Poisson",
    "Posterior",
    "ResidualDecoder",
    "ResidualPosterior",
    "ReweightedWakeSleep",
    "Root",
    "Sizes",
    "StickingTheLanding",
    "SymmetricEquilibrium",
    "Tvo",
    "Visit",
    "WakeSleep",
    "__version__",
    "anneal",
    "diagnose",
    "fit",
    "from_laws",
    "from_pyro",
    "from_pythae",
    "from_scvi",
    "from_vdvae",
    "importance_sample",
    "law",
    "log_likelihood_curve",
    "masked",
    "mlp",
    "noise",
    "pushed",
    "residual",
    "sandwich",
    "scvi_data",
]

__version__: str
