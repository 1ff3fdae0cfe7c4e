"""The parameters of each step, with defaults and bounds."""
