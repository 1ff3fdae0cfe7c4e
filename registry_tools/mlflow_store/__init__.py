"""The only modules of registry_tools that call MLflow's tracking and registry API."""
