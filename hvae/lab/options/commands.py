"""Commands, their options, their help. jsonargparse reads options and files, and prints configurations and help."""

import dataclasses
import difflib
import importlib.metadata
import json
import re
import textwrap
from argparse import SUPPRESS, Action
from collections.abc import Sequence
from typing import Any, NoReturn, get_type_hints

from jsonargparse import ArgumentParser, DefaultHelpFormatter
from jsonargparse.typing import restricted_number_type

from hvae.errors import ConfigError
from hvae.lab.config import RunConfig
from hvae.lab.config.budget import Budget
from hvae.lab.options.arguments import Counts, check_arguments
from hvae.lab.options.file import MODE, SettingsFile, refuse_runs_elsewhere, use_yaml
from hvae.lab.options.settings import QUOTED, add_settings, texts_below_fields

MOST_PROCESSES = 1024
"""workers, and threads of each; far more end the process"""
_Threads = restricted_number_type("Threads", int, [(">=", 1), ("<=", MOST_PROCESSES)], join="and")
_Workers = restricted_number_type("Workers", int, [(">=", 0), ("<=", MOST_PROCESSES)], join="and")


class Help(DefaultHelpFormatter):
    """Below every option its help and its default, written as on the command line."""

    def _get_help_string(self, action: Action) -> str:
        text, default = action.help or "", action.default
        if action.nargs == 0 or "default: " in text or default is None or default is SUPPRESS or default in ("", ()):
            return text
        return f"{text} (default: {default if isinstance(default, str) else json.dumps(_plain(default))})"

    def _split_lines(self, text: str, width: int) -> list[str]:
        """Names with hyphens stay whole."""
        return textwrap.wrap(" ".join(text.split()), width, break_on_hyphens=False)


def _plain(default: Any) -> Any:
    """A default as one would write it: a constant schedule is its value."""
    return default["value"] if isinstance(default, dict) and default.keys() == {"value"} else default


