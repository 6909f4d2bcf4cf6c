"""Claims that take more room than their experiment has."""

LATER = "(claimed after its runs were seen)"
"""ends the statement of a claim that was not fixed beforehand"""
