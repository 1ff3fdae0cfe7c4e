"""Run the server: one process, or a supervisor with workers."""
