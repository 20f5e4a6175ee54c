"""Where a model looks: class activation maps, feature maps and filters.

`grad_cam`, `eigen_cam`, `feature_maps` and `filters` take arrays at the model's size
and run on TensorFlow and JAX alike; `explain` takes images of any kind and size.
"""

from __future__ import annotations

import importlib

_MODULES = {
    "Explanation": "visionkit.explaining.explanation",
    "eigen_cam": "visionkit.explaining.cam",
    "explain": "visionkit.explaining.explanation",
    "feature_maps": "visionkit.explaining.features",
    "filters": "visionkit.explaining.features",
    "grad_cam": "visionkit.explaining.cam",
}

METHODS = {"grad_cam": "Grad-CAM", "eigen_cam": "Eigen-CAM"}
"""Methods of `explain`, and their names in print."""

__all__ = ["METHODS", *sorted(_MODULES)]


def __getattr__(name):
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__():
    return __all__
