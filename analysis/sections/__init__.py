"""The sections of any report, in their order on the page, with those of an experiment (`Study.sections`) among them.

A section is one file here. It reads its tables and figures from the study alone.
"""

from hvae.analysis.sections import comparison, published, resolutions, signal
from hvae.analysis.sections.section import Section as Section
from hvae.analysis.study import Study


def sections(study: Study) -> tuple[Section, ...]:
    """Paper and ours, runs held against a baseline, stacks of several resolutions, what the experiment adds, the signal
    of the gradients.
    """
    return (published.SECTION, comparison.SECTION, resolutions.SECTION, *study.sections, signal.SECTION)
