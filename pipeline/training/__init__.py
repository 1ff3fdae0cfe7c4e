"""Train one model: build the pipeline, fit it, evaluate it, log it and register a version."""
