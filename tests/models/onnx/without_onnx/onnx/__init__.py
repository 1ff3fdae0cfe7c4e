"""Stand for a package that is not installed."""

raise ModuleNotFoundError("No module named 'onnx'", name="onnx")
