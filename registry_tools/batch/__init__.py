"""Batch scoring: files of rows through one version, in batches, on several cores.

`scoring` is the act: it has `files` read, `pool` (or `spark`) answer, and `output` write. What a
row has to be is said once, in `columns`; a `worker` is the process that loads the version.
"""
