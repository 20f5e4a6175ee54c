"""Scores of a classifier with any number of classes per image, on the host."""

from __future__ import annotations

from typing import Any

import numpy as np

from visionkit.metrics.evaluator import ClassEvaluator
from visionkit.metrics.ranking import (
    average_precision,
    nan_mean,
    precision_at_recall,
    roc_auc,
)

THRESHOLD = 0.5  # above which a class counts as found
RECALLS = np.linspace(0, 1, 101)  # of the curves
EPSILON = 1e-7  # Keras' own floor for a probability under a logarithm


class MultiLabelEvaluator(ClassEvaluator):
    """Scores of multi-label classification over a whole data set.

    Rankings are exact, so all scores are kept: 5 bytes per example and class.

    Args:
        class_names: K names in label order.
        num_mistakes: How many of the worst mistakes `result` lists.

    Raises:
        ValueError: No class names, or a negative `num_mistakes`.
    """

    def reset(self) -> None:
        """Forget every example."""
        k = len(self.class_names)
        self._scores = [np.zeros((0, k), np.float32)]
        self._truth = [np.zeros((0, k), bool)]
        self._ids: list[Any] = []

    def update(self, probabilities, labels, image_ids=None) -> None:
        """Count one batch.

        Args:
            probabilities: (B, K) float in [0, 1], each of its own.
            labels: (B, K) of 0 and 1.
            image_ids: B ids for the list of mistakes; default the running number of
                the example since `reset`.

        Raises:
            ValueError: A wrong shape, logits, a value that is not finite, or labels
                that are not 0 and 1. The batch is then not counted at all.
        """
        probabilities = np.asarray(probabilities).astype(np.float32)
        labels = np.asarray(labels)
        seen, count = len(self._ids), len(labels) if labels.ndim else 0
        ids = range(seen, seen + count) if image_ids is None else list(image_ids)
        self._check(probabilities, labels, ids)
        self._scores.append(probabilities)
        self._truth.append(labels.astype(bool))
        self._ids += [getattr(i, "item", lambda i=i: i)() for i in ids]

    def result(self) -> dict[str, Any]:
        """All scores so far; `to_json_safe` turns the dict into plain JSON values.

        A class of which there is no example has NaN for its average precision, recall
        and F1; one that every example has, for its AUC. NaN is left out of the means.
        A class counts as found from a probability of 0.5 on.

        Returns:
            A dict of `num_examples`, `mean_average_precision` (mean over the classes),
            `macro_auc` and `micro_auc` (areas under the ROC curve, mean over the
            classes and of all pairs together), `macro_precision`, `macro_recall`,
            `macro_f1`, `micro_f1`, `subset_accuracy` (all classes of an image right),
            `binary_cross_entropy` (nats per class, probabilities floored at 1e-7),
            `per_class` (K dicts of name, support, average_precision, auc, precision,
            recall, f1), `curves` (recall (101,), and beside it precision (K, 101), the
            best at that recall or above it) and `mistakes` (dicts of image_id, truth
            and predicted, lists of classes, and score, the largest error
            |probability - truth|; the worst first).

        Raises:
            ValueError: `update` has seen no example.
        """
        scores, truth = np.concatenate(self._scores), np.concatenate(self._truth)
        if not len(scores):
            raise ValueError(
                "There is nothing to score: `update` has seen 0 examples since "
                "`reset`. Check that the evaluated data set is not empty."
            )
        found = scores >= THRESHOLD
        rows = [
            {"name": name, **_class_scores(truth[:, k], scores[:, k], found[:, k])}
            for k, name in enumerate(self.class_names)
        ]
        means = {key: nan_mean([row[key] for row in rows]) for key in list(rows[0])[2:]}
        clipped = np.clip(np.where(truth, scores, 1 - scores), EPSILON, 1)
        return {
            "num_examples": len(scores),
            "mean_average_precision": means["average_precision"],
            "macro_auc": means["auc"],
            "micro_auc": roc_auc(truth.ravel(), scores.ravel()),
            "macro_precision": means["precision"],
            "macro_recall": means["recall"],
            "macro_f1": means["f1"],
            "micro_f1": _counts(truth, found)["f1"],
            "subset_accuracy": float((found == truth).all(axis=1).mean()),
            "binary_cross_entropy": float(-np.log(clipped, dtype=np.float64).mean()),
            "per_class": rows,
            "curves": {
                "recall": RECALLS,
                "precision": np.stack(
                    [
                        precision_at_recall(truth[:, k], scores[:, k], RECALLS)
                        for k in range(len(rows))
                    ]
                ),
            },
            "mistakes": self._mistakes(scores, truth, found),
        }

    def _mistakes(self, scores, truth, found) -> list[dict[str, Any]]:
        error = np.abs(scores - truth).max(axis=1)
        wrong = np.flatnonzero((found != truth).any(axis=1))
        worst = wrong[np.argsort(-error[wrong], kind="stable")][: self.num_mistakes]
        return [
            {
                "image_id": self._ids[i],
                "truth": np.flatnonzero(truth[i]).tolist(),
                "predicted": np.flatnonzero(found[i]).tolist(),
                "score": float(error[i]),
            }
            for i in worst
        ]

    def _check(self, probabilities, labels, ids) -> None:
        """Raise a ValueError unless the batch is sound."""
        k = len(self.class_names)
        shapes = {probabilities.shape, labels.shape, (len(ids), k)}
        if len(shapes) > 1:
            raise ValueError(
                f"Expected probabilities and labels (B, {k}) and as many image ids. "
                f"Received: probabilities {probabilities.shape}, labels "
                f"{labels.shape}, {len(ids)} image ids"
            )
        faults = {
            "Labels must be 0 or 1": (labels != 0) & (labels != 1),
            "Probabilities must be finite": ~np.isfinite(probabilities),
            "Probabilities must lie in [0, 1]; logits need a sigmoid first": (
                (probabilities < 0) | (probabilities > 1)
            ),
        }
        for message, wrong in faults.items():
            if wrong.any():
                i, j = np.argwhere(wrong)[0]
                raise ValueError(
                    f"{message}. Received: label {labels[i, j]}, probability "
                    f"{probabilities[i, j]} for image {ids[i]!r}, class {j}"
                )


def _class_scores(truth, scores, found) -> dict[str, Any]:
    ranking = {
        "support": int(truth.sum()),
        "average_precision": average_precision(truth, scores),
        "auc": roc_auc(truth, scores),
    }
    return ranking | _counts(truth, found)


def _counts(truth, found) -> dict[str, float]:
    """Precision, recall and F1; NaN without a true one, 0 where none is found."""
    right, support = int((truth & found).sum()), int(truth.sum())
    if not support:
        return dict.fromkeys(("precision", "recall", "f1"), float("nan"))
    predicted = int(found.sum())
    return {
        "precision": right / max(predicted, 1),
        "recall": right / support,
        "f1": 2 * right / (support + predicted),
    }
