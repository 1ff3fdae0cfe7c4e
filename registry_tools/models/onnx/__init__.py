"""Convert a scikit-learn model to ONNX, in float64, and check that both predict the same labels."""
