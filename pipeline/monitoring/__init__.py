"""Monitor a stage: read production data, test it for drift, report, and act.

Read the modules in the order of their work: `monitor` runs all steps. `readers` and
`production_data` read the rows and split them by version, `window` holds the rows of one version,
`labels` joins the correct labels, `analysis` runs the tests of `registry_tools.stats.drift.drift_tests`,
`run_log` and `report` record the result, and `actions` retrains or rolls back.
"""
