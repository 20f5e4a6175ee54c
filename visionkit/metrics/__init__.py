"""Metrics: what a model is worth, exactly and on the host with NumPy.

`accuracy` and `pixels` are what a training step streams instead. Names are resolved on
use, so importing the package costs nothing.
"""

from __future__ import annotations

import importlib

_MODULES = {
    "ClassificationEvaluator": "visionkit.metrics.classification",
    "DetectionEvaluator": "visionkit.metrics.detection",
    "InstanceEvaluator": "visionkit.metrics.instances",
    "MultiLabelEvaluator": "visionkit.metrics.multi_label",
    "SegmentationEvaluator": "visionkit.metrics.segmentation",
    "to_json_safe": "visionkit.metrics.classification",
}

__all__ = sorted(_MODULES)


def __getattr__(name):
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__():
    return __all__
