"""Packages that a core install leaves out, and what needs them.

    lab     tensorboard  scikit-learn  pooch  zuko     boards, digits, downloads, flow layers
    report  jinja2                                     report.html
    pyro    pyro-ppl                                   hvae.from_pyro
    pythae  pythae                                     hvae.from_pythae
    scvi    scvi-tools                                 hvae.from_scvi
    frames  pandas  xarray                             a diagnosis as a data frame, as a data tree
    cluster distributed                                hvae run --scheduler

The core trains, measures and prints verdicts without them. A function that uses one calls `need`, then imports it.
"""

import importlib.util

from hvae.errors import MissingExtraError

EXTRAS = {
    "tensorboard": ("tensorboard", "lab"),
    "sklearn": ("scikit-learn", "lab"),
    "pooch": ("pooch", "lab"),
    "zuko": ("zuko", "lab"),
    "jinja2": ("jinja2", "report"),
    "pyro": ("pyro-ppl", "pyro"),
    "pythae": ("pythae", "pythae"),
    "scvi": ("scvi-tools", "scvi"),
    "pandas": ("pandas", "frames"),
    "xarray": ("xarray", "frames"),
    "distributed": ("distributed", "cluster"),
}
"""module -> the package that brings it, and the extra that brings the package"""

WITHOUT_BOARD = "Training goes on without a board, which needs"


def has(module: str) -> bool:
    """Whether a module of `EXTRAS` is installed; nothing is imported."""
    assert module in EXTRAS
    return importlib.util.find_spec(module) is not None


def need(module: str, purpose: str) -> None:
    """Raise `MissingExtraError`, with `sentence`, where a module of `EXTRAS` is not installed."""
    if not has(module):
        raise MissingExtraError(sentence(module, purpose))


def sentence(module: str, purpose: str) -> str:
    """What is missing, for what, and the command that brings it."""
    package, extra = EXTRAS[module]
    return f"{purpose} {package}; pip install 'hvae[{extra}]'."
