"""The server `registry-tools serve REF`, which follows a stage and serves its version.

`serve` binds the address and starts the supervisor, which forks the workers (`processes`). `rollout`
follows the stage and swaps the predictor. `engine` predicts without a transport. `rest`, `grpc` and
`v2` are the protocols; they share one `service`. `observers` count, log and compare predictions.
"""
