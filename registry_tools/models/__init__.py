"""The files of a version: manifest, signature, evidence, formats and loading."""
