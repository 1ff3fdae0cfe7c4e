"""Explain predictions by the contributions of the raw columns."""
