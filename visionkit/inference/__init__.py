"""From image files to answers: the graph that an export freezes, and `predict`."""

from __future__ import annotations

__all__ = ["predict"]


def __getattr__(name: str):
    if name != "predict":
        raise AttributeError(f"module 'visionkit.inference' has no attribute {name!r}")
    from visionkit.inference.prediction import predict

    globals()[name] = predict
    return predict
