"""Two runs side by side: the first sentence is what the arrays say, and settings can be typed as they stand."""

import dataclasses
import shlex
from pathlib import Path

import numpy as np
import pytest

from hvae.analysis.compare import answer, change, compare_text
from hvae.analysis.load import LoadedRun, load_run
from hvae.lab.config import ModelConfig, ObjectiveConfig, RunConfig, TrainingConfig
from hvae.lab.options import parse
from hvae.lab.runs.run import Run
from hvae.schedules import LinearWarmup
from tests.analysis.fabricate import fabricate, of_images

PLAIN = RunConfig(model=ModelConfig(latents=(4, 3, 2), hidden=((8,),)), training=TrainingConfig(seeds=(0, 1, 2, 3)))
WARM = dataclasses.replace(PLAIN, objective=ObjectiveConfig(beta=LinearWarmup(500)))
ACTIVE, COLLAPSED, NOISE = "active", "collapsed to N(0, I)", "codes noise only"


def judged(run: Run, gain: float, *layers: str | list[str]) -> Run:
    """A run with these verdicts, and L_K around `gain` with the same spread over seeds in every run."""
    diagnostics, likelihood = run.load_arrays("diagnostics"), run.load_arrays("likelihood")
    n = len(run.config.training.seeds)
    for index, words in enumerate(layers, start=1):
        each = [words] * n if isinstance(words, str) else words
        diagnostics[f"verdict/z{index}"] = np.array([[word] * 3 for word in each])
    spread = np.random.default_rng(0 if gain == 0 else 1).normal(0, 0.05, n)
    likelihood["bound_nats"] = likelihood["bound_nats"] * 0 + gain + spread[:, None, None]
    for key in ("bound_datum_nats", "elbo_datum_nats"):
        likelihood[key] = of_images(likelihood["bound_nats"][:, -1], likelihood[key].shape[1])
    run.save_arrays("diagnostics", diagnostics)
    run.save_arrays("likelihood", likelihood)
    return run


def pair(tmp_path: Path, a: RunConfig = PLAIN, b: RunConfig = WARM) -> tuple[Run, Run]:
    one, two = fabricate(tmp_path, {"plain": a, "warm": b}, experiment="own")
    return one, two


def test_it_begins_with_the_sentence_that_answers(tmp_path: Path) -> None:
    a, b = pair(tmp_path)
    judged(a, 0.0, ACTIVE, ACTIVE, COLLAPSED)
    judged(b, 0.001, ACTIVE, ACTIVE, ACTIVE)
    text = compare_text(a.path, b.path, 80)
    assert " ".join(text.partition("\n\n")[0].split()) == (
        "warm-up: z3 active in 4 of 4 instead of 0 of 4; the likelihoods cannot be told apart with 4 seeds and 500 "
        "images."
    )
    back = compare_text(b.path, a.path, 80).partition("\n\n")[0]
    assert back.startswith("without warm-up: z3 active in 0 of 4 instead of 4 of 4")
    assert max(map(len, text.splitlines())) <= 80


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Run]:
    a, b = pair(tmp_path_factory.mktemp("runs"))
    return judged(a, 0.0, ACTIVE, COLLAPSED, COLLAPSED), b


@pytest.mark.parametrize(
    ("gain", "layers", "words"),
    [
        (0.001, (ACTIVE, COLLAPSED, COLLAPSED), "every layer has the same verdicts; the likelihoods cannot"),
        (0.001, (ACTIVE, ACTIVE, ACTIVE), ": z2, z3 active in 4 of 4 instead of 0 of 4; the"),
        (0.001, (ACTIVE, COLLAPSED, [ACTIVE] * 3 + [COLLAPSED]), ": z3 active in 3 of 4 instead of 0 of 4; the"),
        (0.001, (ACTIVE, COLLAPSED, NOISE), ": z3 coding noise only in 4 of 4 instead of 0 of 4; the"),
        (
            0.001,
            (ACTIVE, COLLAPSED, ["failed", ACTIVE, ACTIVE, ACTIVE]),
            ": z3 active in 3 of 3 instead of 0 of 4; the",
        ),
        (1.0, (ACTIVE, COLLAPSED, COLLAPSED), "; L_1000 is higher by "),
        (-1.0, (ACTIVE, COLLAPSED, COLLAPSED), "; L_1000 is lower by "),
    ],
)
def test_the_sentence_follows_the_arrays(
    runs: tuple[Run, Run], gain: float, layers: tuple[str | list[str], ...], words: str
) -> None:
    a, b = runs
    assert words in answer(load_run(a), load_run(judged(b, gain, *layers)))


