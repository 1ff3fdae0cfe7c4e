"""The command line registry-tools: one module for each group of commands."""
