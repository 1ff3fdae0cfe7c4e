"""Drift: tests of production data against training data, and the population stability index."""
