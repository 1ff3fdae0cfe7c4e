"""Signed statements about model versions: the in-toto Statement of a verdict and its DSSE envelope."""
