"""Contenders in turn, in one process, on one core, by CPU time."""

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

ROUNDS = 9


@dataclass(frozen=True)
class Contender:
    """Something to call, and the number of units of work in a call: seeds, or thousands of samples."""

    call: Callable[[], object]
    work: float = 1.0


def in_turn(contenders: Mapping[str, Contender], rounds: int = ROUNDS, seconds: float = 0.15) -> dict[str, float]:
    """CPU seconds of a unit of work: the median over rounds, of which each calls every contender for ``seconds``."""
    repeats = {}
    for name, contender in contenders.items():
        contender.call()  # what is done once: compilation, memory
        begun = time.process_time()
        contender.call()
        repeats[name] = max(1, round(seconds / max(time.process_time() - begun, 1e-6)))
    found: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, contender in contenders.items():
            begun = time.process_time()
            for _ in range(repeats[name]):
                contender.call()
            found[name].append((time.process_time() - begun) / repeats[name] / contender.work)
    return {name: float(np.median(values)) for name, values in found.items()}


def pinned() -> str:
    """Keep this process on the last of its cores, where the system can; a sentence."""
    if not hasattr(os, "sched_setaffinity"):
        return "not pinned to a core, as this system cannot"
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    return "pinned to one core"
