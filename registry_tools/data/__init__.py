"""Schemas, type coercion, row hashes, table files and temporary files."""
