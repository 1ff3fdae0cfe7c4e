"""Inspect a model's files before they are parsed, and its estimators before they predict.

The allow-list of types (`trust_policy`) is the security boundary. These checks are a second line of
defence: they refuse files that need too much memory or time to read, and known ways to crash or misuse
trusted types.
"""
