"""An option for every setting of a run: every field of `RunConfig`, and the string below the field is its help.

Whether a value fits is for `RunConfig.from_dict`.
"""

import ast
import dataclasses
import inspect
import json
import re
from argparse import SUPPRESS, ArgumentTypeError
from types import NoneType, UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from jsonargparse import ArgumentParser

from hvae.lab.config import RunConfig
from hvae.lab.strict import describe
from hvae.outside import from_yaml

HEADINGS = {
    "data": "which images",
    "model": "decoder and encoder; lists per layer start at z1, and a single entry serves all layers",
    "objective": "what is maximised",
    "training": "how it is maximised",
    "evaluation": "what is measured afterwards; changing it measures again and trains nothing",
}
"""section of `RunConfig` -> what the help says below its heading"""
FIRST = """
    data.name
    model.latents model.hidden model.order model.families model.observation model.blocks model.prior model.batch_norm
    objective.beta objective.name objective.n_samples objective.free_nats objective.gradient
    training.n_steps training.seeds training.learning_rate training.batch_size
""".split()
"""options that the help shows first below their headings; the others follow as `RunConfig` has them"""

QUOTED = "; a list is one argument, in quotes, as in --model.latents '[16, 8, 4]'"
UNSAID = (dataclasses.MISSING, "", ())
"""defaults of a table's keys that the help leaves out"""


def add_settings(parser: ArgumentParser) -> None:
    """An option for every field of `RunConfig`, grouped by section."""
    defaults = json.loads(RunConfig().to_json())
    for section, kind in get_type_hints(RunConfig).items():
        group = parser.add_argument_group(section, HEADINGS[section])
        texts = texts_below_fields(kind)
        wanted = get_type_hints(kind)
        first = [name.partition(".")[2] for name in FIRST if name.startswith(f"{section}.")]
        for knob in (*first, *(knob for knob in wanted if knob not in first)):
            setting = _Setting(wanted[knob])
            group.add_argument(
                f"--{section}.{knob}",
                type=setting,
                default=defaults[section].get(knob, SUPPRESS),  # what is left out is off, or decided by the data
                metavar=setting.metavar,
                help=setting.with_choices(texts[knob]),
            )


@dataclasses.dataclass(frozen=True)
class _Setting:
    """From the text of an option to a plain value; whether it fits is for `RunConfig.from_dict` to say."""

    wanted: Any

    def __call__(self, text: object) -> object:
        if self.wanted is str or not isinstance(text, str):
            return text
        try:
            return from_yaml(text)
        except ValueError as error:
            cut = QUOTED if text.startswith("[") and not text.endswith("]") else ""
            raise ArgumentTypeError(f"{text[:60]!r} cannot be read ({error}){cut}") from None

    @property
    def metavar(self) -> str:
        """What stands for the value in the help."""
        if isinstance(self.wanted, UnionType):
            return "TEXT|TABLE" if NoneType in get_args(self.wanted) else "NUMBER|TABLE"
        if get_origin(self.wanted) is tuple:
            return "LIST"
        if get_origin(self.wanted) is Literal:
            return "NAME"
        return {int: "N", float: "NUMBER", bool: "true|false"}.get(self.wanted, "TEXT")

    def with_choices(self, text: str) -> str:
        """The help text; names that it does not explain, and the tables of a schedule, are listed behind it."""
        if isinstance(self.wanted, UnionType):
            records = tuple(kind for kind in get_args(self.wanted) if kind is not NoneType)
            return f"{text}; {describe(records)}" if len(records) > 1 else f"{text}. Its keys: {_keys(*records)}"
        (entry,) = get_args(self.wanted)[:1] if get_origin(self.wanted) is tuple else (self.wanted,)
        names = get_args(entry) if get_origin(entry) is Literal else ()
        told = set(re.findall(r"[\w-]+", text))
        return text if told.issuperset(names) else f"{text}; one of {', '.join(names)}"


def _keys(kind: type) -> str:
    """The settings of a record, each with its help and its default."""
    texts = texts_below_fields(kind)
    shown = {knob.name: json.dumps(told) for knob in dataclasses.fields(kind) if (told := knob.default) not in UNSAID}
    return ". ".join(f"{name}{f' ({shown[name]})' if name in shown else ''}: {text}" for name, text in texts.items())


def texts_below_fields(kind: type) -> dict[str, str]:
    """Field -> the string literal that stands below it in the source."""
    (definition,) = ast.parse(inspect.getsource(kind)).body
    assert isinstance(definition, ast.ClassDef)
    texts = {}
    for field, below in zip(definition.body, definition.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(below, ast.Expr):
            if isinstance(below.value, ast.Constant) and isinstance(below.value.value, str):
                texts[field.target.id] = " ".join(below.value.value.split()).replace("%", "%%")
    return texts
