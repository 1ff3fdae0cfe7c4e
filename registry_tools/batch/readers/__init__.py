"""Find input files and read their rows in batches."""
