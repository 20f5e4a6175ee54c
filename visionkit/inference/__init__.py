"""From image files to answers: the graph that an export freezes, and `predict`."""

from visionkit.inference.prediction import predict

__all__ = ["predict"]
