"""Normalizing flows wired as a renormalization group, for the two-dimensional Ising model."""
