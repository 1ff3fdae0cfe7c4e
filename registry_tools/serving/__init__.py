"""A server that follows a stage: `registry-tools serve REF`.

`serve` binds the address and runs one process (`alone`) or one that follows and several that answer
(`supervisor`, `worker_process`). The `follower` looks where the stage points, `sources` has the
files fetched and verified, and a `worker` loads them as a `Served` and swaps. What answers knows
nothing of HTTP (`plane`, `batcher`, `served`); `app` is the edge to HTTP, and each protocol is one
file over it. No process imports pandas or the whole of MLflow until a request needs it.
"""
