"""The parameters of each command, with defaults, bounds and help texts."""
