"""A part of the report that appears only where it has something to show."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from hvae.analysis.exhibits import Exhibit
from hvae.analysis.study import Study
from hvae.analysis.tables.table import Table


@dataclass(frozen=True)
class Section:
    """Tables and figures under one heading; left out where both are empty."""

    name: str
    """its anchor"""
    title: str
    note: str
    tables: Callable[[Study], Mapping[str, Table]]
    """heading, or nothing, -> table"""
    csv: Callable[[Study], Mapping[str, str]]
    """name of a file -> its text, with every replica"""
    figures: tuple[Exhibit, ...]
    summary: Callable[[Study], Sequence[str]] = lambda study: ()
    """sentences for the top of the report"""
