"""Examples in docstrings: all of them run, and every public class of the instrument has one."""

import ast
import doctest
import importlib
import pkgutil
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


@pytest.mark.parametrize("name", MODULES)
def test_every_public_class_has_an_example(name: str) -> None:
    tree = ast.parse(Path(str(importlib.import_module(name).__file__)).read_text(encoding="utf-8"))
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef) and not node.name.startswith("_")]
    without = {node.name for node in classes if ">>>" not in (ast.get_docstring(node) or "")}
    assert without <= BARE


def test_the_instrument_is_looked_through() -> None:
    assert {"hvae.network", "hvae.families.gaussian", "hvae.exact.discrete", "hvae.data.names"} <= set(MODULES)
    assert not any(name.startswith(BELOW) for name in MODULES) and len(MODULES) > 60
