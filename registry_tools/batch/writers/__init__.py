"""Write scored rows to Parquet or CSV."""
