"""Tests of `analysis` and `experiments`, on fabricated run directories."""
