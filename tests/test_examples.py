"""Examples in docstrings: all of them run, and every public class of the instrument has one."""

import ast
import builtins
import doctest
import importlib
import inspect
import pkgutil
import symtable
from pathlib import Path

import pytest

import hvae
from hvae import extras

BELOW = ("hvae.lab", "hvae.analysis", "hvae.experiments", "hvae.__main__")
"""no part of the instrument"""

BARE = {
    *("ConfigError", "MissingExtraError", "NotMeasuredError", "UnsuitedError", "ClosedFormError"),
    *("Layer", "ObjectiveTraits", "Words"),
    *("AutoregressiveDistribution", "DistributionOfOutputs", "FlowDistribution", "MixtureDistribution"),
}
"""exceptions, and records that the example of another class shows"""

NEEDS = {"hvae.foreign.pyro": "pyro", "hvae.foreign.pythae": "pythae", "hvae.foreign.scvi": "scvi"}
"""modules with examples of another library, which `make test-adapters` runs"""


def instrument() -> list[str]:
    """Names of the modules that measure."""

    def within(path: list[str], prefix: str) -> list[str]:
        found = []
        for module in pkgutil.iter_modules(path, prefix):
            if module.name not in BELOW:
                found.append(module.name)
                if module.ispkg:
                    found += within([str(Path(path[0]) / module.name.rpartition(".")[2])], f"{module.name}.")
        return found

    return ["hvae", *within(list(hvae.__path__), "hvae.")]


MODULES = instrument()


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_run(name: str) -> None:
    if name in NEEDS and not extras.has(NEEDS[name]):
        pytest.skip(f"{NEEDS[name]} is not installed")
    tried = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert tried.failed == 0, "the examples that fail are printed above."


def exported() -> dict[str, object]:
    """What `hvae` exports, and the public methods and functions of these."""
    found: dict[str, object] = {}
    for name in hvae.__all__:
        thing = getattr(hvae, name)
        inner = vars(thing) if inspect.isclass(thing) or inspect.ismodule(thing) else {}
        found[name] = thing
        public = {key: getattr(thing, key) for key in inner if not key.startswith("_")}
        found |= {f"{name}.{key}": value for key, value in public.items() if inspect.isroutine(value)}
    return found


def unknown(text: str) -> set[str]:
    """Names that an example uses and does not make, wherever in it."""
    source = "".join(example.source for example in doctest.DocTestParser().get_examples(text))
    tables = [symtable.symtable(source, "example", "exec")]
    made: set[str] = set(dir(builtins)) | {"_"}
    used: set[str] = set()
    for table in tables:
        tables += table.get_children()
        whole = table.get_type() == "module"
        for symbol in table.get_symbols():
            if whole and (symbol.is_assigned() or symbol.is_imported()):
                made.add(symbol.get_name())
            if symbol.is_referenced() and (whole or symbol.is_global()):
                used.add(symbol.get_name())
    return used - made


def test_an_example_can_be_pasted_as_it_is() -> None:
    """doctest gives an example the names of its module, which nobody has who pastes it."""
    assert unknown(">>> import torch\n>>> torch.zeros(2) + nn.Linear(1, 1)(np.ones(1))") == {"nn", "np"}
    assert unknown(">>> def f(x):\n...     return x + y\n>>> [f(a) for a in range(2)]") == {"y"}
    lacking = {name: unknown(text) for name, thing in exported().items() if (text := inspect.getdoc(thing))}
    assert {name: names for name, names in lacking.items() if names} == {}
    assert sum(">>>" in (inspect.getdoc(thing) or "") for thing in exported().values()) > 40


@pytest.mark.parametrize("name", MODULES)
def test_every_public_class_has_an_example(name: str) -> None:
    tree = ast.parse(Path(str(importlib.import_module(name).__file__)).read_text(encoding="utf-8"))
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef) and not node.name.startswith("_")]
    without = {node.name for node in classes if ">>>" not in (ast.get_docstring(node) or "")}
    assert without <= BARE


def test_the_instrument_is_looked_through() -> None:
    assert {"hvae.network", "hvae.families.gaussian", "hvae.exact.discrete", "hvae.data.names"} <= set(MODULES)
    assert not any(name.startswith(BELOW) for name in MODULES) and len(MODULES) > 60
