"""Which replicas are finite. Kept on the device, so that asking costs the training loop no wait."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

TOO_LARGE = 1e3
"""data beyond are said to be the likely reason"""


def surely(flag: Tensor) -> bool:
    """Whether a flag is set, where asking costs no wait; of an accelerator nobody asks, and the answer is no.

    >>> surely(torch.tensor(True)), surely(torch.tensor(False))
    (True, False)
    """
    return flag.device.type == "cpu" and bool(flag)


class Health:
    """Which replicas are alive ``[R]``; for the others the step, and the terms that were not finite ``[·, R]``.

    >>> health = Health(2, ("z1", "x"), ("w",), "cpu")
    >>> terms = {"rate_nats/z1": torch.tensor([1.0, torch.inf]), "distortion_nats": torch.tensor([1.0, 1.0])}
    >>> health.check(6, torch.tensor([2.0, torch.inf]), terms, torch.ones(1, 2))
    >>> health.news(seeds=(4, 9))
    ['seed 9 became non-finite at step 7 in the rate of z1 and was stopped; the other seeds go on.']
    """

    def __init__(self, n_replicas: int, variables: tuple[str, ...], parameters: tuple[str, ...], device: str) -> None:
        self.variables, self.parameters = variables, parameters
        self.alive = torch.ones(n_replicas, dtype=torch.bool, device=device)
        self.died_at = torch.full((n_replicas,), -1, dtype=torch.long, device=device)
        self.bad_terms = torch.zeros(len(variables), n_replicas, dtype=torch.bool, device=device)
        self.bad_gradients = torch.zeros(len(parameters), n_replicas, dtype=torch.bool, device=device)
        self.reported: set[int] = set()

    def check(self, step: int, loss: Tensor, terms: Mapping[str, Tensor], squares: Tensor) -> None:
        """Stop replicas with a loss ``[R]`` or squared gradients ``[parameter, R]`` that are not finite."""
        bad = ~(torch.isfinite(loss) & torch.isfinite(squares).all(0))
        if surely(~bad.any()):
            return
        dies = bad & self.alive
        by_variable = [terms["distortion_nats" if name == "x" else f"rate_nats/{name}"] for name in self.variables]
        self.died_at = torch.where(dies, step + 1, self.died_at)
        self.bad_terms = torch.where(dies, ~torch.isfinite(torch.stack(by_variable)), self.bad_terms)
        self.bad_gradients = torch.where(dies, ~torch.isfinite(squares), self.bad_gradients)
        self.alive = self.alive & ~bad

    def news(self, seeds: Sequence[int]) -> list[str]:
        """A sentence for every replica that stopped since the last call; waits for the device."""
        sentences = []
        goes_on = "; the other seeds go on" if self.alive.any() else ""
        for replica in (~self.alive).nonzero().flatten().tolist():
            if replica not in self.reported:
                self.reported.add(replica)
                sentences.append(
                    f"seed {seeds[replica]} became non-finite at step {self.died_at[replica].item()} "
                    f"in {self.culprit(replica)} and was stopped{goes_on}."
                )
        return sentences

    def obituary(self, seeds: Sequence[int], x: Tensor, columns: Sequence[str] = ()) -> str:
        """Where all replicas stopped, in a sentence, with the largest column of the last batches ``x [..., D]``.

        >>> health = Health(1, ("z1", "x"), ("w",), "cpu")
        >>> terms = {"rate_nats/z1": torch.tensor([torch.inf]), "distortion_nats": torch.tensor([1.0])}
        >>> health.check(0, torch.tensor([torch.inf]), terms, torch.ones(1, 1))
        >>> health.obituary([4], torch.tensor([[[1.0, -9e14, 0.0]]])).partition("; ")[2]
        'the largest numbers of x stand in column 1, up to 9e+14 in size: scale it, leave it out, or give a smaller \
learning rate.'
        """
        stopped: dict[str, list[str]] = {}
        for replica, seed in enumerate(seeds):
            where = f"at step {self.died_at[replica].item()} in {self.culprit(replica)}"
            stopped.setdefault(where, []).append(str(seed))
        who = ", ".join(f"seed{'s' * (len(of) > 1)} {', '.join(of)} {where}" for where, of in stopped.items())
        size = x.abs().flatten(0, -2).amax(0)
        column, largest = int(size.argmax()), float(size.max())
        if largest > TOO_LARGE:
            name = f" ({columns[column]})" if columns else ""
            remedy = (
                f"the largest numbers of x stand in column {column}{name}, up to {largest:.3g} in size: scale it, "
                "leave it out, or give a smaller learning rate."
            )
        else:
            remedy = f"no number of x is above {largest:.3g} in size, so give a smaller learning rate."
        return f"All replicas became non-finite, {who}; {remedy}"

    def culprit(self, replica: int) -> str:
        """What was not finite first: the term of a variable, or else the gradient of a parameter."""
        for name, bad in zip(self.variables, self.bad_terms[:, replica].tolist(), strict=True):
            if bad:
                return f"the {'distortion of x' if name == 'x' else 'rate of ' + name}"
        for name, bad in zip(self.parameters, self.bad_gradients[:, replica].tolist(), strict=True):
            if bad:
                return f"the gradient of {name}"
        return "the loss"

    def state(self) -> dict[str, Tensor]:
        """Tensors for a checkpoint."""
        names = ("alive", "died_at", "bad_terms", "bad_gradients")
        return {name: getattr(self, name) for name in names}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take over what `state` gave."""
        for name, value in state.items():
            setattr(self, name, value.to(self.alive.device))
