"""The public Python functions: each command of the command line calls one of them."""
