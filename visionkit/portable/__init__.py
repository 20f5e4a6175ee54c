"""Smaller formats of a trained model: LiteRT and ONNX, for where no server runs."""
