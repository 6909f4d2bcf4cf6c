"""Models as other libraries train them, against the arithmetic of these libraries.

They need Pyro, pythae and scvi-tools (`make test-adapters`). Where one is not installed, its tests are skipped.
"""
