"""The tags of a version in which a monitor stores its last result."""

DRIFT_TAG = "drift"  # `drift: …`, `none`, or `unknown` where there were too few rows
DRIFT_AT_TAG = "drift_at"  # ISO 8601, UTC
DRIFT_RUN_TAG = "drift_run"  # the run that found it
