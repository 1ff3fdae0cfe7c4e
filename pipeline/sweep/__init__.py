"""Search for the best estimator and parameters by cross-validation."""
