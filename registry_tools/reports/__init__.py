"""Self-contained HTML pages: no script, nothing fetched, readable in print and in the dark."""
