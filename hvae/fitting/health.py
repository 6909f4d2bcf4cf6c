"""Which replicas are finite, and which skipped steps. Kept on the device, so that asking costs the loop no wait."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from hvae.vocabulary import skips

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

    Of replicas that skip steps, because their gradient is too large, it counts them, ``skipped [R]``, and those up to
    now without a step between, ``skipped_in_a_row [R]``. ``visited`` are the variables in the order in which the model
    visits them; what is not finite first in this order is named.

    >>> health = Health(2, ("z1", "x"), ("w",), "cpu")
    >>> terms = {"rate_nats/z1": torch.tensor([1.0, torch.inf]), "distortion_nats": torch.tensor([1.0, 1.0])}
    >>> health.check(6, torch.tensor([2.0, torch.inf]), terms, torch.ones(1, 2))
    >>> health.news(seeds=(4, 9))
    ['seed 9 became non-finite at step 7 in the rate of z1 and was stopped; the other seeds go on.']
    """

    def __init__(
        self,
        n_replicas: int,
        variables: tuple[str, ...],
        parameters: tuple[str, ...],
        device: str,
        *,
        visited: tuple[str, ...] = (),
    ) -> None:
        self.variables, self.parameters, self.visited = variables, parameters, visited or variables
        self.alive = torch.ones(n_replicas, dtype=torch.bool, device=device)
        self.died_at = torch.full((n_replicas,), -1, dtype=torch.long, device=device)
        self.bad_terms = torch.zeros(len(variables), n_replicas, dtype=torch.bool, device=device)
        self.bad_gradients = torch.zeros(len(parameters), n_replicas, dtype=torch.bool, device=device)
        self.origins: dict[int, str] = {}
        """stopped replica -> the weight or net with the first number that is not finite; empty if none was found"""
        self.n_steps = 0
        """steps that were checked"""
        self.skipped, self.skipped_in_a_row, self.largest = (torch.zeros_like(self.died_at) for _ in range(3))
        owners = [_owner(name, variables) for name in parameters]
        self.owners = tuple(dict.fromkeys(owners))
        self._owner = torch.tensor([self.owners.index(owner) for owner in owners], device=device)
        self.reported: set[int] = set()
        self._told = [0] * n_replicas

    def check(
        self, step: int, loss: Tensor, terms: Mapping[str, Tensor], squares: Tensor, *, infinite_is_large: bool = False
    ) -> None:
        """Stop replicas with a loss ``[R]`` or squared gradients ``[parameter, R]`` that are not finite.

        Where steps are skipped a gradient that is infinite is a large one, and only one that is no number stops.
        """
        self.n_steps = step + 1
        fine = ~torch.isnan(squares) if infinite_is_large else torch.isfinite(squares)
        bad = ~(torch.isfinite(loss) & fine.all(0))
        if surely(~bad.any()):
            return
        dies = bad & self.alive
        by_variable = [terms["distortion_nats" if name == "x" else f"rate_nats/{name}"] for name in self.variables]
        self.died_at = torch.where(dies, step + 1, self.died_at)
        self.bad_terms = torch.where(dies, ~torch.isfinite(torch.stack(by_variable)), self.bad_terms)
        self.bad_gradients = torch.where(dies, ~fine, self.bad_gradients)
        self.alive = self.alive & ~bad

    def skip(self, too_large: Tensor, squares: Tensor) -> None:
        """Count replicas that skip the step, bool ``[R]``, and note the layer with the largest squared gradient."""
        self.skipped_in_a_row = torch.where(too_large, self.skipped_in_a_row + 1, 0)
        if surely(~too_large.any()):
            return
        self.skipped = self.skipped + too_large
        of_owners = squares.new_zeros(len(self.owners), squares.shape[1]).index_add(0, self._owner, squares)
        self.largest = torch.where(too_large, of_owners.argmax(0), self.largest)

    def news(self, seeds: Sequence[int], *, done: bool = False) -> list[str]:
        """A sentence for every replica that stopped since the last call; waits for the device.

        Also one for every replica that skipped its first step, or twice as many as were told of. Where the training is
        ``done``, it has all that were skipped.
        """
        sentences = []
        goes_on = "; the other seeds go on" if self.alive.any() else ""
        for replica in (~self.alive).nonzero().flatten().tolist():
            if replica not in self.reported:
                self.reported.add(replica)
                sentences.append(
                    f"seed {seeds[replica]} became non-finite at step {self.died_at[replica].item()} "
                    f"in {self.culprit(replica)} and was stopped{goes_on}."
                )
        for replica, n in enumerate(self.skipped.tolist()):
            if n > self._told[replica] and (done or n >= 2 * self._told[replica]):
                self._told[replica] = n
                largest = self.owners[int(self.largest[replica])]
                sentences.append(
                    f"seed {seeds[replica]} {skips(n, int(self.skipped_in_a_row[replica]), self.n_steps)}; the last of "
                    f"these gradients was largest in {largest}."
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
        """What was not finite first: the term of a variable, or else the gradient of a parameter; and its origin."""
        came = f", first in {self.origins[replica]}" if self.origins.get(replica) else ""
        bad_terms = dict(zip(self.variables, self.bad_terms[:, replica].tolist(), strict=True))
        for name in self.visited:
            if bad_terms[name]:
                return f"the {'distortion of x' if name == 'x' else 'rate of ' + name}{came}"
        for name, bad in zip(self.parameters, self.bad_gradients[:, replica].tolist(), strict=True):
            if bad:
                return f"the gradient of {name}{came}"
        return f"the loss{came}"

    def state(self) -> dict[str, Any]:
        """Plain values for a checkpoint."""
        return {name: getattr(self, name) for name in (*STATE, "origins")}

    def load(self, state: Mapping[str, Any]) -> None:
        """Take over what `state` gave; a checkpoint of before knows of no skipped steps."""
        for name in STATE:
            if name in state:
                setattr(self, name, state[name].to(self.alive.device))
        self.origins = dict(state.get("origins", {}))


STATE = ("alive", "died_at", "bad_terms", "bad_gradients", "skipped", "skipped_in_a_row", "largest")


def _owner(parameter: str, variables: Sequence[str]) -> str:
    """The variable that stands in a weight's name, or else the part of the model that the weight belongs to.

    >>> _owner("posterior.nets.z12.1.weight", ("z12", "x")), _owner("posterior.upward.into.weight", ("z12", "x"))
    ('z12', 'posterior.upward')
    """
    path = parameter.split(".")
    return next((part for part in path if part in variables), ".".join(path[:2]))
