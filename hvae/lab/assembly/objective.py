"""The objective, and the draws that its gradient follows."""

from hvae.evidence import HVAE
from hvae.families import Relaxation
from hvae.fitting import relaxed
from hvae.gradients import fill_in, leave_one_out
from hvae.lab.config import RELAXED, ObjectiveConfig, per_layer
from hvae.objectives import (
    Covariance,
    DoublyReparametrised,
    Elbo,
    Iwae,
    Objective,
    ReweightedWakeSleep,
    StickingTheLanding,
    SymmetricEquilibrium,
    Tvo,
    WakeSleep,
)


def build_objective(config: ObjectiveConfig, names: tuple[str, ...]) -> Objective:
    """The objective of ``config`` for the latents ``names``."""
    layer_beta = dict(zip(names, per_layer("objective.layer_beta", config.layer_beta, len(names)), strict=True))
    match config.name:
        case "wake-sleep":
            return WakeSleep()
        case "symmetric":
            return SymmetricEquilibrium()
        case "reweighted-wake-sleep":
            return ReweightedWakeSleep(config.sleep)
        case "tvo":
            tvo = Tvo(config.partition, config.beta, layer_beta)
            return Covariance(tvo) if config.gradient == "covariance" else tvo
        case "iwae" | "vimco":
            iwae = Iwae(config.beta, layer_beta, fill_in if config.name == "vimco" else leave_one_out)
            return DoublyReparametrised(iwae) if config.gradient == "doubly-reparametrised" else iwae
        case "elbo":
            free_nats = dict(zip(names, per_layer("objective.free_nats", config.free_nats, len(names)), strict=True))
            units = per_layer("objective.unit_free_nats", config.unit_free_nats, len(names))
            elbo = Elbo(config.beta, layer_beta, free_nats, dict(zip(names, units, strict=True)))
            return StickingTheLanding(elbo) if config.gradient == "sticking-the-landing" else elbo


def relaxation(config: ObjectiveConfig) -> Relaxation | None:
    """How gradients pass through the draws of discrete layers; None for hard draws."""
    if config.gradient not in RELAXED:
        return None
    return Relaxation(config.temperature, config.gradient == "straight-through")


def relax(model: HVAE, config: ObjectiveConfig) -> HVAE:
    """The model; in training mode its encoder now draws discrete layers as ``config.gradient`` needs them.

    Raises `UnsuitedError` where there are no discrete layers, or their units are drawn one after another.
    """
    wanted = relaxation(config)
    return model if wanted is None else relaxed(model, wanted, f"the gradient is {config.gradient}")
