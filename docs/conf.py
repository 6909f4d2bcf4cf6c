"""The site: the pages of docs/, the results, and the reference from docstrings. `make docs` builds it.

The source folder is the whole repository: a relative link or picture is the same one here and on GitHub.
"""

import importlib.metadata
import re
from typing import Any

project = "hvae"
version = release = importlib.metadata.version("hvae")
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.viewcode"]
root_doc = "docs/index"
include_patterns = ["*.md", "docs/**.md", "experiments/results/**.md"]
exclude_patterns = [".*", "build", "data", "docs/_build", "runs"]
# a summary is reached from its results; that docs/ has no page out of reach is for tests/test_docs.py
suppress_warnings = ["toc.not_included"]
myst_heading_anchors = 4

html_theme = "furo"
html_title = "hvae"
html_copy_source = False
html_show_copyright = False
html_extra_path = ["_extra"]

default_role = "py:obj"  # `name` in a docstring is code, and a link where the reference has that name
autodoc_default_options = {"members": True, "member-order": "bysource", "no-value": True, "show-inheritance": True}
autodoc_inherit_docstrings = False
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
maximum_signature_line_length = 100


def formulas(app: Any, what: str, name: str, obj: object, options: Any, lines: list[str]) -> None:
    """Indented formulas and tables of a docstring are shown as they stand."""
    found: list[str] = []
    margin, inside = 0, False
    for before, line in zip(["", *lines], lines, strict=False):
        depth = len(line) - len(line.lstrip())
        if line.strip():
            if not inside and depth > margin and not before.strip():
                found += ["::", ""]
                inside = True
            elif not inside or depth <= margin:
                margin, inside = depth, False
        found.append(line.replace("`", "") if inside else line)
    lines[:] = found


SHORTER = {
    r"~?[\w.]*\bAnnotated\[~?[\w.]*\bTensor, ('[^']*')\]": r"~torch.Tensor[\1]",
    r"~?[\w.]*\bndarray\[tuple\[[^]]*\], ~?[\w.]*dtype\[~?[\w.]*float64\]\]": "~hvae.numerics.FloatArray",
    r"<(?:function )?(\w+)>": r"\1",
}
"""what Python spells out of an annotation or a default, and what is shown"""


def signatures(app: Any, what: str, name: str, obj: object, options: Any, given: str, answer: str) -> tuple[str, str]:
    """A signature in the names of the source."""
    for pattern, shorter in SHORTER.items():
        given, answer = (text and re.sub(pattern, shorter, text) for text in (given, answer))
    return given, answer


def setup(app: Any) -> None:
    app.connect("autodoc-process-docstring", formulas)
    app.connect("autodoc-process-signature", signatures)
