"""From configuration to objects. The only room that knows both."""

from hvae.build.checks import check_batch_size as check_batch_size
from hvae.build.checks import check_observation as check_observation
from hvae.build.moves import moves as moves
from hvae.build.objective import build_objective as build_objective
from hvae.build.objective import relax as relax
from hvae.build.stack import build_hvae as build_hvae
from hvae.build.stack import latent_names as latent_names
