"""The gates: each takes plain values and returns one result."""
