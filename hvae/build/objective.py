"""What is maximised."""

from hvae.config import ObjectiveConfig, per_layer
from hvae.gradients import fill_in, leave_one_out
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
            elbo = Elbo(config.beta, layer_beta, free_nats)
            return StickingTheLanding(elbo) if config.gradient == "sticking-the-landing" else elbo
