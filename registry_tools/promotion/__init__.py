"""Promote versions through gates, roll stages back, and keep the history of all events."""
