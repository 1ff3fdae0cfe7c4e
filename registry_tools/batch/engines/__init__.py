"""Predict batches in worker processes or on Spark."""
