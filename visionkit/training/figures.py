"""The pictures of a run folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from visionkit.data import DataReport, make_dataset
from visionkit.data.sources.base import Subset
from visionkit.metrics.multi_label import THRESHOLD
from visionkit.training.detection_figures import draw_detections
from visionkit.training.examples import choose_examples
from visionkit.training.segmentation_figures import count_pixels, draw_segmentations
from visionkit.visualize import (
    plot_class_counts,
    plot_class_scores,
    plot_confusion_matrix,
    plot_history,
    plot_precision_recall,
    plot_predictions,
    plot_samples,
    save_figure,
)

_GRID = 24
_PAIRS = 8  # of truth and prediction, which need larger panels


def draw_data(dataset, source, folder: Path) -> None:
    """Class counts, and training images as the model sees them, with labels.

    Args:
        dataset: Training batches (images, labels), augmented.
        source: The training source.
        folder: Where the pictures go.
    """
    names = source.info.class_names
    if source.info.task == "semantic_segmentation":
        counts, what = count_pixels(source)
    else:
        counts, what = source.class_counts(), "examples"
    figure = plot_class_counts(counts, names, what)
    save_figure(figure, folder / "class_counts.png")
    if source.info.task == "classification":
        images, labels = _first(dataset)
        titles = [_title(label, names) for label in labels]
        figure = plot_samples(images, titles, columns=6)
    else:
        images, target = _first(dataset, 2 * _PAIRS)
        figure = plot_samples(images, targets=target, class_names=names, columns=4)
    save_figure(figure, folder / "train_samples.png")


def draw_curves(history: Path, monitor: str, folder: Path) -> None:
    """Training curves with the best epoch marked.

    Args:
        history: The run's history.csv.
        monitor: The column that decides which epoch is best.
        folder: Where the picture goes.
    """
    figure = plot_history(history, monitor=monitor)
    save_figure(figure, folder / "training_curves.png")


def draw_results(model, source, metrics: dict, folder: Path) -> None:
    """Scores of the classes, and predictions beside the truth.

    Args:
        model: The best model.
        source: The validation source; the surest mistakes are shown first, then
            examples from all over it.
        metrics: What the evaluator said.
        folder: Where the pictures go.
    """
    draw = {
        "classification": _draw_classes,
        "detection": draw_detections,
        "instance_segmentation": draw_detections,
        "semantic_segmentation": draw_segmentations,
    }
    draw[model.task](model, source, metrics, folder)


def _draw_classes(model, source, metrics: dict, folder: Path) -> None:
    """The confusion matrix, or each class's average precision with many labels."""
    names = model.class_names
    if model.multi_label:
        scores = [row["average_precision"] for row in metrics["per_class"]]
        figure = plot_class_scores(scores, names, "average precision")
        save_figure(figure, folder / "average_precision.png")
        figure = plot_precision_recall(
            metrics["curves"], names, scores=scores, label="precision"
        )
        save_figure(figure, folder / "precision_recall.png")
    else:
        matrix = np.array(metrics["confusion_matrix"])
        figure = plot_confusion_matrix(matrix, names)
        save_figure(figure, folder / "confusion_matrix.png")
    mistakes = [int(mistake["image_id"]) for mistake in metrics["mistakes"]]
    chosen = choose_examples(mistakes, len(source), _GRID)
    chosen = Subset(source, chosen, "validation")
    report = DataReport(chosen, max_bad=1.0)
    images, labels = _first(
        make_dataset(chosen, model.preprocessing, _GRID, report=report)
    )
    answers = model.predict_on_batch(np.stack(images))
    probabilities = np.asarray(answers["probabilities"])
    if model.multi_label:
        found = (probabilities >= THRESHOLD).astype(np.float32)
        titles = [
            f"{_title(answer, names)}\ntrue: {_title(truth, names)}"
            for answer, truth in zip(found, labels, strict=True)
        ]
        figure = plot_samples(images, titles, columns=6)
    else:
        best, scores = np.asarray(answers["labels"]), probabilities.max(axis=-1)
        figure = plot_predictions(images, labels, best, scores, names, columns=6)
    save_figure(figure, folder / "validation_predictions.png")


def _title(label, names) -> str:
    """The class of an image, or all of its classes, shares of mixed ones with them."""
    if np.ndim(label) == 0:
        return names[int(label)]
    present = np.argsort(-label, kind="stable")[: int((label > 0).sum())]
    shares = [
        f"{names[i]}{'' if label[i] == 1 else f' {label[i]:.0%}'}" for i in present
    ]
    return ", ".join(shares) or "none"


def _first(dataset, count: int = _GRID) -> tuple[list, list | dict]:
    """The first `count` images and their labels, or the columns of their targets."""
    batches, found = [], 0
    for images, target in dataset:
        if isinstance(images, dict):  # proposals lie beside them
            images = images["images"]
        batches.append((images, target))
        found += len(images)
        if found >= count:
            break
    images, target = (list(part) for part in zip(*batches, strict=True))
    images = [image for batch in images for image in np.asarray(batch)][:count]
    if not isinstance(target[0], dict):
        return images, [row for part in target for row in np.asarray(part)][:count]
    columns = {
        name: np.concatenate([np.asarray(part[name]) for part in target])[:count]
        for name in target[0]
    }
    return images, columns
