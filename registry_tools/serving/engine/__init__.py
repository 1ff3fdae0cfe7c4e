"""Handle prediction requests without a transport: batch them, predict, and notify the observers."""
