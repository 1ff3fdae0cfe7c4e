"""The gates as pure functions: each takes plain values and returns one result."""
