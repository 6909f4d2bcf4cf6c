"""The command line: one command does the whole job; bad input is one sentence and exit code 2."""

import dataclasses
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from hvae.errors import ConfigError
from hvae.lab import completion, experiment
from hvae.lab.cli import main, making, measuring
from hvae.lab.cli.commands import COMMANDS
from hvae.lab.config import BlocksConfig, DataConfig, ModelConfig, RunConfig
from hvae.lab.runs.run import Failure, Run
from hvae.lab.runs.survey import find_runs
from hvae.outside import from_yaml
from tests.lab.runs.made import finished

REPO = Path(__file__).parents[3]

TINY = [
    "--data.n_train=96", "--data.n_test=40", "--model.latents=[4, 2]", "--model.hidden=[[8]]",
    "--training.seeds=[0, 1]", "--training.n_steps=4", "--training.batch_size=16", "--training.log_every_steps=2",
    "--evaluation.n_images=16", "--evaluation.max_paths=4", "--evaluation.n_likelihood=8", "--evaluation.n_samples=20",
]  # fmt: skip


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def _shown_by(monkeypatch: pytest.MonkeyPatch, show: Callable[..., None]) -> None:
    """`show` in place of the page, which takes its time and has its own tests."""
    for module in (making, measuring):
        monkeypatch.setattr(module, "show", show)


RICH = {
    "autoregressive-gaussian": "gaussian", "mixture": "gaussian", "maf": "gaussian", "nsf": "gaussian",
    "autoregressive-bernoulli": "bernoulli", "autoregressive-categorical": "categorical",
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", RICH)
@pytest.mark.parametrize("role", ["both", "encoder"])
def test_every_distribution_is_trained_measured_and_reported(name: str, role: str) -> None:
    plain = RICH[name]
    distributions = [f'--model.families=["{name}"]']
    if role == "encoder":
        distributions = [f'--model.families=["{plain}"]', f'--model.encoder_families=["{name}"]']
    once = ["--training.seeds=[0]", f"--objective.n_samples={1 if plain == 'gaussian' else 2}"]
    assert main(["train", *TINY, *once, *distributions, "--training.n_steps=30"]) == 0
    (run,) = find_runs(Path("runs"))
    assert run.done and list(Path().rglob("report.html"))
    found = run.load_arrays("diagnostics")
    for key in ("rate_nats", "kl_standard_nats", "reading_nats", "information_nats", "parent_information_nats"):
        assert np.isfinite(found[f"{key}/z1"]).all() and np.isfinite(found[f"{key}/z2"]).all(), key
    assert "failed" not in found["verdict/z1"]


BAD: list[tuple[list[str], str]] = [
    (["fly"], "fly"),
    (["train", "--model.latnts=[3]"], "did you mean --model.latents?"),
    (["train", "--training.n_steps=many"], "training.n_steps is 'many'; give a whole number."),
    (["train", "--training.n_steps=-3"], "training.n_steps is -3"),
    (["train", "--training.learning_rate=-1e-3"], "training.learning_rate"),
    (["train", "--training.learning_rate={"], "--training.learning_rate: '{' cannot be read (it is not YAML"),
    (["train", "--model.latents=[]"], "model.latents is empty"),
    (["train", "--model.latents=16"], "give a list"),
    (["train", "--model.blocks=1x1,8y1"], "'8y1' is no part of the grammar; write RxN, RmS or R"),
    (["train", "--model.blocks=1x1,16m1"], "the image of 8 rows is too small for resolution 16; end at 8."),
    (["train", "--model.blocks=1x1,4m1"], "it ends at resolution 4; end at the 8 rows of the image."),
    (["train", "--model.blocks", '{"decoder": "8x1", "channels": 40}'], "the state at resolution 8 has 32; give"),
    (["train", "--model.blocks", '{"decoder": "1x1,8m1", "encoder": "8x1"}'], "do not reach resolution 1"),
    (["train", "--model.blocks", '{"width": 8}'], "model.blocks misses decoder."),
    (["train", "--model.blocks={"], "--model.blocks: '{' cannot be read (it is not YAML"),
    (["train", "--model.blocks.width=8"], "is no option; did you mean --model.blocks?"),
    (["train", "--model.blocks=8x1", "--model.latents=[3]"], "model.latents is (3,), a setting of dense layers"),
    (["train", "--model.blocks=8x1", "--data.name=digits-grey"], "take data.name digits"),
    (
        ["train", "--model.blocks=8x1", "--data.name=synthetic-binary-2"],
        "model.blocks are for images, but synthetic-binary-2 holds rows of",
    ),
    (["train", "--model.order=sideways"], "give bottom-up or bottom-up-x or mean-field or top-down"),
    (["train", "--objective.beta", '{"warmup": 3}'], "objective.beta has the keys warmup"),
    (["train", "--objective.beta.warmup_steps=3"], "is no option; did you mean --objective.beta?"),
    (["train", "--data.name=digitz"], "digitz"),
    (["train", "--data.name=missing.npz"], "missing.npz"),
    (["train", "--data.name=digits-grey"], "grey"),
    (["train", "--training.batch_size=100000"], "training.batch_size is 100000"),
    (["train", "--label=../up"], "cannot name a run"),
    (["train", "--device=abacus"], "abacus"),
    (["train", "--threads=0"], "threads"),
    (["train", "--config=missing.yaml"], "missing.yaml"),
    (["run"], "needs EXPERIMENT"),
    (["run", "nothing"], "There is no experiment 'nothing'; known are burda-tables, conjecture"),
    (["run", "../depth"], "There is no experiment"),
    (["run", "depth", "--preset=huge"], "it has demo, cpu, paper"),
    (["run", "depth", "--workers=-1"], "workers"),
    (["evaluate", "nowhere"], "nowhere is no directory"),
    (["evaluate", "nowhere", "--likelihood"], "likelihood"),
    (["evaluate", "nowhere", "--images=many"], "images"),
    (["evaluate", "nowhere", "--image=3"], "did you mean --images?"),
    (["report", "nowhere"], "nowhere is no directory"),
    (["compare", "nowhere", "elsewhere"], "nowhere is no directory, and no run in runs has this label"),
    (["compare", "nowhere"], "`hvae compare` needs RUN_B"),
    (["compare", "nowhere", "elsewhere", "--runs-dir=gone"], "no run in gone has this label"),
    (["list", "nowhere"], "runs has no runs of 'nowhere'; it holds none."),
    (["list", "../up"], "runs has no runs of '../up'"),
    (["data", "fetch"], "fetch"),
    (["data", "get"], "needs a name"),
    (["data", "get", "digitz"], "digitz"),
    (["data", "list", "digits"], "takes no name"),
]


@pytest.mark.parametrize(("arguments", "words"), BAD, ids=lambda value: " ".join(value) if type(value) is list else "")
def test_bad_usage_is_one_sentence_and_nothing_written(
    arguments: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert words in err
    assert err.startswith("hvae: ") and err.count("\n") == 1 and len(err) < 400
    assert list(tmp_path.iterdir()) == []


EMPTY = [
    (["run", "depth", "--only="], "--only is empty"),
    (["run", "depth", "--only", ""], "The argument behind --only is empty"),
    (["run", ""], "The argument behind run is empty"),
    (["evaluate", " ", "--force"], "The argument behind evaluate is empty"),
    (["train", "--runs-dir="], "--runs-dir is empty"),
    (["train", "--model.latents= "], "--model.latents is empty"),
    (["report", "mine", "--to="], "--to is empty"),
    (["list", ""], "The argument behind list is empty"),
    ([""], "The argument is empty"),
]
"""what a shell makes of a variable that is not set"""


@pytest.mark.parametrize(("arguments", "words"), EMPTY, ids=[" ".join(arguments) for arguments, _ in EMPTY])
def test_an_empty_argument_does_not_stand_for_a_default(
    arguments: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert capsys.readouterr().err == f"hvae: {words}; give it a value, or leave it out.\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a\nb", "a\rb", "\x1b[2J", "\x07"])
@pytest.mark.parametrize("command", [["train", "--config"], ["report"], ["train", "--data.name"], ["run"]])
def test_a_name_breaks_no_line_and_moves_no_terminal(
    name: str, command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command, name]) == 2
    (line,) = capsys.readouterr().err.split("\n")[:-1]
    assert line.startswith("hvae: ") and line.isprintable()


