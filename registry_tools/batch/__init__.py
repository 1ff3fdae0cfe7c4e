"""Batch scoring: files of rows through one version, in batches, on several cores.

`scoring_job` reads files (`readers`), has an engine predict (`engines`) and writes (`writers`).
Rows go through the command (`row_stream`), or workers read row groups of Parquet (`row_groups`).
"""
