"""Where a model looks: class activation maps, feature maps and filters.

`grad_cam`, `eigen_cam`, `feature_maps` and `filters` take arrays at the model's size
and run on TensorFlow and JAX alike; `explain` takes images of any kind and size.
"""

from __future__ import annotations

import lazy_loader as lazy

__getattr__, __dir__, _names = lazy.attach(
    __name__,
    submod_attrs={
        "cam": ["eigen_cam", "grad_cam"],
        "explanation": ["Explanation", "explain"],
        "features": ["feature_maps", "filters"],
    },
)

METHODS = {"grad_cam": "Grad-CAM", "eigen_cam": "Eigen-CAM"}
"""Methods of `explain`, and their names in print."""

__all__ = ["METHODS", *_names]
