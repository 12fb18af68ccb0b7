"""Strata: four studies of how models learn hidden structure, each held against an exact answer."""

__version__ = "0.1.0"
