"""The laboratory: it makes models, runs and results, and knows configuration and files."""
