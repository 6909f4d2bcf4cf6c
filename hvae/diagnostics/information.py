"""Information a layer carries, between two bounds, on n fixed images ("which of the n images?", nats).

Orders that visit z1 first (`hvae.diagnostics.nested`):   I_l = I_q(x; z_l) and J_l = I_q(parents of z_l; z_l),

    bottom-up      J_l = I_q(z_{l-1}; z_l)
    bottom-up-x    J_l = I_q(z_{l-1}, x; z_l)
    mean-field     J_l = I_l

Top-down, merged or not (`hvae.diagnostics.conditional`): I_l = J_l = I_q(x; z_l | z_{>l}).

A layer that sees x itself may repeat the layers below: I_l > 0 says that it is coded, not that it is needed. Whether
the decoder reads it is U_l (`hvae.diagnostics.usage`), and the verdict asks for both.
"""

import torch
from torch import Tensor

from hvae.diagnostics.bounds import Information, Intervals
from hvae.diagnostics.conditional import conditional_information
from hvae.diagnostics.draws import Sampler
from hvae.diagnostics.nested import nested_information


def information(
    sampler: Sampler, *, epsilon: float, max_paths: int, extra: Tensor | None = None
) -> dict[str, Information]:
    """I_l and J_l of every layer.

    With z1 first the paths per image double from 16 to ``max_paths``, top-down the images of the mixture double from n
    by ``extra`` images ``[N, D]``, until no interval contains ``epsilon`` or there is no more.
    """
    intervals = Intervals(epsilon)
    with torch.no_grad():
        if sampler.model.bottom_up:
            return nested_information(sampler, intervals, max_paths)
        return conditional_information(sampler, intervals, extra)
