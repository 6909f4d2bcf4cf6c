"""The arrays of a page: the report redraws from them alone, its tables byte for byte."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hvae.analysis.figures.unit_rates import first_alive, recorded, stacked
from hvae.analysis.keep import OF_IMAGES
from hvae.analysis.kept import read_kept
from hvae.analysis.load import load_runs
from hvae.analysis.packed import load_packed, save_packed
from hvae.analysis.report import compare_text, verdict_text, write_experiment_report
from hvae.analysis.results import write_results
from hvae.analysis.study import open_study
from hvae.errors import ConfigError
from hvae.experiments.depth import KEPT, configs
from hvae.experiments.shared.consistency.tables import DISTANCES
from hvae.lab.cli import main
from hvae.lab.runs.files import save_arrays
from hvae.lab.runs.run import Run
from tests.analysis.fabricate import CARD, fabricate, measure_further

REPO = Path(__file__).parents[2]
LABELS = ("depth-1", "depth-2 bottom-up", "depth-3 ladder+WU")
N_FINER = 200


def beside(folder: Path, runs: list[Run]) -> None:
    """What an experiment measures beside its runs: a classifier, and the consistency of every run."""
    rng = np.random.default_rng(3)
    weights = {"layer/0/w": rng.normal(size=(64, 30)), "layer/0/b": rng.normal(size=30)}
    numbers = {"test_accuracy": 0.9, "floor/plain": 1.2, "n_samples": 100, "n_steps": 40}
    save_arrays(
        folder / "classifier.npz",
        weights | {"floor": np.array([0.5, 1.0, 1.5])} | {key: np.array(value) for key, value in numbers.items()},
    )
    for run in runs:
        n = len(run.config.training.seeds)
        found = {key: np.sort(rng.uniform(1, 90, (n, 3))) for key in DISTANCES}
        found |= {f"{key}/plain": rng.uniform(1, 90, n) for key in DISTANCES}
        found |= {f"images/{name}": rng.uniform(size=(10, 64)) for name in ("shot", "limit")}
        save_arrays(folder / f"{run.path.name}.npz", found)
    (folder / "classifier.json").write_text(json.dumps([{"command": "hvae run depth", "commit": "0" * 40}]))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(runs with their report, page); the runs are read no more."""
    root = tmp_path_factory.mktemp("kept")
    demo = configs("demo")
    runs = fabricate(root / "runs", {label: demo[label] for label in LABELS}, failed=0)
    measure_further(runs[1])
    for run in runs:
        finer = [row | {"step": 1000 + step} for step in range(N_FINER) for row in run.read_metrics()[-1:]]
        run.append_metrics(finer)
    beside(root / "runs" / "depth" / "measured" / "demo", runs)
    write_experiment_report(root / "runs" / "depth")
    page = write_results(root / "runs" / "depth", root / "results" / "depth").parent
    (root / "runs").rename(root / "gone")
    return root / "gone" / "depth", page


