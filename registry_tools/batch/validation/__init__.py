"""Check and convert the columns of a batch."""
