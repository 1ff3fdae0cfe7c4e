"""Move stages through gates, and keep the history of every move."""
