"""Information a layer carries, between two bounds, on n fixed images ("which of the n images?", nats).

Bottom-up (`hvae.diagnostics.nested`):   I_l = I_q(x; z_l) and J_l = I_q(z_{l-1}; z_l).
Top-down (`hvae.diagnostics.conditional`): I_l = J_l = I_q(x; z_l | z_{>l}).
"""

import torch
from torch import Tensor

from hvae.diagnostics.bounds import Information, Intervals
from hvae.diagnostics.conditional import conditional_information
from hvae.diagnostics.draws import Sampler
from hvae.diagnostics.nested import nested_information


def information(
    sampler: Sampler, *, epsilon: float, max_paths: int, n_bootstrap: int, extra: Tensor | None = None
) -> dict[str, Information]:
    """I_l and J_l of every layer.

    Bottom-up the paths per image double from 16 to ``max_paths``, top-down the images of the mixture double from n
    by ``extra`` images ``[N, D]``, until no interval contains ``epsilon`` or there is no more.
    """
    intervals = Intervals(epsilon, n_bootstrap, sampler.seed)
    with torch.no_grad():
        if sampler.model.posterior.order == sampler.model.latents:
            return nested_information(sampler, intervals, max_paths)
        return conditional_information(sampler, intervals, extra)
