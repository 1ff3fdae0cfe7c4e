"""Load a verified version and predict with it; serving and batch scoring share this."""
