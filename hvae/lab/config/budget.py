"""How much is spent on a measurement of a trained run; no part of a `RunConfig`."""

from dataclasses import dataclass, fields

from hvae.errors import ConfigError


@dataclass(frozen=True)
class Budget:
    """How many images, and how much work on each. Raises `ConfigError` for too little."""

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
            if any(number < least for number in (value if isinstance(value, tuple) else (value,))):
                raise ConfigError(f"--{field.name} is {value}; give at least {least}.")


LEAST = {"images": 2, "draws": 2}
"""the least of those of which one shows no spread"""
