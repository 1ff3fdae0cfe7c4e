"""A server that follows a stage: `registry-tools serve REF`.

`serve` binds the address and runs one process or a supervisor with workers (`processes`). `rollout`
follows the stage and swaps the predictor; `engine` predicts without a transport; `rest`, `grpc` and
`v2` are the protocols over one `service`; `observers` count, log and compare predictions.
"""
