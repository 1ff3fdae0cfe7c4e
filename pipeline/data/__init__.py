"""Load, check and split the training table."""
