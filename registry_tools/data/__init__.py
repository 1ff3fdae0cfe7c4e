"""Schemas, the coercion of rows to the types of a signature, and row hashes."""
