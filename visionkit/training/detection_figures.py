"""The pictures of a detector's run."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from visionkit.data import DataReport, make_dataset
from visionkit.data.sources.base import Subset
from visionkit.training.examples import choose_examples
from visionkit.types import Results
from visionkit.visualize import (
    plot_class_scores,
    plot_confusion_matrix,
    plot_errors,
    plot_precision_recall,
    plot_predictions,
    save_figure,
)

_PAIRS = 12


def draw_detections(model, source, metrics: dict, folder: Path) -> None:
    """Average precisions, what goes wrong, and predictions beside the truth.

    Args:
        model: The best model.
        source: The validation source; the images with most mistakes are shown first,
            then others from all over it.
        metrics: What the evaluator said.
        folder: Where the pictures go.
    """
    names, per_class = model.class_names, metrics["per_class"]
    scores = [row["ap_50"] for row in per_class]
    matrix = np.array(metrics["confusion_matrix"])
    figures = {
        "average_precision": plot_class_scores(scores, names, "AP at IoU 0.5"),
        "precision_recall": plot_precision_recall(metrics["curves"], names),
        "confusion_matrix": plot_confusion_matrix(matrix, names),
        "errors": plot_errors(metrics["errors"]),
    }
    for name, figure in figures.items():
        save_figure(figure, folder / f"{name}.png")

    worst = [row["image_id"] for row in metrics["worst_images"]]
    chosen = choose_examples(worst, len(source), _PAIRS)
    chosen = Subset(source, chosen, "validation")
    report = DataReport(chosen, max_bad=1.0)
    batches = make_dataset(
        chosen,
        model.preprocessing,
        _PAIRS,
        report=report,
        max_proposals=model.num_proposals,
    )
    inputs, target = next(iter(batches))
    answers = model.predict_on_batch(inputs)
    images = inputs["images"] if isinstance(inputs, dict) else inputs
    # Each class from the score on at which its F1 is best; None where it never was.
    best = np.array([row["threshold"] for row in per_class], float)
    least = np.where(np.isnan(best), metrics["score_threshold"], best)
    found = [
        _result({k: np.asarray(v[i]) for k, v in answers.items()}, least, names)
        for i in range(len(images))
    ]
    truth = [
        _result({k: np.asarray(v[i]) for k, v in target.items()}, None, names)
        for i in range(len(images))
    ]
    figure = plot_predictions(np.asarray(images), truth, found, class_names=names)
    save_figure(figure, folder / "validation_predictions.png")


def _result(row: dict, least, names) -> Results:
    labels = row["labels"]
    keep = labels >= 0
    if least is not None:
        keep &= row["scores"] >= least[np.maximum(labels, 0)]
    return Results(
        boxes=row["boxes"][keep],
        labels=labels[keep],
        scores=None if least is None else row["scores"][keep],
        label_names=[names[label] for label in labels[keep]],
    )
