"""Metrics, confidence intervals, paired tests and drift tests on plain arrays."""
