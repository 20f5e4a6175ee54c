"""Metrics: what a model is worth, exactly and on the host with NumPy.

`TopKAccuracy`, `MeanIoU` and `PixelAccuracy` are Keras metrics, which a training step
streams; the evaluators are what `evaluate` has, and need neither. Names are resolved on
use, so importing the package costs nothing.
"""

from __future__ import annotations

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    submod_attrs={
        "accuracy": ["TopKAccuracy"],
        "classification": ["ClassificationEvaluator", "to_json_safe"],
        "detection": ["DetectionEvaluator"],
        "instances": ["InstanceEvaluator"],
        "multi_label": ["MultiLabelEvaluator"],
        "pixels": ["MeanIoU", "PixelAccuracy"],
        "segmentation": ["SegmentationEvaluator"],
    },
)
