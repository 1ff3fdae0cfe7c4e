"""Send the results of the pipeline to MLflow: runs, data, models, versions and stages."""
