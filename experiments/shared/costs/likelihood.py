"""CPU time to a standard error of 0.1 nats an image: the default bound on log p(x), and importance sampling alone.

`python -m hvae.experiments.shared.costs.likelihood RUN [IMAGES [TIMES]]` measures both in one process, one after the
other, on the first replica of a trained run. Only their ratio is to be read. Importance samples are doubled until an
image has its error and a k-hat that its samples carry. Only its last number of samples is counted, as if it had been
known. It ends after TIMES the time of the default bound, 10 if not given.
"""

import sys
import time
from dataclasses import dataclass
from pathlib import Path

UNTIL_SE_NATS = 0.1
N_SAMPLES = 1000
"""K of the default, and the first number of importance samples"""


@dataclass(frozen=True)
class Spent:
    """CPU seconds, and how many images have their error."""

    seconds: float
    reached: int

    def per_image(self, n_images: int) -> str:
        """As a line says it."""
        return f"{self.seconds / n_images:.3f} s an image, {self.reached} of {n_images} reached"


def compare(run_directory: Path, n_images: int, times: float) -> str:
    """The line of the comparison."""
    from hvae.lab.completion import load_data
    from hvae.lab.evaluation.replicas import Replicas
    from hvae.lab.runs.run import Run

    run = Run.open(run_directory)
    replicas = Replicas.of(run, load_data(run.config), "cpu")
    model, x = replicas.models[0], replicas.test[:n_images]
    default = _default(model, x)
    alone = _importance(model, x, times * default.seconds)
    ratio = alone.seconds / default.seconds
    return (
        f"default: {default.per_image(n_images)}. importance sampling: {alone.per_image(n_images)}, "
        f"at {ratio:.1f} times the CPU time."
    )


def _default(model: object, x: object) -> Spent:
    from hvae.likelihood import Spending, cheapest_bound

    begun = time.process_time()
    _, found = cheapest_bound(model, x, (1, N_SAMPLES), Spending(N_SAMPLES, UNTIL_SE_NATS), seed=0)  # type: ignore[arg-type]
    return Spent(time.process_time() - begun, int(found.reached.sum()))


def _importance(model: object, x: object, limit_seconds: float) -> Spent:
    import numpy as np

    from hvae.likelihood import log_likelihood_curve

    missing, spent, n_samples = np.arange(len(x)), 0.0, N_SAMPLES  # type: ignore[arg-type]
    n_reached = 0
    while len(missing):
        begun = time.process_time()
        found = log_likelihood_curve(model, x[missing], (n_samples,), seed=0).estimate  # type: ignore[arg-type, index]
        last = time.process_time() - begun
        good = (found.standard_error <= UNTIL_SE_NATS) & ~found.doubtful
        share = good.mean()
        if spent + last >= limit_seconds or share == 1:
            return Spent(spent + last, n_reached + int(good.sum()))
        spent, n_reached, missing = spent + share * last, n_reached + int(good.sum()), missing[~good]
        n_samples *= 2
    return Spent(spent, n_reached)


if __name__ == "__main__":
    arguments = sys.argv[1:]
    if not arguments:
        sys.exit("Give the directory of a trained run: hvae train makes one.")
    images, times = (
        (int(arguments[1]) if len(arguments) > 1 else 100),
        (float(arguments[2]) if len(arguments) > 2 else 10),
    )
    sys.stdout.write(compare(Path(arguments[0]), images, times) + "\n")
