"""Checks of a model's files before they are parsed, and of its estimators before they predict.

The allow-list of types (`trust_policy`) is the security boundary. These checks are behind it: they
refuse files that cost too much to read, and known ways to crash or misuse trusted types.
"""
