"""Sentences on a terminal, wrapped to its width."""

import textwrap

PAGE = 100
"""columns of a page of results"""


def wrapped(text: str, first: str = "", indent: int = 0, *, width: int = PAGE) -> str:
    """A paragraph; `first` stands before its first line, and the others are indented."""
    return textwrap.fill(text, width, initial_indent=first, subsequent_indent=" " * indent)


def typed(text: str, first: str = "", indent: int = 0, *, width: int = PAGE) -> str:
    """`wrapped` for what is typed: names with hyphens and long words stay whole, so that it can be copied."""
    return textwrap.fill(
        text,
        width,
        initial_indent=first,
        subsequent_indent=" " * indent,
        break_on_hyphens=False,
        break_long_words=False,
    )
