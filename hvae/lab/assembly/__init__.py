"""From configuration to objects. Only this room knows both."""

from hvae.lab.assembly.checks import check_batch_size as check_batch_size
from hvae.lab.assembly.checks import check_observation as check_observation
from hvae.lab.assembly.checks import check_savings as check_savings
from hvae.lab.assembly.checks import precision as precision
from hvae.lab.assembly.objective import build_objective as build_objective
from hvae.lab.assembly.objective import relax as relax
from hvae.lab.assembly.objective import relaxation as relaxation
from hvae.lab.assembly.stack import build_hvae as build_hvae
from hvae.lab.assembly.stack import latent_names as latent_names
from hvae.lab.assembly.trainable import trainable as trainable
