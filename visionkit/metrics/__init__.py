"""Metrics: what a model is worth, exactly and on the host with NumPy.

`accuracy` and `pixels` are what a training step streams instead. Names are resolved on
use, so importing the package costs nothing.
"""

from __future__ import annotations

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    submod_attrs={
        "classification": ["ClassificationEvaluator", "to_json_safe"],
        "detection": ["DetectionEvaluator"],
        "instances": ["InstanceEvaluator"],
        "multi_label": ["MultiLabelEvaluator"],
        "segmentation": ["SegmentationEvaluator"],
    },
)
