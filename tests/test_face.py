"""The face of the package: every name resolves, and what type checkers are told of it is the same."""

import ast
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import hvae

REPO = Path(__file__).parents[1]
STUB = ast.parse((REPO / "hvae" / "__init__.pyi").read_text(encoding="utf-8"))


def _told() -> dict[str, str]:
    """Name -> module, as `__init__.pyi` imports them."""
    return {
        alias.asname: str(node.module)
        for node in STUB.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.asname == alias.name
    }


@pytest.mark.parametrize("name", hvae.__all__)
def test_every_name_resolves(name: str) -> None:
    value = getattr(hvae, name)
    assert name == "__version__" or value.__name__ == name
    assert name in dir(hvae)


def test_the_stub_tells_the_same() -> None:
    (listed,) = (node.value for node in STUB.body if isinstance(node, ast.Assign))
    assert sorted(ast.literal_eval(listed)) == sorted(hvae.__all__)
    assert {name: f"hvae.{room}" for name, room in hvae._HOME.items()} == _told()  # type: ignore[attr-defined]
    annotated = [ast.unparse(node) for node in STUB.body if isinstance(node, ast.AnnAssign)]
    assert annotated == ["__version__: str"]


def test_no_name_hides_a_room() -> None:
    """`import hvae.x` would put the module in the place of the name."""
    assert not {module.name for module in pkgutil.iter_modules(hvae.__path__)} & set(hvae.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'hvae' has no attribute 'HAVE'"):
        _ = hvae.HAVE  # type: ignore[attr-defined]


def test_a_name_is_imported_when_it_is_asked_for() -> None:
    code = (
        "import sys, hvae\n"
        "assert 'HVAE' in dir(hvae) and hvae.__version__ and hvae.ConfigError\n"
        "assert not {'torch', 'numpy', 'scipy'} & set(sys.modules), 'too early'\n"
        "assert hvae.HVAE.__module__ == 'hvae.evidence' and 'torch' in sys.modules, 'not at all'\n"
    )
    outcome = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True, check=False)
    assert outcome.returncode == 0, outcome.stderr
