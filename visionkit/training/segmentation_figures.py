"""The pictures of a segmenter's run."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from visionkit.data import DataReport, make_dataset
from visionkit.data.geometry import image_window, placements
from visionkit.data.sources.base import Subset
from visionkit.training.examples import choose_examples, spread
from visionkit.visualize import (
    plot_class_scores,
    plot_confusion_matrix,
    plot_predictions,
    save_figure,
)

_PAIRS = 12
_COUNTED = 1000  # masks that are read for the picture of the counts


def count_pixels(source) -> tuple[np.ndarray, str]:
    """(K,) pixels of each class, and in words what was counted.

    Not more than a thousand masks are read, evenly spread over the source.
    """
    counted = spread(len(source), _COUNTED)
    what = "pixels"
    if len(counted) < len(source):
        what += f" in {len(counted):,} of {len(source):,} images"
        source = Subset(source, counted, source.info.split)
    return source.class_counts(), what


def draw_segmentations(model, source, metrics: dict, folder: Path) -> None:
    """IoU of each class, what is taken for what, and predictions beside the truth.

    Args:
        model: The best model.
        source: The validation source; the worst images are shown first, then others
            from all over it.
        metrics: What the evaluator said.
        folder: Where the pictures go.
    """
    names = model.class_names
    ious = [row["iou"] for row in metrics["per_class"]]
    matrix = np.array(metrics["confusion_matrix"])
    figures = {
        "class_iou": plot_class_scores(ious, names, "IoU"),
        "confusion_matrix": plot_confusion_matrix(matrix, names, shares=True),
        "validation_predictions": _draw_pairs(model, source, metrics),
    }
    for name, figure in figures.items():
        save_figure(figure, folder / f"{name}.png")


def _draw_pairs(model, source, metrics: dict):
    """Truth and prediction of some images at the model's size, without its borders."""
    worst = {row["image_id"]: row["iou"] for row in metrics["worst_images"]}
    indices = choose_examples(list(worst), len(source), _PAIRS)
    chosen = Subset(source, indices, source.info.split)
    report = DataReport(chosen, max_bad=1.0)
    preprocessing = model.preprocessing
    images, truth, found, titles = [], [], [], []
    batches = make_dataset(chosen, preprocessing, 4, report=report, with_ids=True)
    for batch, target in batches:
        answers = np.asarray(model.predict_on_batch(batch)["segmentation"])
        target = {name: np.asarray(value) for name, value in target.items()}
        sizes = target["image_size"]
        for i, place in enumerate(placements(sizes, preprocessing)):
            window = image_window(place, sizes[i], preprocessing.image_size)
            images.append(np.asarray(batch[i])[window])
            truth.append(target["segmentation_masks"][i][window])
            found.append(answers[i][window])
            iou = worst.get(indices[target["image_id"][i]])
            titles.append("prediction" if iou is None else f"prediction, IoU {iou:.3f}")
    return plot_predictions(
        images, truth, found, class_names=model.class_names, titles=titles
    )
