"""Everything that the pipeline sends to MLflow."""
