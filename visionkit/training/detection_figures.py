"""The pictures of a run that finds objects, as boxes or as masks."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from visionkit.data import DataReport, make_dataset
from visionkit.data.instance_masks import InstanceMasks
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

    Where there are masks, they decide what is right.

    Args:
        model: The best model.
        source: The validation source; the images with most mistakes are shown first,
            then others from all over it.
        metrics: What the evaluator said.
        folder: Where the pictures go.
    """
    names, per_class = model.class_names, metrics["per_class"]
    of, at = ("mask_", "mask IoU 0.5") if "mask_map" in metrics else ("", "IoU 0.5")
    scores, curves = [row[f"{of}ap_50"] for row in per_class], metrics[f"{of}curves"]
    matrix = np.array(metrics[f"{of}confusion_matrix"])
    figures = {
        "average_precision": plot_class_scores(scores, names, f"AP at {at}"),
        "precision_recall": plot_precision_recall(
            curves, names, label=f"precision at {at}"
        ),
        "confusion_matrix": plot_confusion_matrix(matrix, names),
        "errors": plot_errors(metrics[f"{of}errors"]),
    }
    for name, figure in figures.items():
        save_figure(figure, folder / f"{name}.png")

    # Each class from the score on at which its F1 is best; None where it never was.
    best = np.array([row[f"{of}threshold"] for row in per_class], float)
    least = np.where(np.isnan(best), metrics["score_threshold"], best)
    worst = [row["image_id"] for row in metrics[f"{of}worst_images"]]
    figure = _draw_pairs(model, source, worst, least)
    save_figure(figure, folder / "validation_predictions.png")


def _draw_pairs(model, source, worst: list[int], least):
    """Truth and prediction of some images, at the model's size."""
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
    images = np.asarray(inputs["images"] if isinstance(inputs, dict) else inputs)
    names, size = model.class_names, images.shape[1:3]
    found, truth = (
        [
            _result({k: np.asarray(v[i]) for k, v in rows.items()}, limit, names, size)
            for i in range(len(images))
        ]
        for rows, limit in ((answers, least), (target, None))
    )
    return plot_predictions(images, truth, found, class_names=names)


def _result(row: dict, least, names, image_size) -> Results:
    labels = row["labels"]
    keep = labels >= 0
    if least is not None:
        keep &= row["scores"] >= least[np.maximum(labels, 0)]
    boxes, masks = row["boxes"][keep], None
    if "masks" in row:
        masks = InstanceMasks.from_boxes(row["masks"][keep], boxes, image_size)
    return Results(
        boxes=boxes,
        labels=labels[keep],
        scores=None if least is None else row["scores"][keep],
        label_names=[names[label] for label in labels[keep]],
        masks=masks,
    )
