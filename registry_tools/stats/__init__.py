"""Metrics, confidence intervals and paired tests on plain arrays."""
