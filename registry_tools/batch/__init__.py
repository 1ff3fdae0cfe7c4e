"""Batch scoring: files of rows through one version, on several cores, or on a cluster.

`scoring_job` cuts files into slices (`slices`), has processes (`worker_pool`) score them, and puts their
parts together. On Spark, executors do so (`spark_job`).
"""
