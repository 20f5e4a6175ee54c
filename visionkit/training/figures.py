"""The pictures of a run folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from visionkit.data import DataReport, make_dataset
from visionkit.data.sources.base import Subset
from visionkit.metrics.multi_label import THRESHOLD
from visionkit.visualize import (
    plot_class_counts,
    plot_class_scores,
    plot_confusion_matrix,
    plot_history,
    plot_predictions,
    plot_samples,
    save_figure,
)

_GRID = 24


def draw_data(dataset, source, folder: Path) -> None:
    """Class counts, and training images as the model sees them, with labels.

    Args:
        dataset: Training batches (images, labels), augmented.
        source: The training source.
        folder: Where the pictures go.
    """
    names = source.info.class_names
    figure = plot_class_counts(source.class_counts(), names)
    save_figure(figure, folder / "class_counts.png")
    images, labels = _first(dataset)
    titles = [_title(label, names) for label in labels]
    save_figure(plot_samples(images, titles, columns=6), folder / "train_samples.png")


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

    The scores are the confusion matrix, or the average precision of each class where
    an image has any number of labels.

    Args:
        model: The best model.
        source: The validation source; the surest mistakes are shown first, then
            examples from all over it.
        metrics: What the evaluator said.
        folder: Where the pictures go.
    """
    names = model.class_names
    if model.multi_label:
        scores = [row["average_precision"] for row in metrics["per_class"]]
        figure = plot_class_scores(scores, names, "average precision")
        save_figure(figure, folder / "average_precision.png")
    else:
        matrix = np.array(metrics["confusion_matrix"])
        figure = plot_confusion_matrix(matrix, names)
        save_figure(figure, folder / "confusion_matrix.png")
    chosen = Subset(source, _choose(metrics, len(source)), "validation")
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


def _choose(metrics: dict, count: int) -> list[int]:
    """Record indices: up to half a grid of mistakes, then evenly spread ones."""
    mistakes = [int(m["image_id"]) for m in metrics["mistakes"][: _GRID // 2]]
    spread = np.linspace(0, count - 1, min(_GRID, count)).astype(int).tolist()
    return list(dict.fromkeys(mistakes + spread))[:_GRID]


def _first(dataset) -> tuple[list, list]:
    images, labels = [], []
    for batch_images, batch_labels in dataset:
        images.extend(np.asarray(batch_images))
        labels.extend(np.asarray(batch_labels))
        if len(images) >= _GRID:
            break
    return images[:_GRID], labels[:_GRID]