def test_a_device_that_is_not_there_is_refused_of_a_run_that_is_done_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = finished(tmp_path / "runs")
    for command in ("complete", "evaluate"):
        assert main([command, str(run.path), "--device=abacus"]) == 2
        assert "The device 'abacus' cannot be used" in capsys.readouterr().err


CONFIGS = [
    ("runs_dir: ''\n", "runs_dir in the configuration is empty"),
    ("model:\n  latnts: [3]\n", "latnts"),
    ("modle:\n  latents: [3]\n", "modle"),
    ("model: 3\n", "model is 3"),
    ("model: [3\n", "config"),
    ("training:\n  n_steps: many\n", "training.n_steps"),
    ("data:\n  name: !!python/object/apply:os.mkdir [HOSTILE]\n", "config"),
    ("objective:\n  beta:\n    class_path: subprocess.Popen\n    init_args: {args: ls}\n", "objective.beta"),
]


@pytest.mark.parametrize(("text", "words"), CONFIGS)
def test_a_bad_file_is_one_sentence(text: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "f.yaml").write_text(text)
    assert main(["train", "--config", "f.yaml"]) == 2
    err = capsys.readouterr().err
    assert words in err and err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["f.yaml"]


def test_no_traceback_from_outside(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hvae", "train", "--model.latents=[]"]
    environment = {**os.environ, "PYTHONPATH": str(REPO)}
    outcome = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment, check=False)
    assert (outcome.returncode, outcome.stdout) == (2, "")
    assert outcome.stderr.startswith("hvae: model.latents is empty")


@pytest.mark.parametrize("command", ["", "run", "train", "complete", "evaluate", "report", "list", "compare", "data"])
def test_every_command_has_help_with_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([*command.split(), "--help"])
    assert stop.value.code == 0
    out = capsys.readouterr().out
    assert re.search(rf"Example: hvae\s+{command}", out)
    assert " at 0x" not in out


