"""Tags of a version."""

DELETING_TAG = "deleting"  # a client is about to delete the version: no stage may move to it

# The last result of a monitor.
DRIFT_TAG = "drift"  # `drift: …`, `none`, or `unknown` where there were too few rows
DRIFT_AT_TAG = "drift_at"  # ISO 8601, UTC
DRIFT_RUN_TAG = "drift_run"  # the run that found it
