"""What can be written after `hvae`: commands, their options, their help.

Every knob of `RunConfig` is a flag, with the string below the field as its help. jsonargparse reads
flags and files, prints configurations and help; whether a value fits is for `RunConfig.from_dict`.
"""

import ast
import contextlib
import dataclasses
import difflib
import importlib.metadata
import inspect
import json
import re
from collections.abc import Sequence
from types import UnionType
from typing import Any, NoReturn, get_args, get_type_hints

import yaml
from jsonargparse import ArgumentParser
from jsonargparse.typing import NonNegativeInt, PositiveInt

from hvae.errors import ConfigError
from hvae.lab.config import RunConfig
from hvae.lab.strict import describe


class Parser(ArgumentParser):
    """Says what is wrong in one sentence, by a `ConfigError`."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        sentence = " ".join(re.sub(r"<class '(\w+)'>", r"\1", message).split()).replace("Parser key", "option")
        if "unrecognized arguments" in sentence:
            sentence += "; a list is one argument, in quotes, as in --model.latents '[16, 8, 4]'"
        unknown = re.search(r"Subcommand '(\w+)' does not accept option '([^']+)'", sentence)
        if unknown:  # a key of a --config file
            sections = get_type_hints(RunConfig).items()
            knobs = [f"{section}.{field.name}" for section, kind in sections for field in dataclasses.fields(kind)]
            close = difflib.get_close_matches(unknown[2], knobs, n=1)
            sentence = f"The configuration has an unknown key {unknown[2]}"
            sentence += f"; did you mean {close[0]}?" if close else f"; `hvae {unknown[1]} --help` lists the keys"
            raise ConfigError(f"{sentence.rstrip('.?')}{'?' if close else '.'}")
        raise ConfigError(f"{sentence.rstrip('.')}. See `{_help_of(self)}`.")

    def refuse_unknown(self, arguments: Sequence[str]) -> None:
        """jsonargparse takes --objective.beta.warmup_steps 3 for --objective.beta 3; here it is no option."""
        known = [flag for action in self._actions for flag in action.option_strings]
        for flag in (argument.partition("=")[0] for argument in arguments if argument.startswith("--")):
            if flag not in known:
                close = difflib.get_close_matches(flag, known, n=1)
                remedy = f"did you mean {close[0]}?" if close else f"see `{_help_of(self)}`."
                raise ConfigError(f"{flag} is no option; {remedy}")


def _help_of(parser: ArgumentParser) -> str:
    return f"{parser.prog} --help".replace(" [options]", "")


def parse(arguments: Sequence[str]) -> tuple[str, Any]:
    """The command and its options. Raises `ConfigError` for what cannot be read."""
    parser, commands = build()
    if arguments and arguments[0] in commands:
        commands[arguments[0]].refuse_unknown(arguments[1:])
    try:
        chosen = parser.parse_args(list(arguments))
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"The configuration file is not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8."
        ) from None
    return chosen.command, chosen[chosen.command]


def build() -> tuple[Parser, dict[str, Parser]]:
    """The parser, and the parser of each command by its name."""
    parser = Parser(
        prog="hvae",
        description="Say which stochastic layer of a deep VAE has collapsed, why, and what it costs (in nats).",
        epilog="Example: hvae run depth --preset demo",
        version=importlib.metadata.version("hvae"),
    )
    subcommands = parser.add_subcommands(dest="command", required=True)
    commands: dict[str, Parser] = {}

    def command(name: str, text: str, example: str) -> Parser:
        sub = Parser(description=text, epilog=f"Example: {example}")
        subcommands.add_subcommand(name, sub, help=text)
        commands[name] = sub
        return sub

    run = command(
        "run",
        "Make every run of an experiment complete, then report. What is done is not done again.",
        "hvae run depth --preset demo --workers 2",
    )
    run.add_argument("experiment", type=str, help="name of an experiment, see `hvae list`")
    run.add_argument("--preset", type=str, default="demo", help="size of the experiment, see `hvae list`")
    _where(run, runs_dir=True)
    run.add_argument("--workers", type=NonNegativeInt, default=0, help="runs at a time; 0 takes cores / threads")
    _how(run)

    train = command(
        "train",
        "Train one stack (all seeds at once), measure it, and report. The same command goes on after a stop.",
        "hvae train --data.name my.npz --model.latents '[16, 8, 4]' --training.n_steps 1000 "
        """--objective.beta '{"warmup_steps": 500}'""",
    )
    train.add_argument("--config", action="config", help="YAML or JSON file with any of the options below")
    train.add_argument("--label", type=str, default="", help="name of the run; empty makes one from data and model")
    _where(train, runs_dir=True)
    _how(train)
    _add_settings(train)

    evaluate = command(
        "evaluate",
        "Measure a trained run, or all runs of a directory: information, rates, likelihood (nats), then report.",
        "hvae evaluate runs/own/my-bottom-up-16-8-4-0123abcd --likelihood annealed,exact,gap",
    )
    evaluate.add_argument("run", type=str, help="directory of a run, or of several")
    evaluate.add_argument("--force", action="store_true", help="measure again what is measured already")
    _further(evaluate)
    _where(evaluate, runs_dir=False)
    _how(evaluate)

    report = command("report", "Draw the report of what is on disk again; needs no torch.", "hvae report runs/depth")
    report.add_argument("directory", type=str, help="directory of a run or of an experiment")
    report.add_argument("--preset", type=str, default="", help="preset to show; empty takes the newest")
    report.add_argument("--to", type=str, default="", help="folder for the small files to keep: tables, figures, page")

    lists = command("list", "List experiments with their presets, and runs with their state.", "hvae list")
    lists.add_argument("--runs-dir", type=str, default="runs", help="root of the runs")

    compare = command(
        "compare",
        "Two runs side by side: settings that differ; verdict, information, rate and likelihood (nats).",
        "hvae compare runs/depth/depth-3-ladder-wu-0123abcd runs/depth/depth-3-bottom-up-89abcdef",
    )
    compare.add_argument("run_a", type=str, help="directory of a run")
    compare.add_argument("run_b", type=str, help="directory of another run")

    data = command(
        "data",
        "Data sets by name: list them, get the files of one (checked by SHA-256), verify all files.",
        "hvae data get mnist-dynamic --data-dir data",
    )
    data.add_argument("verb", choices=["list", "get", "verify"], help="what to do")
    data.add_argument("name", nargs="?", type=str, default="", help="name of the data set, for get")
    _where(data, runs_dir=False)
    return parser, commands


def _further(parser: Parser) -> None:
    """What is measured of log p(x) beyond the encoder's own bound, and how much is spent on it."""
    parser.add_argument(
        "--likelihood",
        type=str,
        default="",
        metavar="WORDS",
        help="one or more of importance (layers and L_K: what an empty value takes), annealed (AIS; a sandwich on "
        "simulated data), exact (where a reference solves the stack), gap (by layer and by cause), with commas",
    )
    for knob, default, text in (
        ("images", 100, "test images, and simulated ones"),
        ("temperatures", 100, "steps of annealing"),
        ("chains", 64, "annealed chains per image; from about 500 on they serve the layer gaps too"),
        ("leapfrog", 4, "gradients per move of a chain"),
        ("draws", 4, "paths of q per image behind the layer gaps"),
        ("samples", 1000, "K of L_K, and of every proposal behind the layer gaps"),
    ):
        parser.add_argument(f"--{knob}", type=int, default=default, metavar="N", help=f"{text}; goes with --likelihood")
    parser.add_argument(
        "--gradients",
        type=_Counts(),
        default=(),
        metavar="K,K,...",
        help="K, as in 1,2,5,20, at which the signal-to-noise ratio of each layer's gradient is measured",
    )


