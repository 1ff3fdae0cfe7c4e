"""All calls to MLflow's tracking and registry API."""
