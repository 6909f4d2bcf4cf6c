"""The figures of the page, in its order."""

from tests.reliability.damage import DAMAGE
from tests.reliability.drift import DRIFT
from tests.reliability.estimates import ANNEALING, SANDWICH
from tests.reliability.exactness import EXACT
from tests.reliability.faults import PLANTED
from tests.reliability.figure import Figure
from tests.reliability.inputs import INPUTS
from tests.reliability.kills import KILLS
from tests.reliability.tails import TAILS
from tests.reliability.writers import WRITERS

FIGURES: tuple[Figure, ...] = (EXACT, ANNEALING, SANDWICH, TAILS, PLANTED, KILLS, DAMAGE, WRITERS, INPUTS, DRIFT)