def test_a_sure_difference_has_its_interval(runs: tuple[Run, Run]) -> None:
    a, b = runs
    said = answer(load_run(a), load_run(judged(b, -1.0, ACTIVE, COLLAPSED, COLLAPSED)))
    low, high = (float(end) for end in said.partition("[")[2].partition("]")[0].split(", "))
    assert 0.7 < low < 1.0 < high < 1.3 and said.endswith("] with 4 seeds and 500 images.")


def test_bounds_that_do_not_compare_are_not_compared(tmp_path: Path) -> None:
    other = dataclasses.replace(PLAIN, data=dataclasses.replace(PLAIN.data, name="mnist-dynamic"))
    a, b = map(load_run, pair(tmp_path, PLAIN, other))
    assert "the likelihoods do not compare, as data or distribution of x differ" in answer(a, b)
    assert a.likelihood is not None
    fewer = dataclasses.replace(a.likelihood, n_samples=np.array([1, 10, 100, 50]))
    assert "as L_1000 and L_50 are different bounds" in answer(a, a.with_measured(likelihood=fewer))
    one = dataclasses.replace(PLAIN, training=TrainingConfig(seeds=(7,)))
    single = list(map(load_run, fabricate(tmp_path, {"one": one, "two": one}, experiment="few")))
    assert answer(*single).endswith(" with 500 images of one seed, and other seeds may differ.")
    index = dataclasses.replace(a.likelihood, image_index=np.arange(1, 501))
    assert "as they are of different images" in answer(a, a.with_measured(likelihood=index))
    kept = dataclasses.replace(a.likelihood, bound_datum_nats=np.full((4, 0), np.nan))
    older = a.with_measured(likelihood=kept)
    assert "the likelihoods of single images are not kept" in answer(older, older)


def test_layers_of_one_run_only_are_named(tmp_path: Path) -> None:
    deeper = dataclasses.replace(PLAIN, model=ModelConfig(latents=(4, 3, 2, 2, 2), hidden=((8,),)))
    a, b = map(load_run, pair(tmp_path, PLAIN, deeper))
    assert "z4, z5 only in b; " in answer(a, b) and "z4, z5 only in a; " in answer(b, a)


def test_a_run_that_is_not_measured_says_so(tmp_path: Path) -> None:
    (a,) = fabricate(tmp_path, {"plain": PLAIN}, experiment="own")
    b = Run.create_or_open(tmp_path, "own", "warm", WARM)
    assert answer(load_run(a), load_run(b)) == "warm-up: b is not measured yet; `hvae evaluate` measures a run."


def test_what_changed_is_said_in_words(tmp_path: Path) -> None:
    def said(**settings: object) -> str:
        sections: dict[str, dict[str, object]] = {}
        for name, value in settings.items():
            section, _, knob = name.partition("__")
            sections.setdefault(section, {})[knob] = value
        config = PLAIN
        for section, knobs in sections.items():
            config = dataclasses.replace(
                config,
                **{section: dataclasses.replace(getattr(config, section), **knobs)},  # type: ignore[arg-type]
            )
        bare: list[LoadedRun] = []
        for label, other in (("plain", PLAIN), ("other", config)):
            bare.append(load_run(Run(tmp_path / label, label, other)))
        return change(*bare)

    assert said() == "the same settings" == said(evaluation__n_samples=7)
    assert said(model__order="top-down") == "top-down instead of bottom-up"
    assert said(model__batch_norm=(True,), training__n_steps=7) == (
        f"batch norm and training.n_steps 7 instead of {PLAIN.training.n_steps}"
    )
    assert said(model__hidden=((8,), (7,), (6,)), model__latents=(16, 15, 14)) == (
        "model.latents '[16, 15, 14]' instead of '[4, 3, 2]' and model.hidden '[[8], [7], [6]]' instead of '[[8]]'"
    )
    assert said(training__n_steps=7, training__batch_size=9, training__seeds=(1,)) == "other instead of plain"


def test_settings_stand_as_they_are_typed(tmp_path: Path) -> None:
    """What is printed after a colon goes through a shell and the command line to the other run's setting."""
    a, b = pair(tmp_path, dataclasses.replace(PLAIN, data=dataclasses.replace(PLAIN.data, name="my file.npz")))
    lines = compare_text(a.path, b.path, 80).splitlines()
    typed = [line[5:] for line in lines if line.startswith(("  a: --", "  b: --"))]
    assert "--objective.beta '{\"warmup_steps\": 500}'" in typed and "--data.name 'my file.npz'" in typed
    parse(["train", *(word for line in typed for word in shlex.split(line))])
