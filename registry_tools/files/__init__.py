"""Files: tables in CSV and Parquet, outputs that are complete or absent, and temporary files."""
