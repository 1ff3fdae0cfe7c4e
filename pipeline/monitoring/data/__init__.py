"""The production data that the monitoring compares with the training, and its correct labels."""
