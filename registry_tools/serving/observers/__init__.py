"""Observe served predictions: metrics, traces, the prediction log and the shadow."""
