"""Pictures: answers drawn on images, and figures of data and training.

Images are drawn with Pillow, figures with matplotlib's object interface: `pyplot` is
never touched, so neither the caller's figures nor the backend change. Both libraries
are imported on use.
"""

from __future__ import annotations

import importlib

_MODULES = {
    "draw_heat": "visionkit.visualize.heat",
    "draw_results": "visionkit.visualize.results",
    "index_palette": "visionkit.visualize.colors",
    "palette": "visionkit.visualize.colors",
    "plot_class_counts": "visionkit.visualize.figures",
    "plot_class_scores": "visionkit.visualize.class_scores",
    "plot_confusion_matrix": "visionkit.visualize.confusion",
    "plot_errors": "visionkit.visualize.detections",
    "plot_feature_maps": "visionkit.visualize.features",
    "plot_filters": "visionkit.visualize.features",
    "plot_history": "visionkit.visualize.figures",
    "plot_precision_recall": "visionkit.visualize.detections",
    "plot_predictions": "visionkit.visualize.samples",
    "plot_samples": "visionkit.visualize.samples",
    "save_figure": "visionkit.visualize.figures",
}

__all__ = sorted(_MODULES)


def __getattr__(name):
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__():
    return __all__
