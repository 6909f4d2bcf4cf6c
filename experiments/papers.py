"""All the papers that are reproduced, one after the other: `hvae run papers --preset smoke`.

Each is an experiment of its own; `hvae list` names them. What is missing for one of them, data or a GPU, is said before
anything is trained.
"""

import importlib
import pkgutil
import sys

import experiments

PRESETS = ("smoke", "cpu", "paper")


def members() -> tuple[str, ...]:
    """Names of the experiments that reproduce a paper, as `hvae run` takes them."""
    names = [module.name for module in pkgutil.iter_modules(experiments.__path__) if not module.ispkg]
    modules = {name: importlib.import_module(f"experiments.{name}") for name in sorted(names) if name != "papers"}
    return tuple(name.replace("_", "-") for name, module in modules.items() if hasattr(module, "PAPER"))


if __name__ == "__main__":
    from hvae.cli import main

    sys.exit(main(["run", "papers", *sys.argv[1:]]))
