"""Train one model: build it, evaluate it, log it and register it."""
