"""The doubt of every log p(x) that the committed pages report, and of estimates that nobody should believe."""

from collections.abc import Sequence

import numpy as np
import torch

from hvae.analysis.load import load_runs
from hvae.exact.known_stacks import linear_stack
from hvae.likelihood import from_prior
from hvae.likelihood.weights import estimate
from hvae.vocabulary import PARETO_K_LIMIT
from tests.reliability.figure import Figure, Row
from tests.reliability.page import REPO

PAGES = REPO / "experiments/results"
MOST_NATS = 0.1
"""that a mean may be too low without a word"""


def measure(n: int) -> Sequence[Row]:
    """At most n pages."""
    rows, heavy = [], list[np.ndarray]()
    for page in sorted(folder.parent for folder in PAGES.glob("*/arrays"))[:n]:
        found = [run.source.load_arrays("likelihood") for run in load_runs(page) if run.source.has_arrays("likelihood")]
        found = [arrays for arrays in found if "log_px_reached" in arrays]
        heavy += [arrays["pareto_k"].ravel() > PARETO_K_LIMIT for arrays in found]
        if found:
            rows.append(_of(page.name, found))
    share = np.concatenate(heavy).mean()
    alone = f"k-hat above {PARETO_K_LIMIT} for {100 * share:.0f} % of {sum(map(len, heavy))} images"
    return [
        *rows,
        Row("L_k of the same models, by the encoder's draws alone", alone, bool(share > 0.05), twin=True),
        blind(),
    ]


def _of(page: str, found: Sequence[dict[str, np.ndarray]]) -> Row:
    doubt = np.concatenate([arrays["doubt_nats"] for arrays in found])
    warned = np.concatenate([arrays["warning"] != "" for arrays in found])
    reached = np.concatenate([arrays["log_px_reached"].ravel() for arrays in found])
    words = (
        f"means may be {np.median(doubt):.2g} nats low (median), {doubt.max():.2g} at most; {warned.sum()} warned; "
        f"{100 * reached.mean():.0f} % of {reached.size} images as exact as wanted"
    )
    return Row(f"{page}, {len(doubt)} replicas", words, bool(warned[~(doubt <= MOST_NATS)].all()))


def blind() -> Row:
    """Weights of the prior's draws where x says much about z: what a collapsed encoder would be."""
    stack = linear_stack(3.0, "best", seed=0)
    target = from_prior(stack.model.decoder, stack.x)
    with torch.no_grad():
        found = estimate(target.log_weight(target.noise(1000, seed=0, purpose="blind")))
    error = float(np.mean(found.log_px - stack.reference.log_px(stack.x).detach().numpy()))
    words = (
        f"k-hat {np.median(found.pareto_k):.0f}, {-error:.0f} nats too low, {'warned' if found.warning else 'silent'}"
    )
    return Row("the prior as proposal, strong couplings", words, bool(found.warning) and error < -1, twin=True)


TAILS = Figure(
    "tails",
    "Doubt of the likelihoods on the committed pages",
    "A mean of importance weights is only as good as their tail (Pareto k-hat, Vehtari et al. 2024). Of all pages that "
    "keep their arrays: how many nats the mean over images may be too low. Where that is above 0.1, or unknown, the "
    "replica should carry a warning. An image is as exact as wanted if its standard error is at most 0.1 nats, with "
    "sound weights.",
    100,
    measure,
)
