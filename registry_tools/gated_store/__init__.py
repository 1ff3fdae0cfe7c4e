"""An MLflow registry store that moves a protected stage only on evidence.

`mlflow server --registry-store-uri gated+sqlite:///mlflow.db` loads it. Every request of MLflow's own API,
the UI's included, then obeys the policy in `REGISTRY_TOOLS_POLICY`.
"""
