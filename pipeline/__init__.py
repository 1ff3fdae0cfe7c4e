"""The application: trains a classifier, logs it to MLflow and registers it."""
