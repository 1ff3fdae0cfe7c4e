"""Names of the tags of versions that several modules use."""

DELETING_TAG = "deleting"  # a client is about to delete the version: no stage may move to it

# The last result of the monitoring.
DRIFT_TAG = "drift"  # `drift: …`, `none`, or `unknown` if there were too few rows
DRIFT_AT_TAG = "drift_at"  # ISO 8601, UTC
DRIFT_RUN_TAG = "drift_run"  # the run with the result
