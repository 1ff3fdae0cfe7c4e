"""Names of the tags of versions that several modules use."""

DELETING_TAG = "deleting"  # "true": a client is about to delete the version, and no stage may move to it

# The last result of the monitoring.
DRIFT_TAG = "drift"  # `drift: …`, `none`, or `unknown` if there were too few rows
DRIFT_AT_TAG = "drift_at"  # ISO 8601, UTC
DRIFT_RUN_TAG = "drift_run"  # the run with the result

# The query of an address with which MLflow's UI opens a page in its view for model training. Pages
# ignore the tag of their experiment.
TRAINING_VIEW = "workflowType=machine_learning"
