"""Loaders of models by flavor: each builds a model from a file without running code from it."""
