"""Evaluate a candidate against a champion: gates and their verdict."""
