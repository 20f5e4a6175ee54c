"""The pictures of a run folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from visionkit.data import DataReport, make_dataset
from visionkit.data.sources.base import Subset
from visionkit.visualize import (
    plot_class_counts,
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
    counts = np.bincount(source.labels(), minlength=len(names))
    save_figure(plot_class_counts(counts, names), folder / "class_counts.png")
    images, labels = _first(dataset)
    titles = [names[int(label)] for label in labels]
    save_figure(plot_samples(images, titles, columns=6), folder / "train_samples.png")


def draw_results(model, source, history: Path, metrics: dict, folder: Path) -> None:
    """Training curves, confusion matrix, and predictions beside the truth.

    Args:
        model: The best model.
        source: The validation source; the surest mistakes are shown first, then
            examples from all over it.
        history: The run's history.csv.
        metrics: What the evaluator said.
        folder: Where the pictures go.
    """
    save_figure(plot_history(history), folder / "training_curves.png")
    matrix = np.array(metrics["confusion_matrix"])
    figure = plot_confusion_matrix(matrix, model.class_names)
    save_figure(figure, folder / "confusion_matrix.png")
    chosen = Subset(source, _choose(metrics, len(source)), "validation")
    report = DataReport(chosen, max_bad=1.0)
    images, labels = _first(
        make_dataset(chosen, model.preprocessing, _GRID, report=report)
    )
    answers = model.predict_on_batch(np.stack(images))
    scores = np.max(answers["probabilities"], axis=-1)
    figure = plot_predictions(
        images,
        labels,
        np.asarray(answers["labels"]),
        scores,
        model.class_names,
        columns=6,
    )
    save_figure(figure, folder / "validation_predictions.png")


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