@pytest.fixture(scope="module")
def redrawn(made: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A copy of the page with the report that the command made of it, without torch; what the command said."""
    page = Path(shutil.copytree(made[1], tmp_path_factory.mktemp("redrawn") / "depth"))
    code = (
        "import sys; from hvae.lab.cli import main; sys.exit(main(['report', sys.argv[1]]) or 'torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "depth"],
        cwd=page.parent,
        env={**os.environ, "PYTHONPATH": str(REPO)},
        check=True,
        capture_output=True,
        text=True,
    )
    return page, done.stdout


@pytest.fixture
def page(made: tuple[Path, Path], tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(made[1], tmp_path / "depth"))


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_the_command_redraws_the_report(made: tuple[Path, Path], redrawn: tuple[Path, str]) -> None:
    page, said = redrawn
    assert "depth-3 ladder+WU" in said and "Report: depth/report/report.html" in said
    assert "<html" in (page / "report" / "report.html").read_text(encoding="utf-8")
    before = {file.relative_to(made[1]) for file in made[1].rglob("*")}
    assert before == {file.relative_to(page) for file in page.rglob("*") if "report" not in file.parts[-3:]}


def test_tables_are_those_of_the_runs_byte_for_byte(made: tuple[Path, Path], redrawn: tuple[Path, str]) -> None:
    runs, page = made[0], redrawn[0]
    kept = contents(page / "tables")
    assert {"verdict.csv", "likelihood.csv", "claims.json", "gap.csv", "summary.txt"} == set(kept)
    assert contents(page / "report" / "tables") == kept == contents(runs / "tables")


def test_the_report_says_the_same(made: tuple[Path, Path], redrawn: tuple[Path, str]) -> None:
    def said(folder: Path) -> str:
        text = (folder / "report.html").read_text(encoding="utf-8")
        return re.sub(r'written [^<]*|src="data:[^"]*"', "", text)

    assert said(redrawn[0] / "report") == said(made[0])


def test_all_figures_are_redrawn(made: tuple[Path, Path], redrawn: tuple[Path, str]) -> None:
    drawn, before = contents(redrawn[0] / "report" / "figures"), contents(made[0] / "figures")
    assert set(drawn) == set(before) > {f"{name}.svg" for name in ("information", "gap-layers", "likelihood")}
    for_the_eye = {name for name in before if name.endswith(".png")}
    assert {"unit-rates.png", "resampling-1.png"} <= for_the_eye
    assert {name for name in before if drawn[name] != before[name]} <= for_the_eye


def test_the_page_keeps_the_figures_that_its_experiment_names(page: Path) -> None:
    assert {file.stem for file in (page / "figures").iterdir()} == set(KEPT)
    text = (page / "README.md").read_text(encoding="utf-8")
    assert all(f"(figures/{name}.png)" in text for name in KEPT)
    assert text.count("](figures/") == len(KEPT) and "`hvae report` of this folder" in text


def test_what_a_page_keeps_of_itself_is_the_same_and_pictures_kept_no_more_go(page: Path) -> None:
    before = {file: file.read_bytes() for file in page.rglob("*") if file.is_file()}
    mine = page / "figures" / "mine.png"
    for file in (mine, page / "figures" / "rate.png", page / "figures" / "information.svg"):
        file.write_bytes(b"old")
    write_results(page, page)
    assert {file: file.read_bytes() for file in page.rglob("*") if file.is_file()} == before | {mine: b"old"}


def test_little_is_kept(made: tuple[Path, Path]) -> None:
    runs, page = made
    sizes = [
        sum(file.stat().st_size for file in folder.rglob("*") if file.suffix in (".npz", ".json", ".jsonl"))
        for folder in (runs, page / "arrays")
    ]
    assert sizes[1] < 60_000 < sizes[0] / 10
    kept = read_kept(page)
    assert set(kept.measured["classifier"]) == {"floor", "floor/plain", "test_accuracy", "n_samples", "n_steps"}
    assert {"classifier"} | {run.path.name for run in kept.runs} == set(kept.measured)
    keys = {key for run in kept.runs for arrays in run.files.values() for key in arrays}
    assert {key for key in keys if "datum" in key} <= set(OF_IMAGES) and "bound_datum_nats" in keys
    assert not {key for key in keys if key.startswith(("se_nats", "kl_standard_unit"))}
    for run in kept.runs:
        assert np.isin(run.files["likelihood"]["pareto_k"], (0.0, np.inf)).all()
        assert (run.files["likelihood"]["floor_datum_nats"] == -26).all()
    for run in load_runs(page):
        assert run.likelihood is not None and run.likelihood.floor_fitted_to == "the training data"
        assert (
            run.likelihood.floor_nats[:, 1].tolist() == [-26.0] * run.n_replicas
            and not run.likelihood.below_floor.any()
        )


def test_rates_of_units_are_kept_of_what_is_drawn_at_few_steps(made: tuple[Path, Path]) -> None:
    runs, page = made
    for run, before in zip(load_runs(page), load_runs(runs), strict=True):
        assert run.training.step.tolist() == before.training.step.tolist()
        assert np.array_equal(run.training.active_units["z1"], before.training.active_units["z1"], equal_nan=True)
        if run.depth == 1:  # a panel's figure is of its deepest run
            assert not run.training.rate_unit_nats
            continue
        rates, all_rates = (found.training.rate_unit_nats["z1"] for found in (run, before))
        there = np.isfinite(rates).all(axis=2)
        assert there.sum(axis=1).tolist() == [0, 48, 0, 0]  # the first replica failed
        assert there[1, 0] and there[1, -1]
        assert run.training.step[recorded(run)].tolist() == run.training.step[there[1]].tolist()
        drawn = stacked(run, first_alive(run))
        assert drawn.shape == (sum(run.config.model.latents), 48) and np.isfinite(drawn).all()
        np.testing.assert_allclose(drawn.sum(), stacked(before, 1)[:, there[1]].sum(), rtol=1e-3)
        np.testing.assert_allclose(rates[there], all_rates[there], rtol=1e-3, atol=1e-6)


def test_few_images_in_few_greys_are_kept_of_what_is_drawn(made: tuple[Path, Path]) -> None:
    shallow, *others = read_kept(made[1]).runs
    assert set(shallow.files["images"]) == {"image_shape"}
    for run, before in zip(others, load_runs(made[0])[1:], strict=True):
        for key, values in run.files["images"].items():
            n_kept = 8 if key == "samples" else 3
            assert key == "image_shape" or (len(values) == n_kept and len(np.unique(values)) <= 17)
        x, whole = run.files["images"]["resample/z1"], before.pictures.resampled["z1"]  # type: ignore[union-attr]
        np.testing.assert_allclose(x, np.clip(whole[:3, :3], 0, 1), atol=1 / 32 + 1e-3)


def test_intervals_are_exact_and_what_is_known_of_a_run_is_kept(made: tuple[Path, Path]) -> None:
    runs, page = made
    for run, before in zip(open_study(page).runs, open_study(runs).runs, strict=True):
        assert (run.label, run.config, run.done, run.provenance, run.diagnosis.cards, run.diagnosis.notes) == (
            before.label, before.config, before.done, before.provenance, (CARD,), before.diagnosis.notes,
        )  # fmt: skip
        np.testing.assert_allclose(run.gained_nats, before.gained_nats, atol=2 / 1024, rtol=0)
        for layer, other in zip(run.layers, before.layers, strict=True):
            for key, values in other.intervals.items():
                assert np.array_equal(layer.intervals[key], values, equal_nan=True)
    assert open_study(page).measured_by == open_study(runs).measured_by


def test_a_single_run_is_kept_with_all_its_figures(tmp_path: Path) -> None:
    (run,) = fabricate(tmp_path, {"my stack": configs("demo")["depth-2 bottom-up"]}, experiment="own")
    before = verdict_text(run.path)
    page = write_results(run.path, tmp_path / "page").parent
    assert verdict_text(page) == before
    assert {"information.png", "likelihood.png", "resampling-1.png"} <= {f.name for f in (page / "figures").iterdir()}
    assert "The settings are the same." in compare_text(page, page)


# -- what is spoilt -------------------------------------------------------------------------------------


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-200])


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 3] ^= 0xFF
    file.write_bytes(bytes(content))


def without_index(file: Path) -> None:
    np.savez(file, float64=np.zeros((8, 2), dtype=np.uint8))


def another_list(file: Path) -> None:
    file.write_text("[1, 2]")


def without_runs(file: Path) -> None:
    records = json.loads(file.read_text(encoding="utf-8"))
    del records["runs"]
    file.write_text(json.dumps(records))


def odd_setting(file: Path) -> None:
    file.write_text(file.read_text(encoding="utf-8").replace('"n_steps": 1000', '"n_steps": "many"'))


SPOILT = [
    ("runs.npz", Path.unlink, "does not exist; restore it with git"),
    ("runs.npz", cut, "is damaged"),
    ("runs.npz", flip, "is damaged"),
    ("runs.npz", without_index, "is damaged"),
    ("runs.json", Path.unlink, "does not exist; restore it with git"),
    ("runs.json", cut, "is damaged"),
    ("runs.json", another_list, "is damaged"),
    ("runs.json", without_runs, "is damaged"),
    ("runs.json", odd_setting, "training.n_steps"),
]


@pytest.mark.parametrize(("name", "spoil", "words"), SPOILT, ids=lambda value: getattr(value, "__name__", None))
def test_spoilt_arrays_are_one_sentence(
    page: Path, capsys: pytest.CaptureFixture[str], name: str, spoil: object, words: str
) -> None:
    spoil(page / "arrays" / name)  # type: ignore[operator]
    assert main(["report", str(page)]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("hvae: ") and err.count("\n") == 1
    assert name in err and words in err
    assert not (page / "report").exists()


def test_a_page_without_arrays_says_how_to_make_them(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(page / "arrays")
    assert main(["report", str(page)]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
    assert "no arrays" in err and "`hvae run depth --preset PRESET`" in err and f"--to {page}`" in err


def test_a_page_has_one_preset(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(page), "--preset", "cpu"]) == 2
    assert f"no run of preset 'cpu' is there; {page} keeps demo." in capsys.readouterr().err


# -- many arrays in one file -----------------------------------------------------------------------------


def test_packed_arrays_come_back(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    arrays = {
        "a/b": rng.normal(size=(3, 1, 2)),
        "a/c": np.array([np.nan, -0.0, np.inf, 1e-300]),
        "half": rng.normal(size=5).astype(np.float16),
        "one": np.array(7),
        "none": np.zeros((0, 3)),
        "flags": np.array([True, False]),
        "words": np.array([["N(0, I)", ""], ["Sønderby", "a\nb"]]),
        "no words": np.array([], dtype=str),
        "a/d": rng.normal(size=4),
    }
    save_packed(tmp_path / "all.npz", arrays)
    found = load_packed(tmp_path / "all.npz", "")
    assert list(found) == list(arrays)
    for key, array in arrays.items():
        assert found[key].shape == array.shape and found[key].dtype.kind == array.dtype.kind
        assert found[key].tolist() == array.tolist() or found[key].tobytes() == array.tobytes()
    first = (tmp_path / "all.npz").read_bytes()
    save_packed(tmp_path / "all.npz", found)
    assert (tmp_path / "all.npz").read_bytes() == first


def test_packed_arrays_are_small_and_no_objects(tmp_path: Path) -> None:
    arrays = {f"run-{index}/rate_nats/z1": np.full(12, index / 7) for index in range(500)}
    save_packed(tmp_path / "packed.npz", arrays)
    np.savez_compressed(tmp_path / "plain.npz", **arrays)
    packed, plain = ((tmp_path / f"{name}.npz").stat().st_size for name in ("packed", "plain"))
    assert packed < plain / 5
    with pytest.raises(TypeError, match="objects"):
        save_packed(tmp_path / "odd.npz", {"odd": np.array([{}])})


@pytest.mark.parametrize("index", [b"[", b'[["a","float32",[2]]]', b'[["a","float64",[9]]]', b'[["a"]]'])
def test_an_index_that_does_not_fit_is_damage(tmp_path: Path, index: bytes) -> None:
    save_packed(tmp_path / "a.npz", {"a": np.zeros(2)})
    with np.load(tmp_path / "a.npz") as stored:
        block = stored["float64"]
    np.savez(tmp_path / "a.npz", index=np.frombuffer(index, dtype=np.uint8), float64=block)
    with pytest.raises(ConfigError, match=r"a\.npz is damaged .*; fetch it\.$"):
        load_packed(tmp_path / "a.npz", "fetch it")


def test_a_flipped_byte_anywhere_is_damage_or_harmless(tmp_path: Path) -> None:
    file, rng = tmp_path / "a.npz", np.random.default_rng(0)
    arrays = {"a/b": rng.normal(size=40), "words": np.array(["one", "two"]), "c": np.arange(9)}
    save_packed(file, arrays)
    content, n_damaged = file.read_bytes(), 0
    for place in range(0, len(content), 3):
        file.write_bytes(content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :])
        try:
            found = load_packed(file, "fetch it")
        except ConfigError as error:
            n_damaged += 1
            assert str(error).startswith(f"{file} is damaged (") and str(error).endswith("; fetch it.")
        else:
            assert all(np.array_equal(found[key], array) for key, array in arrays.items())
    assert n_damaged > len(content) / 6