class _Counts:
    """Whole numbers separated by commas, each once, from the smallest."""

    def __call__(self, text: object) -> object:
        if not isinstance(text, str):
            return text
        words = text.split(",")
        if not all(word.strip().isdigit() for word in words):
            raise ValueError(f"--gradients is {text!r}; give numbers of samples with commas, as in 1,2,5,20")
        return tuple(sorted({int(word) for word in words}))

    def __repr__(self) -> str:
        return "whole numbers with commas"


def _where(parser: Parser, *, runs_dir: bool) -> None:
    if runs_dir:
        parser.add_argument("--runs-dir", type=str, default="runs", help="root of the runs")
    parser.add_argument("--data-dir", type=str, default="", help="folder of the data files; empty takes $HVAE_DATA")


def _how(parser: Parser) -> None:
    parser.add_argument("--device", type=str, default="cpu", help="cpu, cuda, cuda:1, ...; no part of a run's name")
    parser.add_argument("--threads", type=PositiveInt, default=1, help="threads per run; more rarely help small nets")


def _add_settings(parser: Parser) -> None:
    """A flag for every knob of `RunConfig`: its default, and its help from the string below it."""
    defaults = json.loads(RunConfig().to_json())
    for section, kind in get_type_hints(RunConfig).items():
        texts = _texts_below_fields(kind)
        for knob, wanted in get_type_hints(kind).items():
            parser.add_argument(
                f"--{section}.{knob}",
                type=_Setting(wanted),
                default=defaults[section][knob],
                metavar="VALUE",
                help=texts.get(knob, knob.replace("_", " ")),
            )


@dataclasses.dataclass(frozen=True)
class _Setting:
    """Text of a flag to a plain value; whether it fits is for `RunConfig.from_dict` to say."""

    wanted: Any

    def __call__(self, text: object) -> object:
        if self.wanted is str or not isinstance(text, str):
            return text
        for read in (json.loads, yaml.safe_load):
            with contextlib.suppress(ValueError, yaml.YAMLError):
                return read(text)
        return text

    def __repr__(self) -> str:
        """What the help shows as the type."""
        kinds = get_args(self.wanted) if isinstance(self.wanted, UnionType) else self.wanted
        return describe(kinds)


def _texts_below_fields(kind: type) -> dict[str, str]:
    """Field -> the string literal that stands below it in the source."""
    (definition,) = ast.parse(inspect.getsource(kind)).body
    assert isinstance(definition, ast.ClassDef)
    texts = {}
    for field, below in zip(definition.body, definition.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(below, ast.Expr):
            if isinstance(below.value, ast.Constant) and isinstance(below.value.value, str):
                texts[field.target.id] = " ".join(below.value.value.split()).replace("%", "%%")
    return texts
