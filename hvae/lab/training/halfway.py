"""Whether training has settled: the verdict at half of it, and beta.

At half of training the layers are judged on a few test images, by V_l and the share of images that move them
(`hvae.measuring.judging`). Where a sure verdict at the end is another one, more training might change it again. The
ELBO of these images is kept, so that tables show what the last half of training gained.
"""

import copy
from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from hvae import rng
from hvae.data import Dataset
from hvae.evidence import HVAE
from hvae.lab.config import RunConfig
from hvae.lab.runs.remarks import HALFWAY as HALFWAY
from hvae.lab.runs.run import Run
from hvae.measuring import Sizes, sure_words
from hvae.nets import BatchNorm, estimate_constants
from hvae.shapes import Value
from hvae.vocabulary import ACTIVE, FAILED, NOT_SETTLED, UNDECIDED

N_IMAGES, N_OTHERS = 128, 128
N_DRAWS = 64
"""of q, behind the ELBO of an image"""
N_BATCHES = 20
"""behind the constants of batch normalisation"""


def half(config: RunConfig) -> int:
    """The number of steps at which half of training is done; 0 where there is no half."""
    return config.training.n_steps // 2


def measure_halfway(
    run: Run, models: Sequence[HVAE], alive: Sequence[bool], data: Dataset, batches: Sequence[Value], device: str
) -> None:
    """Judge the models as they are, and keep the words. ``batches [R, B, D]`` set batch normalisation in copies."""
    config = run.config.evaluation
    order = data.test_order(config.seed)
    test = data.test[order[: N_IMAGES + N_OTHERS]].to(device)
    n = min(N_IMAGES, config.n_images)
    sizes = Sizes(epsilon_nats=config.epsilon_nats, seed=config.seed, n_alternatives=16, n_paths=4)
    words: dict[str, list[Sequence[str]]] = {name: [] for name in models[0].latents}
    elbo = np.full((len(models), len(test[:n])), np.nan)
    for replica, (model, good) in enumerate(zip(models, alive, strict=True)):
        found: Mapping[str, Sequence[str]] = dict.fromkeys(words, (FAILED,) * 3)
        if good:
            ready = _with_constants(model, [x[replica] for x in batches])
            found = sure_words(ready, test[:n], test[n:], sizes)
            elbo[replica] = _elbo(ready, test[:n], config.seed)
        for name, of_layer in found.items():
            words[name].append(of_layer)
    arrays = {f"verdict/{name}": np.array(of_layer) for name, of_layer in words.items()}
    arrays |= {"elbo_datum_nats": elbo, "step": np.array(half(run.config))}
    run.save_arrays(HALFWAY, arrays | {"epsilon_nats": np.array(sizes.epsilon_nats)})


def _elbo(model: HVAE, x: Value, seed: int) -> NDArray[np.float64]:
    """The ELBO of each image of ``x [n, D]``."""
    drawn = rng.noise(
        model.noise_specs(), N_DRAWS, len(x), seed=seed, purpose="halfway", device=str(x.device), dtype=x.dtype
    )
    with torch.no_grad():
        found: NDArray[np.float64] = model(x.unsqueeze(0), drawn).log_weight.mean(0).double().cpu().numpy()
    return found


def _with_constants(model: HVAE, batches: Sequence[Value]) -> HVAE:
    """A copy in evaluation mode, its batch normalisation set by the batches."""
    ready = copy.deepcopy(model)
    if any(isinstance(module, BatchNorm) for module in ready.modules()):
        estimate_constants(ready, partial(_pass, ready, batches))
    return ready.eval()


def _pass(model: HVAE, batches: Sequence[Value]) -> None:
    for step, x in enumerate(batches):
        drawn = rng.noise(
            model.noise_specs(), 1, len(x), seed=0, purpose="halfway", step=step, device=str(x.device), dtype=x.dtype
        )
        model(x.unsqueeze(0), drawn)


def not_settled(run: Run, verdicts: Mapping[str, NDArray[np.str_]]) -> dict[str, tuple[str, ...]]:
    """Layer -> the mark of each replica, from its words ``[R, E]`` at the end: `NOT_SETTLED`, or none.

    It stands where beta takes its last value in the second half of training only, and where the verdict was surely
    active or collapsed at half and is surely something else now. A run that was not judged at half has none of these.
    """
    late = _beta_is_late(run.config)
    before = run.load_arrays(HALFWAY) if run.has_arrays(HALFWAY) else {}
    marks = {}
    for name, words in verdicts.items():
        then = before.get(f"verdict/{name}")
        same_threshold = float(before.get("epsilon_nats", np.nan)) == run.config.evaluation.epsilon_nats
        if then is None or not same_threshold or then.shape != words.shape:
            then = np.full(words.shape, UNDECIDED)
        middle = words.shape[1] // 2
        marks[name] = tuple(
            NOT_SETTLED if now != FAILED and (late or _other(str(was), str(now))) else ""
            for was, now in zip(then[:, middle], words[:, middle], strict=True)
        )
    return marks


def _other(was: str, now: str) -> bool:
    """Whether one of two sure verdicts says that the layer is active, and the other does not."""
    unsure = (UNDECIDED, FAILED)
    return was not in unsure and now not in unsure and (was == ACTIVE) != (now == ACTIVE)


def _beta_is_late(config: RunConfig) -> bool:
    """Whether beta has its last value at no step of the first half."""
    last = config.training.n_steps - 1

    def beta(step: int) -> float:
        stage = config.stage_at(step)
        return stage.objective.beta(step - stage.from_step)

    end, stop = beta(last), half(config)
    return not any(np.isclose(beta(step), end, rtol=1e-9) for step in {*range(0, stop, max(1, stop // 1000)), stop})
