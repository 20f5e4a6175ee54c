"""Pictures: answers drawn on images, and figures of data and training.

Images are drawn with Pillow, figures with matplotlib's object interface: `pyplot` is
never touched, so neither the caller's figures nor the backend change. Both libraries
are imported on use.
"""

from __future__ import annotations

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    submod_attrs={
        "class_scores": ["plot_class_scores"],
        "colors": ["index_palette", "palette"],
        "confusion": ["plot_confusion_matrix"],
        "detections": ["plot_errors", "plot_precision_recall"],
        "features": ["plot_feature_maps", "plot_filters"],
        "figures": ["plot_class_counts", "plot_history", "save_figure"],
        "heat": ["draw_heat"],
        "results": ["draw_results"],
        "samples": ["plot_predictions", "plot_samples"],
    },
)