def test_the_help_of_train_is_grouped_and_begins_with_the_options_of_the_first_example(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 80
    head, *groups = re.split(
        r"^(?:where and how|data|model|objective|training|evaluation):\n", text, flags=re.MULTILINE
    )
    listed = [re.findall(r"^  --([\w.-]+)", group, flags=re.MULTILINE) for group in groups]
    assert [options[0] for options in listed] == [
        "label", "data.name", "model.latents", "objective.beta", "training.n_steps", "evaluation.n_images",
    ]  # fmt: skip
    assert listed[2][1] == "model.hidden" and "--config FILE" in head
    sections = {field.name: getattr(RunConfig(), field.name) for field in dataclasses.fields(RunConfig)}
    knobs = {f"{name}.{knob.name}" for name, section in sections.items() for knob in dataclasses.fields(section)}
    assert knobs == {option for options in listed for option in options if "." in option}
    for default in ('(default: ["gaussian"])', "(default: 0.002)", "(default: false)", "also written ladder"):
        assert default in " ".join(text.split())


def test_a_ladder_is_the_top_down_order(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From the command line, from files and from Python: one digest, so one directory."""
    top_down = RunConfig.from_dict({"model": {"order": "top-down"}})
    (tmp_path / "f.yaml").write_text("model: {order: ladder}\n")
    (tmp_path / "f.json").write_text('{"model": {"order": "ladder"}}')
    for arguments in (["--model.order=ladder"], ["--config=f.yaml"], ["--config=f.json"]):
        assert _sections(_printed_config(capsys, *arguments)) == top_down
    assert ModelConfig(order="ladder").order == "top-down"
    for ladder in (RunConfig(model=ModelConfig(order="ladder")), RunConfig.from_json('{"model": {"order": "ladder"}}')):
        assert ladder == top_down and ladder.digest == top_down.digest and "ladder" not in ladder.to_json()
        assert Run.directory(tmp_path, "own", "mine", ladder) == Run.directory(tmp_path, "own", "mine", top_down)


def _printed_config(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    with pytest.raises(SystemExit) as stop:
        main(["train", *arguments, "--print_config"])
    assert stop.value.code == 0
    values = from_yaml(capsys.readouterr().out)
    assert isinstance(values, dict)
    return values


def _sections(values: dict[str, Any]) -> RunConfig:
    return RunConfig.from_dict({name: values[name] for name in json.loads(RunConfig().to_json())})


def test_the_flags_are_the_configuration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _sections(_printed_config(capsys)) == RunConfig()
    flags = ["--model.latents", "[16,8]", "--model.hidden=[[]]", "--objective.beta", '{"warmup_steps": 600}']
    flags += ["--training.n_steps", "300", "--training.learning_rate=1e-3", "--data.name=007"]
    values = _printed_config(capsys, *flags)
    config = _sections(values)
    assert config.model.latents == (16, 8) and config.training.learning_rate(0) == 1e-3
    assert config.objective.beta(300) == 0.5 and config.data.name == "007"
    (tmp_path / "f.yaml").write_text(yaml.safe_dump(values))
    assert _sections(_printed_config(capsys, "--config=f.yaml")) == config
    assert _sections(_printed_config(capsys, "--config=f.yaml", "--training.n_steps=301")).training.n_steps == 301


def _refused_files() -> dict[str, tuple[dict[str, Any], str]]:
    source = np.random.default_rng(0)
    counts, images = source.poisson(0.5, (80, 23)), source.random((60, 4, 5))
    return {
        "counts as bytes": ({"x": counts.astype(np.uint8)}, "holds whole numbers from 0 to"),
        "counts": ({"x": counts}, "holds whole numbers from 0 to"),
        "digits:threshold": ({"x": source.integers(0, 17, (60, 8, 8)).astype(np.uint8)}, "whole numbers from 0 to 16"),
        "masks": ({"x": 255 * (images > 0.5)}, "holds two values only, 0 and 255"),
        "blank": ({"x": np.zeros((50, 4, 5))}, "All images of blank.npz are equal"),
        "blank:threshold": ({"x": images / 3}, "All images of blank.npz:threshold are equal"),
        "blank test": ({"train": images, "test": np.zeros((30, 4, 5))}, "All images of blank test.npz are equal"),
        "not finite": (
            {"x": np.where(images > 0.99, np.inf, images)},
            "that are not finite in float32, the first in item",
        ),
        "transparent": ({"x": source.random((60, 4, 5, 4))}, "colours without transparency, x[..., :3], or rows"),
        "films": ({"x": source.random((60, 7, 4, 5))}, "axes that no net reads (items stand first); give rows"),
        "scales": ({"train": images, "test": 255 * images[:30]}, "times as large"),
    }


@pytest.mark.parametrize("name", _refused_files())
@pytest.mark.parametrize("observation", ["bernoulli", "gaussian"])
def test_a_file_of_unknown_meaning_is_refused_before_training(
    name: str, observation: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arrays, words = _refused_files()[name]
    stem, colon, way = name.partition(":")
    np.savez(tmp_path / f"{stem}.npz", **arrays)
    arguments = TINY[2:]  # as many items as there are
    assert main(["train", f"--data.name={stem}.npz{colon}{way}", f"--model.observation={observation}", *arguments]) == 2
    err = capsys.readouterr().err
    assert words in err and err.startswith("hvae: ") and err.count("\n") == 1 and len(err) < 400
    assert [path.name for path in tmp_path.iterdir()] == [f"{stem}.npz"]
    config = RunConfig(data=DataConfig(f"{stem}.npz{colon}{way}"), model=ModelConfig(observation=observation))
    with pytest.raises(ConfigError, match=re.escape(words)):  # and from Python
        completion.check([config])


@pytest.mark.parametrize("last", [False, True])
def test_colour_images_of_ones_own(last: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = np.random.default_rng(0).integers(0, 256, (200, 3, 5, 6), dtype=np.uint8)
    np.savez(tmp_path / "my.npz", x=np.moveaxis(images, 1, -1) if last else images, ids=np.arange(200))
    colour = ["--model.observation=gaussian", "--model.nets=[convolutional, mlp]", "--model.channels=[2]"]
    assert main(["train", "--data.name=my.npz", *TINY[:1], "--data.n_test=20", *TINY[2:], *colour]) == 0
    err = capsys.readouterr().err
    assert "my.npz: 96 training and 20 test colour images of 5 x 6, colour values, " in err
    assert (
        "Bytes are divided by 255. Colours and pixels of an item stand in one row of 90 numbers. A random tenth, 20 "
        in (err)
    )
    assert "96 of 180 training items are drawn at random. Of its arrays ids is not used." in err
    (run,) = find_runs(tmp_path / "runs")
    assert (run.path / "figures" / "resampling-1.png").exists()
    assert run.load_arrays("images")["image_shape"].tolist() == ([5, 6, 3] if last else [3, 5, 6])


BLOCKS = [
    "--data.n_train=96", "--data.n_test=40", '--model.blocks={"decoder": "1x1,2m1,4m2,8m4", "width": 8, "channels": 2}',
    '--objective.beta={"warmup_steps": 2}', *TINY[4:],
]  # fmt: skip


@pytest.mark.slow
def test_blocks_are_trained_measured_further_and_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A residual stack from the command line: table, figures and page; every measurement is made, or says why not."""
    assert main(["train", *BLOCKS]) == 0
    out = capsys.readouterr().out
    assert "digits-threshold top-down 1x1,2m1,4m2,8m4" in out and "At its last step β was 1" in out
    report = Path(out.rpartition("Report: ")[2].strip())
    assert "<html" in report.read_text() and {"z1", "z4"} <= set(out.split())
    (run,) = find_runs(tmp_path / "runs")
    assert run.done and (run.path / "figures" / "resampling-1.png").exists()
    found = run.load_arrays("diagnostics")
    assert found["layers"].tolist() == ["z1", "z2", "z3", "z4"] and found["units"].tolist() == [2] * 4
    assert str(found["order"]) == "top-down" and not found["bottom_up"]
    for name in found["layers"]:
        for key in ("rate_nats", "reading_nats", "information_nats", "knockout_encoder_nats", "kl_prior_nats"):
            assert found[f"{key}/{name}"].shape == (2, 3) and np.isfinite(found[f"{key}/{name}"]).all(), key
        assert found[f"rate_unit_nats/{name}"].shape == (2, 2, 3)
    assert len(run.read_metrics()[-1]["rate_unit_nats/z2"][0]) == 2

    small = ["--images=6", "--samples=20", "--draws=2", "--temperatures=3", "--chains=2", "--leapfrog=1"]
    assert main(["evaluate", str(run.path), "--likelihood=annealed,exact", "--gradients=1,2", *small]) == 0
    err = capsys.readouterr().err
    assert "Measuring annealed, exact, gradients" in err and "has no exact numbers: " in err
    for word in ("annealed", "gradients"):
        assert run.load_arrays(word)["refused"].tolist() == ["", ""], word
    assert main(["report", str(run.path)]) == 0
    assert main(["list"]) == 0
    assert "top-down 1x1,2m1,4m2,8m4" in capsys.readouterr().out.replace("\n", " ")


def test_blocks_are_compared_with_dense_layers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = ["--training.seeds=[0]", "--training.n_steps=2"]
    assert main(["train", *BLOCKS, *one, "--label=blocks"]) == main(["train", *TINY, *one, "--label=dense"]) == 0
    capsys.readouterr()
    assert main(["compare", "dense", "blocks"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "a: --model.blocks null" in out and '"decoder": "1x1,2m1,4m2,8m4"' in out and "z3, z4 only in b" in out
    assert out.startswith("blocks instead of dense: ") and "The inference orders differ" in out


def test_the_flag_of_blocks_is_its_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = "1x1,2m1,4m2,8m4"
    values = _printed_config(capsys, f"--model.blocks={text}")
    assert values["model"]["blocks"] == text and "blocks" not in _printed_config(capsys)["model"]
    config = _sections(values)
    for told in (values, {"model": {"blocks": text}}, json.loads(config.to_json())):
        (tmp_path / "f.yaml").write_text(yaml.safe_dump(told))
        assert _sections(_printed_config(capsys, "--config=f.yaml")) == config


def test_the_help_of_blocks_has_every_key_of_its_table(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    for knob in dataclasses.fields(BlocksConfig):
        assert re.search(rf"[ .]{knob.name}( \([^)]*\))?: ", text), knob.name
    assert "width (32): channels of the state." in text


def test_train_report_compare_evaluate_on_ones_own_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A newcomer's hour: one command trains, measures and reports; the same command again does nothing."""
    images = np.random.default_rng(0).random((400, 6, 6)) < 0.3
    np.savez(tmp_path / "my.npz", x=images.astype(np.uint8))
    arguments = ["train", "--data.name", "my.npz", *TINY]
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert "z1" in out and "z2" in out
    (run,) = find_runs(tmp_path / "runs")
    report = Path(out.rpartition("Report: ")[2].strip())
    assert run.done and "<html" in report.read_text()

    before = {path: path.stat().st_mtime_ns for path in (run.path / "evaluation").iterdir()}
    assert main(arguments) == 0
    assert "done already" in capsys.readouterr().err
    assert before == {path: path.stat().st_mtime_ns for path in (run.path / "evaluation").iterdir()}

    assert main([*arguments, "--training.n_steps=6"]) == 0
    one, two = find_runs(tmp_path / "runs")
    capsys.readouterr()
    assert main(["compare", str(one.path), str(two.path)]) == 0
    compared = capsys.readouterr().out
    assert compared.startswith("training.n_steps 6 instead of 4: ") and "  a: --training.n_steps 4\n" in compared
    assert main(["list"]) == 0
    listed = capsys.readouterr().out
    assert (
        listed.startswith("Your runs in runs, newest first\n  my bottom-up 4-2 (my-bott") and listed.count("kB\n") == 2
    )
    assert max(map(len, listed.splitlines())) <= 80
    assert main(["compare", "my bottom-up 4-2", one.path.name]) == 2
    assert "2 runs are called 'my bottom-up 4-2'; give the directory of one: " in capsys.readouterr().err
    assert main(["evaluate", str(one.path)]) == 0
    assert "--force" in capsys.readouterr().err
    assert main(["evaluate", str(one.path), "--force"]) == 0
    assert Run.open(one.path).done
    assert one.load_arrays("likelihood")["until_se"] == 0.1
    for said in ("Measuring", "--force"):  # another error is measured, the same one is there
        capsys.readouterr()
        assert main(["evaluate", str(one.path), "--until-se=0.3"]) == 0
        assert said in capsys.readouterr().err and one.load_arrays("likelihood")["until_se"] == 0.3

    code = (
        "import sys; from hvae.lab.cli import main; sys.exit(main(['report', sys.argv[1]]) or 'torch' in sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": str(REPO)}
    subprocess.run(
        [sys.executable, "-c", code, str(one.path)], cwd=tmp_path, env=environment, check=True, capture_output=True
    )


BAD_MEASUREMENTS = [
    (["--likelihood=fly"], "--likelihood has the word 'fly'; give one or more of importance, annealed, exact, gap."),
    (["--likelihood=exact,"], "--likelihood has the word ''"),
    (["--likelihood=annealed", "--temperatures=0"], "--temperatures is 0; give at least 1."),
    (["--likelihood=annealed", "--chains=-1"], "--chains is -1; give at least 1."),
    (["--likelihood=gap", "--samples=0"], "--samples is 0; give at least 1."),
    (["--likelihood=gap", "--draws=1"], "--draws is 1; give at least 2."),
    (["--likelihood=exact", "--images=1"], "--images is 1; give at least 2."),
    (["--images=3"], "go with --likelihood"),
    *(([f"--until-se={bad}"], "of 1e-09 to 1e+06 nats, such as 0.1") for bad in ("0", "-0.1", "1e-300", "1e7")),
    *(
        (["--likelihood=annealed", f"--{knob}={10**23}"], f"--{knob} is {10**23}; give at most 10000000.")
        for knob in ("images", "samples", "chains", "temperatures", "leapfrog", "draws")
    ),
    (["--gradients=1,10000001"], "--gradients is (1, 10000001); give at most 10000000."),
    *(([f"--gradients={bad}"], "whole numbers with commas") for bad in ("²", "9" * 30)),
    (["--device=cpu:5"], "The device 'cpu:5' cannot be used"),
    *(([f"--until-se={bad}"], '"until_se": Expected a float') for bad in ("much", "nan", "inf")),
    (["--likelihood=exact", "--until-se=0.1"], "--until-se goes with --likelihood importance"),
    (["--likelihood=importance", "--images=3"], "go with --likelihood"),
    (["--likelihood=exact", "--device=abacus"], "The device 'abacus' cannot be used"),
    (["--device=abacus"], "The device 'abacus' cannot be used"),
    (["--likelihood=exact"], "has no checkpoint"),
]


@pytest.mark.parametrize(
    ("arguments", "words"), BAD_MEASUREMENTS, ids=[" ".join(arguments) for arguments, _ in BAD_MEASUREMENTS]
)
def test_a_bad_measurement_is_one_sentence_and_nothing_written(
    arguments: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where a run stands that was never trained."""
    run = Run.create_or_open(tmp_path / "runs", "own", "mine", RunConfig.from_dict({"training": {"n_steps": 4}}))
    before = {path.name for path in run.path.iterdir()}
    assert main(["evaluate", str(run.path), *arguments]) == 2
    out, err = capsys.readouterr()
    (sentence,) = (line for line in err.splitlines() if not line.startswith("Measuring"))
    assert out == "" and sentence.startswith("hvae: ") and words in sentence and len(sentence) < 400
    assert {path.name for path in run.path.iterdir()} == before


def test_the_gap_of_blocks_is_refused_before_anything_is_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Alone, and beside words that could be measured. One of a folder's runs is enough."""
    for blocks in (None, "1x1,8m1"):
        settings = {"training": {"n_steps": 4}} | ({} if blocks is None else {"model": {"blocks": blocks}})
        run = Run.create_or_open(tmp_path / "runs", "own", f"with {blocks}", RunConfig.from_dict(settings))
    before = {path: path.stat().st_mtime_ns for path in run.path.parent.rglob("*")}
    for place, words in ((run.path, "gap"), (run.path, "importance,gap"), (run.path.parent, "annealed,gap")):
        assert main(["evaluate", str(place), f"--likelihood={words}"]) == 2
        out, err = capsys.readouterr()
        assert out == "" and err.startswith("hvae: The gap by layer refines q for every image") and err.count("\n") == 1
        assert "takes too long in a stack of blocks; take annealed bounds with a small budget" in err
    assert {path: path.stat().st_mtime_ns for path in run.path.parent.rglob("*")} == before


MEASUREMENT = ["--images=6", "--temperatures=5", "--chains=26", "--leapfrog=1", "--draws=2", "--samples=30"]


def test_a_trained_run_is_measured_further(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three words in one command; the same command again does nothing; --force and other settings measure anew."""
    np.savez(tmp_path / "my.npz", x=np.random.default_rng(0).standard_normal((400, 5)).astype(np.float32))
    linear = [flag for flag in TINY if "hidden" not in flag]
    linear += ["--model.hidden=[[]]", "--model.observation=gaussian", "--model.latent_variance=fixed"]
    with monkeypatch.context() as quick:
        _shown_by(quick, lambda *arguments: None)
        assert main(["train", "--data.name=my.npz", *linear]) == 0
    (run,) = find_runs(tmp_path / "runs")
    arguments = ["evaluate", str(run.path), "--likelihood", "annealed,exact,gap", *MEASUREMENT]

    def written() -> dict[str, int]:
        return {path.stem: path.stat().st_mtime_ns for path in (run.path / "evaluation").iterdir()}

    before = written()
    capsys.readouterr()
    assert main(arguments) == 0
    out, err = capsys.readouterr()
    assert "Measuring annealed, exact, gap" in err and "The gap between" in out
    first = written()
    assert first.keys() - before.keys() == {"annealed", "exact", "gap"} and run.done
    assert {name: first[name] for name in before} == before and len(run.read_provenance()) == 2
    page = (run.path / "report.html").read_text()
    assert all(f'id="figure-gap-{name}"' in page for name in ("curves", "layers", "causes"))
    assert (run.path / "tables" / "gap.csv").is_file()

    _shown_by(monkeypatch, lambda *arguments: None)  # the page was seen, and takes its time
    assert main(arguments) == 0
    assert "--force" in capsys.readouterr().err and written() == first
    assert main([*arguments[:3], "exact", *MEASUREMENT, "--force"]) == 0
    second = written()
    assert {name for name in second if second[name] != first[name]} == {"exact"}
    assert main(["evaluate", str(run.path), "--likelihood=exact,annealed", *MEASUREMENT, "--leapfrog=2"]) == 0
    third = written()
    assert {name for name in third if third[name] != second[name]} == {"annealed"} and run.done
    assert main(["evaluate", str(run.path), "--likelihood=importance,exact", *MEASUREMENT, "--force"]) == 0
    fourth = written()
    assert {name for name in fourth if fourth[name] != third[name]} == {*before, "exact"} - {
        "halfway",
        "start",
    } and run.done


def test_what_a_stack_refuses_is_said_stored_and_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    bernoulli = ["--model.families=[bernoulli]", "--objective.n_samples=2"]
    with monkeypatch.context() as quick:
        _shown_by(quick, lambda *arguments: None)
        assert main(["train", *TINY, *bernoulli, "--label=bernoulli"]) == 0
    (run,) = find_runs(tmp_path / "runs")
    capsys.readouterr()
    assert main(["evaluate", str(run.path), "--likelihood=annealed", *MEASUREMENT]) == 2
    out, err = capsys.readouterr()
    (sentence,) = (line for line in err.splitlines() if line.startswith("hvae: "))
    assert sentence.startswith("hvae: bernoulli has no annealed numbers: z1 and z2 are discrete") and run.done
    said = sentence.partition("numbers: ")[2]
    assert said in str(run.load_arrays("annealed")["refused"][0])
    flat = " ".join(out.split())
    assert f"annealing refused: {said}" in flat and "annealing refused" in (run.path / "report.html").read_text()
    _shown_by(monkeypatch, lambda *arguments: None)
    assert main(["evaluate", str(run.path), "--likelihood=annealed,exact", *MEASUREMENT]) == 0  # the other is done
    assert sentence in capsys.readouterr().err and str(run.load_arrays("exact")["reference"]) == "DiscreteChain"
    assert main(["evaluate", str(run.path), "--likelihood=annealed,exact", *MEASUREMENT]) == 0  # and stays so


EVERY_WAY = [(order, kind) for order in ("bottom-up-x", "mean-field", "top-down-shared")
             for kind in ("gaussian", "bernoulli", "categorical")]  # fmt: skip
QUICK = {("bottom-up-x", "categorical"), ("top-down-shared", "bernoulli")}


@pytest.mark.parametrize(
    ("order", "kind"),
    [pytest.param(*way, marks=() if way in QUICK else pytest.mark.slow, id="-".join(way)) for way in EVERY_WAY],
)
def test_every_order_is_trained_measured_in_every_way_and_reported(
    order: str, kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Annealing refuses Bernoulli and categorical units, in a sentence; all else has its numbers."""
    values = np.random.default_rng(0).standard_normal((400, 5))
    real = kind == "gaussian"
    np.savez(tmp_path / "my.npz", x=(values if real else values > 0).astype(np.float32))
    flags = [flag for flag in TINY if "hidden" not in flag] + [
        "--training.n_steps=30",
        "--training.seeds=[0]",
        f"--model.order={order}",
    ]
    flags += ["--model.hidden=[[]]", f"--model.families=[{kind}]", f"--objective.n_samples={1 if real else 2}"]
    flags += ["--model.observation=gaussian", "--model.latent_variance=fixed"] if real else ["--model.n_classes=3"]
    with monkeypatch.context() as quick:
        _shown_by(quick, lambda *arguments: None)
        assert main(["train", "--data.name=my.npz", *flags, f"--label={order}"]) == 0
    (run,) = find_runs(tmp_path / "runs")
    assert main(["evaluate", str(run.path), "--likelihood=importance,annealed,exact,gap", *MEASUREMENT, "--force"]) == 0
    assert order in capsys.readouterr().out and "<html" in (run.path / "report.html").read_text()
    exact, gap = run.load_arrays("exact"), run.load_arrays("gap")
    assert list(exact["gaps_refused"]) == [""] and str(run.load_arrays("diagnostics")["order"]) == order
    layers = exact["layer_gap_nats/z1"][:, 1] + exact["layer_gap_nats/z2"][:, 1]
    np.testing.assert_allclose(layers, exact["total_gap_nats"][:, 1], atol=1e-6)
    assert all(np.isfinite(gap[f"layer_gap_nats/{name}"]).all() for name in ("z1", "z2"))


def test_a_run_in_other_hands_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "t.yaml").write_text("training: {n_steps: 4}\n")
    config = RunConfig.from_dict({"training": {"n_steps": 4}})
    run = Run.create_or_open(tmp_path / "runs", "own", "mine", config)
    with run.lock():
        assert main(["train", "--config=t.yaml", "--label=mine"]) == 75
        assert f"is held by process {os.getpid()} on " in capsys.readouterr().err
    assert not (run.path / "metrics.jsonl").exists()


def test_an_unwritable_root_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "runs").write_text("a file in the way")
    assert main(["train", *TINY]) == 2
    err = capsys.readouterr().err
    assert "cannot be written" in err and err.count("\n") == 1


def test_an_experiment_runs_its_missing_runs_and_names_the_failed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from types import SimpleNamespace

    from hvae.lab import sweep

    tiny = {"data": {"n_train": 96, "n_test": 40}, "training": {"n_steps": 2, "batch_size": 16, "seeds": [0]}}
    configs = {
        label: RunConfig.from_dict({**tiny, "model": {"latents": [w], "hidden": [[4]]}})
        for label, w in [("a", 2), ("b", 3)]
    }
    monkeypatch.setattr(experiment, "find", lambda name: SimpleNamespace(PRESETS=("demo",), configs=lambda p: configs))
    _shown_by(monkeypatch, lambda directory, preset="": print("shown", directory.name, preset))
    seen: list[Sequence[Run]] = []

    def failing(runs: Sequence[Run], **options: object) -> list[Failure]:
        seen.append(runs)
        runs[0].mark_done()
        return [Failure(run, "the process was killed by SIGKILL", -9) for run in runs if not run.done]

    monkeypatch.setattr(sweep, "sweep", failing)
    assert main(["run", "trial"]) == 1
    out, err = capsys.readouterr()
    assert out == "shown trial demo\n"
    assert "failed: b (exit code -9): the process was killed by SIGKILL" in err and "tries them again" in err
    assert [run.label for run in seen[0]] == ["a", "b"]
    find_runs(tmp_path / "runs")[1].mark_done()
    assert main(["run", "trial"]) == 0
    assert "all 2 runs are done already" in capsys.readouterr().err and len(seen) == 1


def test_what_is_nearly_right_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "near.yaml"
    file.write_text("training:\n  n_stepz: 3\n")
    for arguments, remedy in (
        (["train", "--config", str(file)], "unknown key training.n_stepz; did you mean training.n_steps?"),
        (["train", "--model.latents", "[16,", "8]"], "a list is one argument, in quotes"),
    ):
        assert main(arguments) == 2
        (sentence,) = capsys.readouterr().err.splitlines()
        assert remedy in sentence
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert capsys.readouterr().out.startswith("hvae ")


def test_an_experiments_measurements_are_measured_of_every_run_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is done is not done again: neither a run nor a measurement; a lost or other measurement is measured
    without training."""
    from types import SimpleNamespace

    from hvae.lab import sweep

    np.savez(tmp_path / "my.npz", x=np.random.default_rng(0).standard_normal((60, 4)).astype(np.float32))
    config = RunConfig.from_dict(
        {
            "data": {"name": "my.npz"},
            "model": {"latents": [2], "hidden": [[]], "observation": "gaussian", "latent_variance": "fixed"},
            "training": {"n_steps": 2, "batch_size": 8, "seeds": [0]},
            "evaluation": {"n_images": 8, "max_paths": 4, "n_likelihood": 4, "n_samples": 4},
        }
    )
    measurements = {"demo": {"exact": {"images": 6}}}
    trial = SimpleNamespace(PRESETS=("demo",), configs=lambda preset: {"linear": config}, MEASUREMENTS=measurements)
    monkeypatch.setattr(experiment, "find", lambda name: trial)
    _shown_by(monkeypatch, lambda *arguments: None)
    worked: list[str] = []

    def here(runs: Sequence[Run], *, task: Any, settled: Any, **options: object) -> list[Failure]:
        for run in runs:
            if not settled(run):
                worked.append(run.label)
                task(run, progress=False)
        return []

    monkeypatch.setattr(sweep, "sweep", here)
    assert main(["run", "trial"]) == 0
    (run,) = find_runs(tmp_path / "runs")
    exact, trained = run.path / "evaluation" / "exact.npz", (run.path / "checkpoints", run.path / "DONE")
    stamps = [path.stat().st_mtime_ns for path in trained]
    assert int(run.load_arrays("exact")["n_images"]) == 6 and worked == ["linear"]
    assert main(["run", "trial"]) == 0 and worked == ["linear"]
    assert "all 1 runs are done already" in capsys.readouterr().err
    exact.unlink()
    assert main(["run", "trial"]) == 0 and worked == ["linear"] * 2 and exact.exists()
    measurements["demo"]["exact"]["images"] = 5
    assert main(["run", "trial"]) == 0 and worked == ["linear"] * 3
    assert int(run.load_arrays("exact")["n_images"]) == 5
    assert [path.stat().st_mtime_ns for path in trained] == stamps


@pytest.mark.parametrize("content", ["data: {name: café}".encode("latin-1"), "seed: 1".encode("utf-16"), b"\xff"])
def test_a_configuration_that_is_not_utf_8_is_one_sentence(
    content: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "my.yaml"
    file.write_bytes(content)
    assert main(["train", "--config", str(file)]) == 2
    assert "is not UTF-8 text" in capsys.readouterr().err


SETTINGS = [
    (b"\xef\xbb\xbfdata: {}", "byte order mark"),
    (b"data: {name: a\0b}", "NUL"),
    (b"x" * 70000, "more than 65536 bytes"),
    (b"[" * 60000, "within each other"),
    (b"a: &a [*a]", "anchor or alias"),
    (b"training: {n_steps: 3, n_steps: 4}", "'n_steps' stands twice"),
    (b"training: {n_steps: 1:30}", "training.n_steps is '1:30'; give a whole number"),
    (b"training: {n_steps: 1_000}", "training.n_steps is '1_000'; give a whole number"),
    (b"model: {standardise: no}", "model.standardise is 'no'; give true or false"),
    (b"training: {n_steps: 1e3}", "training.n_steps is 1000.0; give a whole number"),
    (b"training: {clip_norm: .inf}", "give a finite number"),
    (b"[1, 2]", "holds no table of settings"),
    (b"", "holds no table of settings"),
    (b"data: {name: no}", "'no' is not the name of a data set"),
    (b"runs_dir: /elsewhere", "outside the working folder; give it as --runs-dir /elsewhere"),
    (b"runs_dir: a/../../b", "outside the working folder"),
    (b"threads: 1000000", "threads"),
    (b"device: meta", "The device 'meta' cannot be used"),
    (b"data_dir: ~nobody-of-this-name\ndata: {name: mnist-grey}", "begins with the home of nobody"),
]


@pytest.mark.parametrize(("content", "words"), SETTINGS)
def test_a_file_of_settings_passes_the_gate(
    content: bytes, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "f.yaml").write_bytes(content)
    assert main(["train", "--config", "f.yaml"]) == 2
    err = capsys.readouterr().err
    assert words in err and err.count("\n") == 1 and [path.name for path in tmp_path.iterdir()] == ["f.yaml"]


def test_a_folder_of_runs_outside_is_typed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "f.yaml").write_text("runs_dir: ../elsewhere\n")
    assert _printed_config(capsys, "--config=f.yaml", "--runs-dir=here")["runs_dir"] == "here"
    arguments = ["train", "--config=f.yaml", "--runs-dir", "../elsewhere", "--label=../up"]
    assert main(arguments) == 2 and "cannot name a run" in capsys.readouterr().err
    (tmp_path / "f.yaml").write_text(f"runs_dir: {tmp_path / 'below'}\n")
    assert main(["train", "--config=f.yaml", "--label=../up"]) == 2 and "cannot name a run" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["caf\udce9", "a\0b"])
def test_an_argument_that_is_no_text_is_one_sentence(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", f"--data.name={text}"]) == 2
    assert "An argument cannot be read" in capsys.readouterr().err


def test_hvae_alone_shows_what_it_can_do_and_ones_own_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main([]) == 0
    out, err = capsys.readouterr()
    assert err == "" and list(tmp_path.iterdir()) == []
    assert max(map(len, out.splitlines())) <= 80 and "Your runs in runs: none yet" in out
    assert all(f"hvae {command} " in out for command in COMMANDS)
    Run.create_or_open(tmp_path / "runs", "own", "my stack", RunConfig())
    assert main([]) == 0
    assert "  my stack " in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["hvae"])
    assert main() == 0 and "  my stack " in capsys.readouterr().out


def test_a_renamed_run_is_listed_reported_and_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["train", *TINY, "--training.seeds=[0]", "--label=mine"]
    with monkeypatch.context() as quick:
        _shown_by(quick, lambda *arguments: None)
        assert main(arguments) == 0
        (run,) = find_runs(tmp_path / "runs")
        run.path.rename(run.path.with_name("best so far"))
        (tmp_path / "link").symlink_to(run.path.with_name("best so far"), target_is_directory=True)
        capsys.readouterr()
        assert main(arguments) == 0
        assert "best so far is done already" in capsys.readouterr().err
        assert main(["evaluate", "mine", "--force"]) == 0 and main(["evaluate", "link"]) == 0
    assert [place.name for place in (tmp_path / "runs" / "own").iterdir()] == ["best so far"]
    capsys.readouterr()
    for text in ("mine", "link", "own"):
        monkeypatch.setattr("hvae.analysis.report.write_report", lambda study, directory: directory)
        assert main(["report", text]) == 0
        assert capsys.readouterr().out.startswith("mine\nlayer  units")
    assert main(["list", "own"]) == 0
    assert "  mine " in capsys.readouterr().out


def test_run_says_at_once_what_it_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from hvae.lab import completion

    class Reached(BaseException):
        """Training would begin here."""

    def reached(*arguments: object) -> None:
        raise Reached

    monkeypatch.setattr(completion, "check", lambda *arguments: None)
    monkeypatch.setattr(completion, "said_before", lambda *arguments: [])
    monkeypatch.setattr(Run, "create_or_open", reached)
    with pytest.raises(Reached):
        main(["run", "depth", "--workers=2"])
    first, second, third = capsys.readouterr().err.splitlines()
    assert first == "depth, preset demo: 15 runs of 4 seeds in runs/depth, 0 done."
    assert second == "About 2 min with 2 workers; a line as each run ends."
    assert third == "Ctrl-C saves and stops; the same command goes on from there."
    with pytest.raises(Reached):
        main(["run", "cures", "--workers=1"])
    assert "How long it takes was never recorded; with 1 worker" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_what_does_not_train_loads_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys; from hvae.lab.cli import main; from hvae.lab import experiment as e; from pathlib import Path; "
        "main([]); main(['list']); e.plan('depth', 'demo', e.Means(Path('runs'), None, 'cpu', 1, 1)); "
        "sys.exit('torch' in sys.modules)"
    )
    Run.create_or_open(tmp_path / "runs", "own", "mine", RunConfig())
    environment = {**os.environ, "PYTHONPATH": str(REPO)}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, check=True, capture_output=True)


@pytest.mark.parametrize("columns", ["40", "80", "100", "300"])
def test_the_list_of_data_fits_the_terminal(
    columns: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from hvae import data

    monkeypatch.setenv("COLUMNS", columns)
    records = [
        data.Record(name, entry.description, entry.image_shape, entry.n_train, entry.n_test, "present")
        for name, entry in data.names.CATALOGUE.items()
    ]
    monkeypatch.setattr(data, "catalogue", lambda folder: records)
    assert main(["data", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= min(max(int(columns), 80), 120)
    assert all(any(line.startswith(f"  {record.name} ") for line in lines) for record in records)
    assert sum("8x8 handwritten digits" in line for line in lines) == 1


def test_the_recorded_times_are_those_of_the_pages() -> None:
    """Where every session of a page of results was timed, the table has their sum, in minutes of one core."""
    times = json.loads((REPO / "experiments" / "times.json").read_text())
    checked = []
    for name, presets in times.items():
        page = REPO / "experiments" / "results" / name / "README.md"
        if "cpu" not in presets or not page.exists():
            continue
        parts = re.split(r"^- ", page.read_text().partition("## What made it")[2], flags=re.MULTILINE)[1:]
        took = [re.search(r"took: ([\d.]+) min", part) for part in parts]
        if all(took):
            checked.append(name)
            assert presets["cpu"] == pytest.approx(sum(float(found[1]) for found in took if found), rel=0.02), name
    assert len(checked) >= 4
