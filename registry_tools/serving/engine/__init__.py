"""Handle prediction requests without a transport: route to a predictor, batch, predict."""
