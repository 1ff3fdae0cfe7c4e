"""Observe served predictions: metrics, the prediction log and the shadow."""
