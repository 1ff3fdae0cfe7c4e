"""A server that follows a stage: `registry-tools serve REF`.

One process looks after the registry and the workers (`supervisor`, `follower`); each worker answers
requests (`worker`, `app`). What a worker answers with is a `served.Served`, which knows nothing of
HTTP; the protocols are thin over it. Workers import no MLflow until a request needs it.
"""
