"""Follow a stage and roll a new version out to every worker."""
