"""Monitor a stage: read production data, test it for drift, report, and act.

`readers` gives `production_data`, a `window` of each version goes to `drift_tests` through
`analysis`, `run_log` and `report` record the result, and `actions` retrains or rolls back.
"""
