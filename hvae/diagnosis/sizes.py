"""How much is measured: fixed numbers, recorded beside what was measured with them."""

from dataclasses import dataclass, fields
from numbers import Integral, Real

from hvae.errors import ConfigError


@dataclass(frozen=True)
class Sizes:
    """How many images, paths and samples; what a number depends on beside the model and the images.

    The page `reference` of the documentation says what each number is. Most of the time goes into ``n_images``,
    ``max_paths``, ``n_alternatives`` and ``n_samples``.

    Raises `ConfigError` for less than 2 of what needs a spread, and for more than `MOST`.

    >>> from hvae import Sizes
    >>> Sizes(n_images=128).n_paths
    32
    """

    n_images: int = 512
    """images of the information measures, which cannot exceed log(n_images) nats"""
    max_paths: int = 1024
    """largest number M of paths per image in the nested information bounds"""
    n_mixture: int = 8
    """a top-down mixture has at most this many times n images"""
    n_alternatives: int = 64
    """codes against which the decoder's use V of a layer is told, which cannot exceed log(n_alternatives + 1) nats"""
    n_paths: int = 32
    """draws per image of rates and units"""
    n_paths_use: int = 32
    """draws per image of U, what the layer below can tell of the image"""
    n_paths_knockout: int = 32
    """samples per image of each bound whose difference is a knock-out"""
    epsilon_nats: float = 0.1
    """threshold of the verdict in nats"""
    n_likelihood: int = 500
    """images of the likelihood curve"""
    n_samples: int = 1000
    """K, importance samples per image of that curve; log p(x) of an image may cost 14 times as much"""
    until_se: float = 0.1
    """standard error in nats that log p(x) of an image is brought to, unless its budget is spent before"""
    n_likelihood_deep: int = 0
    """images of a deeper curve; 0 leaves it out"""
    n_samples_deep: int = 5000
    """K of the deeper curve"""
    n_pictures: int = 10
    """images that are drawn"""
    seed: int = 0
    """of all draws"""

    def __post_init__(self) -> None:
        for knob in fields(self):
            value, least = getattr(self, knob.name), _LEAST.get(knob.name, 2)
            real = knob.name in _NATS
            wanted = "a number" if real else "a whole number"
            if not _is(value, Real if real else Integral):
                raise ConfigError(f"{knob.name} is {value!r}; give {wanted}, at least {least}.")
            if not value >= least:
                raise ConfigError(f"{knob.name} is {_told(value)}; give at least {least}.")
            if not real and value > (most := _MOST.get(knob.name, MOST)):
                raise ConfigError(f"{knob.name} is {_told(value)}; give at most {most}.")
        for name in _NATS:
            if not LEAST_NATS <= getattr(self, name) <= MOST_NATS:
                told = _told(getattr(self, name))
                raise ConfigError(f"{name} is {told}; give {LEAST_NATS:g} to {MOST_NATS:g} nats.")


MOST = 10**7
"""of whatever is counted; far more cannot be meant, and a generator does not take it"""
LEAST_NATS, MOST_NATS = 1e-9, 1e6
"""the squares of smaller ones vanish"""
_MOST = {"seed": 2**63 - 1}
_NATS = ("epsilon_nats", "until_se")
_LEAST = {
    "n_mixture": 1, "n_alternatives": 1,
    "n_paths_use": 1, "n_paths_knockout": 1, "n_likelihood_deep": 0, "n_pictures": 0, "seed": 0,
    "epsilon_nats": 0, "until_se": 0,
}  # fmt: skip


def _is(value: object, kind: type) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


def _told(value: object) -> str:
    try:
        text = str(value)
    except ValueError:  # Python writes no more than 4300 digits
        return "a number of thousands of digits"
    return text if len(text) <= 60 else f"{text[:57]}..."


@dataclass(frozen=True)
class Budget:
    """How much is spent on what is measured beyond that: annealed bounds, exact answers, the gap, gradients.

    Raises `ConfigError` for too little, and for more than `MOST`.

    >>> Budget(images=12).chains
    64
    """

    images: int = 100
    """test images; as many are simulated"""
    temperatures: int = 100
    """steps of annealing"""
    chains: int = 64
    """annealed chains per image; from about 500 on they also serve the layer gaps"""
    leapfrog: int = 4
    """gradients per move of a chain"""
    draws: int = 4
    """paths of q per image, for the layer gaps"""
    samples: int = 1000
    """K, importance samples per image, for L_K and for each proposal of the layer gaps"""
    gradients: tuple[int, ...] = ()
    """numbers of samples K, as in 1,2,5,20; for each K, the signal-to-noise ratio of every layer's gradient"""

    def __post_init__(self) -> None:
        for field in fields(self):
            value, least = getattr(self, field.name), LEAST.get(field.name, 1)
            numbers = value if isinstance(value, tuple) else (value,)
            if not all(_is(number, Integral) for number in numbers):
                raise ConfigError(f"The budget's --{field.name} is {value!r}; give whole numbers, at least {least}.")
            if any(number < least for number in numbers):
                raise ConfigError(f"The budget's --{field.name} is {_told(value)}; give at least {least}.")
            if any(number > MOST for number in numbers):
                raise ConfigError(f"The budget's --{field.name} is {_told(value)}; give at most {MOST}.")


LEAST = {"images": 2, "draws": 2}
"""the least of those of which one shows no spread"""
