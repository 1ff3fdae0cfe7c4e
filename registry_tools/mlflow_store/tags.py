"""The tags of a version with which a monitor tells what it found last."""

DRIFT_TAG = "drift"  # `drift: …`, `none`, or `unknown` where there were too few rows
DRIFT_AT_TAG = "drift_at"  # ISO 8601, UTC
DRIFT_RUN_TAG = "drift_run"  # the run that found it
