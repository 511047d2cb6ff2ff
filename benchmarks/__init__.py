"""Measurements, each with a plain reference beside it in the same run: ratios, not seconds, are what counts."""