class Parser(ArgumentParser):
    """Says what is wrong in one sentence, by a `ConfigError`."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        sentence = " ".join(re.sub(r"<class '(\w+)'>", r"\1", message).split()).replace("Parser key", "option")
        if "unrecognized arguments" in sentence:
            sentence += QUOTED
        if missing := re.search(r"arguments are required: (\w+)\.(\w+)", sentence):
            raise ConfigError(f"`hvae {missing[1]}` needs {missing[2].upper()}; see `hvae {missing[1]} --help`.")
        if other := re.search(r"invalid choice: '([^']*)' \(choose from (.*)\)", sentence):
            close = difflib.get_close_matches(other[1], names := re.findall(r"'(\w+)'", other[2]), n=1)
            remedy = f"did you mean {close[0]}?" if close else f"choose {', '.join(names[:-1])} or {names[-1]}."
            raise ConfigError(f"{other[1]!r} is unknown; {remedy}")
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
    return f"{parser.prog} --help".replace(" [options]", "").replace(" COMMAND", "")


def parse(arguments: Sequence[str]) -> tuple[str, Any]:
    """The command and its options. Raises `ConfigError` for what cannot be read."""
    check_arguments(arguments)
    named = {argument for argument in arguments[:1] if not argument.startswith("-")}
    parser, commands = build(settings=not named or "train" in named)
    if arguments and arguments[0] in commands:
        commands[arguments[0]].refuse_unknown(arguments[1:])
    chosen = parser.parse_args(list(arguments))
    options = chosen[chosen.command]
    if options.get("config"):
        refuse_runs_elsewhere(options.runs_dir, arguments)
    return chosen.command, options


def build(*, settings: bool = True) -> tuple[Parser, dict[str, Parser]]:
    """The parser, and the parser of each command by its name; `train` with an option for every setting if asked for."""
    use_yaml()
    parser = Parser(
        prog="hvae",
        description="Say which stochastic layer of a deep VAE has collapsed, why, and what it costs (in nats).",
        epilog="Example: hvae run depth --preset demo",
        formatter_class=Help,
        parser_mode=MODE,
        version=importlib.metadata.version("hvae"),
        usage="hvae COMMAND [options]",
    )
    subcommands = parser.add_subcommands(
        title="commands", description="`hvae COMMAND --help` has more of each.", dest="command", required=True
    )
    commands: dict[str, Parser] = {}

    def command(name: str, operands: str, text: str, example: str) -> Parser:
        usage = " ".join(f"hvae {name} {operands} [options]".split())
        sub = Parser(parser_mode=MODE, description=text, epilog=f"Example: {example}", usage=usage)
        subcommands.add_subcommand(name, sub, help=text)
        commands[name] = sub
        return sub

    run = command(
        "run",
        "EXPERIMENT",
        "Complete every run of an experiment, then report. What is done is not repeated.",
        "hvae run depth --preset demo --workers 2",
    )
    run.add_argument("experiment", type=str, help="name of an experiment, see `hvae list`")
    run.add_argument("--preset", type=str, default="demo", metavar="NAME", help="its size, see `hvae list`")
    run.add_argument("--workers", type=_Workers, default=0, metavar="N", help="runs at a time; 0 takes cores / threads")
    run.add_argument(
        "--scheduler",
        type=str,
        default="",
        metavar="ADDRESS",
        help="give the runs to the workers of a scheduler of Dask, as tcp://host:8786, in place of --workers",
    )
    run.add_argument(
        "--only",
        type=str,
        default="",
        metavar="LABEL|K/N",
        help="complete one run, or the K-th of N shares of the runs, for job arrays",
    )
    _where_and_how(run, "runs-dir", "data-dir", "device", "threads")

    train = command(
        "train",
        "",
        "Train one stack from all its seeds at once, measure it, and report. If it was stopped, the same command "
        "goes on.",
        "hvae train --data.name my.npz --model.latents '[16, 8, 4]' --training.n_steps 1000 "
        """--objective.beta '{"warmup_steps": 500}'""",
    )
    train.add_argument(
        "--config", action=SettingsFile, metavar="FILE", help="YAML or JSON file with any of the options below"
    )
    (printing,) = (action for action in train._actions if "--print_config" in action.option_strings)
    printing.help, printing.metavar = "print all settings as YAML, fit for --config, and exit", ""
    _where_and_how(train, "label", "runs-dir", "data-dir", "device", "threads")
    if settings:  # they are many, and cost a listing most of its time
        add_settings(train)

    complete = command(
        "complete",
        "RUN",
        "Make one run complete: train and measure what is missing. What is done is not repeated.",
        "hvae complete runs/own/my-first-stack-0123abcd",
    )
    complete.add_argument("run", type=str, help="directory of a run, or its label")
    _where_and_how(complete, "runs-dir", "data-dir", "device", "threads")

    evaluate = command(
        "evaluate",
        "RUN",
        "Measure a trained run, or all runs of a directory, then report: information and rates of every layer, "
        "likelihood (nats).",
        "hvae evaluate 'my first stack' --likelihood annealed,gap",
    )
    evaluate.add_argument("run", type=str, help="label of a run, or directory of one or several")
    evaluate.add_argument("--force", action="store_true", help="measure again what is measured already")
    _further(evaluate)
    _where_and_how(evaluate, "runs-dir", "data-dir", "device", "threads")

    report = command(
        "report", "DIRECTORY", "Draw the report again from what is on disk; needs no torch.", "hvae report runs/depth"
    )
    report.add_argument("directory", type=str, help="label of a run, or directory of a run or of an experiment")
    report.add_argument("--preset", type=str, default="", metavar="NAME", help="preset to show (default: the newest)")
    report.add_argument(
        "--with", dest="more", type=str, default="", metavar="FOLDER",
        help="take runs that are missing from here: a directory of another machine, or a page of results",
    )  # fmt: skip
    report.add_argument(
        "--to", type=str, default="", metavar="FOLDER", help="also copy tables, figures and page to this folder"
    )
    _where_and_how(report, "runs-dir")

    lists = command(
        "list",
        "[EXPERIMENT]",
        "List your runs with verdict, date and size, then the experiments with their presets.",
        "hvae list",
    )
    lists.add_argument("experiment", nargs="?", type=str, default="", help="show only its runs, each on a line")
    _where_and_how(lists, "runs-dir")

    compare = command(
        "compare",
        "RUN_A RUN_B",
        "Compare two runs: what the second changes, in a sentence; settings as they are typed; verdict, information, "
        "rate and likelihood (nats).",
        "hvae compare 'depth-3 bottom-up' 'depth-3 bottom-up+WU'",
    )
    compare.add_argument("run_a", type=str, help="label or directory of a run")
    compare.add_argument("run_b", type=str, help="label or directory of another run")
    _where_and_how(compare, "runs-dir")

    verify = command(
        "verify",
        "DIRECTORY",
        "Say of every run whether its files are what was written, and how to mend what is not; needs no torch.",
        "hvae verify runs",
    )
    verify.add_argument("directory", type=str, help="label of a run, or directory of runs")
    _where_and_how(verify, "runs-dir")

    data = command(
        "data",
        "{list,get,verify} [NAME]",
        "Data sets: list their names, get the files of one (checked by SHA-256), or verify all files.",
        "hvae data get mnist-dynamic --data-dir data",
    )
    data.add_argument("verb", choices=["list", "get", "verify"], help="what to do")
    data.add_argument("name", nargs="?", type=str, default="", help="name of the data set, for get")
    _where_and_how(data, "data-dir")
    return parser, commands


def _further(parser: Parser) -> None:
    """What is measured of log p(x) beyond the encoder's own bound, and how much is spent on it."""
    group = parser.add_argument_group("what is measured")
    group.add_argument(
        "--likelihood",
        type=str,
        default="",
        metavar="WORDS",
        help="one or more of these words, with commas. importance: layers and L_K. annealed: bounds by annealed "
        "importance sampling, from both sides on simulated data. exact: where a reference solves the stack. gap: "
        "log p(x) - ELBO by layer and by cause (default: importance)",
    )
    group.add_argument(
        "--until-se",
        type=float,
        default=None,
        metavar="NATS",
        help="standard error that log p(x) of an image is brought to, by the cheapest of importance samples, a "
        "proposal fitted to the image and annealed chains, unless its budget is spent before; another value than the "
        "run was measured with measures again (default: 0.1)",
    )
    texts = texts_below_fields(Budget)
    group.add_argument("--gradients", type=Counts(), default=(), metavar="K,K,...", help=texts["gradients"])
    budget = parser.add_argument_group("budget", "how much is spent on annealed, exact and gap")
    for knob in dataclasses.fields(Budget):
        if knob.name != "gradients":
            budget.add_argument(f"--{knob.name}", type=int, default=knob.default, metavar="N", help=texts[knob.name])


def _where_and_how(parser: Parser, *names: str) -> None:
    """Options that say where runs and data lie, and what works on them; what is trained is the same."""
    group = parser.add_argument_group("where and how")
    options: dict[str, dict[str, Any]] = {
        "label": {"metavar": "TEXT", "help": "name of the run (default: made from data and model)"},
        "runs-dir": {"default": "runs", "metavar": "FOLDER", "help": "root of the runs"},
        "data-dir": {
            "metavar": "FOLDER",
            "help": "folder of the data files (default: $HVAE_DATA); of a file of yours that was moved its folder, or "
            "the file itself",
        },
        "device": {"default": "cpu", "metavar": "NAME", "help": "cpu, cuda, cuda:1, ...; no part of a run's name"},
        "threads": {
            "type": _Threads,
            "default": 1,
            "metavar": "N",
            "help": "threads per run; more than one rarely helps small nets",
        },
    }
    for name in names:
        common: dict[str, Any] = {"type": str, "default": ""}
        group.add_argument(f"--{name}", **common | options[name])
