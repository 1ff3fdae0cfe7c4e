"""The tasks that a model can have, and the metric by which each is judged unless you name another one."""

CLASSIFICATION, REGRESSION = "classification", "regression"
DEFAULT_METRICS = {CLASSIFICATION: "accuracy", REGRESSION: "rmse"}
