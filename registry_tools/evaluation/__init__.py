"""Evaluate a candidate, compare it with a champion by gates, and return the verdict."""
