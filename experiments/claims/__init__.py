"""Claims that take more room than their experiment has."""
