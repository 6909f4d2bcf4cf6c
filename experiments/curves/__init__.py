"""Figures of papers that take more room than their experiment has."""
