"""Scores of a classifier, streamed batch by batch on the host."""

from __future__ import annotations

import math
import os
from typing import Any

import numpy as np

from visionkit.metrics.evaluator import ClassEvaluator
from visionkit.metrics.ranking import nan_mean, roc_auc

CALIBRATION_BINS = 15  # Guo et al. 2017, "On Calibration of Modern Neural Networks"
TOP_K = 5  # the ILSVRC convention
EPSILON = 1e-7  # Keras' own floor for a probability under a logarithm
MAX_SCORES = 100_000_000  # kept for the AUC, 400 MB; beyond it there is none
SUM_TOLERANCE = 1e-2  # what half precision loses over a thousand classes


class ClassificationEvaluator(ClassEvaluator):
    """Scores of single-label classification over a whole data set.

    Memory is 4 bytes per example and class, for the exact AUC, and O(K²). Ties are
    broken towards the lower class index, in top-1 and in top-5 alike, as `argmax` does.

    Args:
        class_names: K names in label order.
        num_mistakes: How many of the worst mistakes `result` lists.

    Raises:
        ValueError: No class names, or a negative `num_mistakes`.
    """

    def reset(self) -> None:
        """Forget every example."""
        k = len(self.class_names)
        self._confusion = np.zeros((k, k), np.int64)
        self._in_top_k = 0
        self._cross_entropy = 0.0
        # Rows: examples, summed confidence, right answers.
        self._calibration = np.zeros((3, CALIBRATION_BINS), np.float64)
        self._mistakes: list[dict[str, Any]] = []
        self._scores: list[np.ndarray] = []
        self._labels: list[np.ndarray] = []

    def update(self, probabilities, labels, image_ids=None) -> None:
        """Count one batch.

        Args:
            probabilities: (B, K) float in [0, 1], each row sums to 1.
            labels: (B,) int, the true classes, 0 <= label < K.
            image_ids: B ids for the list of mistakes; default the running number of
                the example since `reset`.

        Raises:
            ValueError: A wrong shape, logits, a value that is not finite or a label
                out of range. The batch is then not counted at all.
        """
        seen = int(self._confusion.sum())
        probabilities = np.asarray(probabilities).astype(np.float64)
        labels = np.asarray(labels)
        count = len(labels) if labels.ndim else 0
        ids = range(seen, seen + count) if image_ids is None else list(image_ids)
        self._check(probabilities, labels, ids)
        labels = labels.astype(np.int64)

        k = len(self.class_names)
        predicted = probabilities.argmax(axis=1)
        score = probabilities[np.arange(count), predicted]
        right = predicted == labels
        self._confusion += np.bincount(labels * k + predicted, minlength=k * k).reshape(
            k, k
        )
        truth = np.take_along_axis(probabilities, labels[:, None], axis=1)  # (B, 1)
        lower = np.arange(k) < labels[:, None]
        rank = ((probabilities > truth) | ((probabilities == truth) & lower)).sum(1)
        self._in_top_k += int((rank < TOP_K).sum())
        self._cross_entropy -= np.log(np.clip(truth, EPSILON, 1.0)).sum()

        # Bins are (m / 15, (m + 1) / 15], as in the paper.
        bins = np.ceil(score * CALIBRATION_BINS).astype(np.int64) - 1
        bins = bins.clip(0, CALIBRATION_BINS - 1)
        for row, weights in zip(
            self._calibration, (np.ones(count), score, right), strict=True
        ):
            row += np.bincount(bins, weights, CALIBRATION_BINS)
        self._keep_mistakes(ids, labels, predicted, score, np.flatnonzero(~right))
        if (seen + count) * k <= MAX_SCORES:
            self._scores.append(probabilities.astype(np.float32))
            self._labels.append(labels)

    def result(self) -> dict[str, Any]:
        """All scores so far; `to_json_safe` turns the dict into plain JSON values.

        A class without examples has NaN for precision, recall and F1 and is left out
        of the macro means. A class that has examples but is never predicted has
        precision and F1 of 0, which do count.

        Returns:
            A dict of `num_examples`, `accuracy`, `top_5_accuracy` (only if K > 5),
            `balanced_accuracy` (mean recall over the classes, which is also
            `macro_recall`), `macro_precision`, `macro_recall`, `macro_f1`, `macro_auc`
            (area under the ROC curve of each class against the rest, mean over the
            classes that have examples; NaN above 1e8 scores),
            `expected_calibration_error` (15 bins of the top-1 probability),
            `cross_entropy` (nats, probabilities floored at 1e-7), `per_class` (K
            dicts of name, support, precision, recall, f1), `confusion_matrix` ((K, K)
            int64, rows are the truth) and `mistakes` (dicts of image_id, truth,
            predicted, score; the most confident first, earlier first among equals).

        Raises:
            ValueError: `update` has seen no example.
        """
        total = int(self._confusion.sum())
        if not total:
            raise ValueError(
                "There is nothing to score: `update` has seen 0 examples since "
                "`reset`. Check that the evaluated data set is not empty."
            )
        right = np.diag(self._confusion)
        support = self._confusion.sum(axis=1)
        predicted = self._confusion.sum(axis=0)
        absent = support == 0
        precision = np.where(absent, np.nan, right / np.maximum(predicted, 1))
        recall = np.where(absent, np.nan, right / np.maximum(support, 1))
        f1 = np.where(absent, np.nan, 2 * right / np.maximum(support + predicted, 1))

        bin_count, confidence, bin_right = self._calibration
        scores = {"num_examples": total, "accuracy": float(right.sum() / total)}
        if len(self.class_names) > TOP_K:
            scores[f"top_{TOP_K}_accuracy"] = self._in_top_k / total
        macro_recall = float(np.nanmean(recall))
        return scores | {
            "balanced_accuracy": macro_recall,
            "macro_precision": float(np.nanmean(precision)),
            "macro_recall": macro_recall,
            "macro_f1": float(np.nanmean(f1)),
            "macro_auc": self._macro_auc(total),
            "expected_calibration_error": float(
                np.abs(confidence - bin_right).sum() / bin_count.sum()
            ),
            "cross_entropy": float(self._cross_entropy / total),
            "per_class": [
                {"name": name, "support": n, "precision": p, "recall": r, "f1": f}
                for name, n, p, r, f in zip(
                    self.class_names,
                    support.tolist(),
                    precision.tolist(),
                    recall.tolist(),
                    f1.tolist(),
                    strict=True,
                )
            ],
            "confusion_matrix": self._confusion.copy(),
            "mistakes": [dict(mistake) for mistake in self._mistakes],
        }

    def _macro_auc(self, total: int) -> float:
        """Mean over the classes of each one's AUC against the rest."""
        k = len(self.class_names)
        if total * k > MAX_SCORES:
            return math.nan
        scores, labels = np.concatenate(self._scores), np.concatenate(self._labels)
        return nan_mean([roc_auc(labels == i, scores[:, i]) for i in range(k)])

    def _check(self, probabilities, labels, ids) -> None:
        """Raise a ValueError unless the batch is sound."""
        k = len(self.class_names)
        if (
            probabilities.ndim != 2
            or probabilities.shape[1] != k
            or labels.shape != probabilities.shape[:1]
            or len(ids) != len(labels)
        ):
            raise ValueError(
                f"Expected probabilities (B, {k}), labels (B,) and as many image ids. "
                f"Received: probabilities {probabilities.shape}, labels "
                f"{labels.shape}, {len(ids)} image ids"
            )
        if labels.dtype.kind not in "iu":
            raise ValueError(
                "`labels` must be integers, one class index per example. "
                f"Received: dtype {labels.dtype}"
            )
        wrong = np.flatnonzero((labels < 0) | (labels >= k))
        if wrong.size:
            raise ValueError(
                f"Labels must lie in 0..{k - 1}. Received: label {labels[wrong[0]]} "
                f"for image {ids[wrong[0]]!r} ({wrong.size} such labels in the batch)"
            )
        wrong = np.flatnonzero(~np.isfinite(probabilities).all(axis=1))
        if wrong.size:
            raise ValueError(
                "Probabilities must be finite. Received: NaN or infinity for image "
                f"{ids[wrong[0]]!r} ({wrong.size} such rows in the batch). The model "
                "has probably diverged."
            )
        wrong = np.flatnonzero(
            (np.abs(probabilities.sum(axis=1) - 1) > SUM_TOLERANCE)
            | (probabilities < 0).any(axis=1)
        )
        if wrong.size:
            row = probabilities[wrong[0]]
            raise ValueError(
                "Each row of probabilities must lie in [0, 1] and sum to 1; logits "
                f"need a softmax first. Received: sum {row.sum():.6g}, minimum "
                f"{row.min():.6g} for image {ids[wrong[0]]!r}"
            )

    def _keep_mistakes(self, ids, labels, predicted, score, wrong) -> None:
        """Merge the batch's mistakes into the list of the worst."""
        self._mistakes += [
            {
                "image_id": getattr(ids[i], "item", lambda i=i: ids[i])(),
                "truth": int(labels[i]),
                "predicted": int(predicted[i]),
                "score": float(score[i]),
            }
            for i in wrong
        ]
        self._mistakes.sort(key=lambda mistake: -mistake["score"])  # stable
        del self._mistakes[self.num_mistakes :]


def to_json_safe(value):
    """`value` in types that strict JSON knows.

    Arrays become lists, NumPy numbers Python's, bytes and paths strings; NaN and
    infinities, which JSON lacks, become None. Keys become strings.
    """
    if isinstance(value, dict):
        return {str(key): to_json_safe(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return to_json_safe(value.tolist())
    if isinstance(value, list | tuple):
        return [to_json_safe(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, bytes | os.PathLike):
        return os.fsdecode(value)
    return value
