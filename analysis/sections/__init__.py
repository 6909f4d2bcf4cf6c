"""The sections beside the verdicts, in their order on the page: what is measured beside runs, or of runs together.

A section is one file here; its tables and figures are read from the study alone.
"""

from analysis.sections import accuracy, comparison, conjecture, consistency, published, same_decoder, signal
from analysis.sections.section import Section as Section

SECTIONS = (
    published.SECTION,
    conjecture.SECTION,
    accuracy.SECTION,
    comparison.SECTION,
    consistency.SECTION,
    same_decoder.SECTION,
    signal.SECTION,
)
