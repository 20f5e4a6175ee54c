"""Detections held against the objects: what is right, what is wrong, and how."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import numpy as np

from visionkit.metrics.coco import IOU_50, IOU_75, RECALLS, CocoCurves
from visionkit.metrics.curves import rank_classes
from visionkit.metrics.errors import confusion_matrix, error_split
from visionkit.metrics.matching import Matches, Pairs, match
from visionkit.metrics.objects import Answers, Truth


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Everything that follows from one measure of overlap, of boxes or of masks.

    Args:
        truth: The objects.
        answers: The detections.
        pairs: Which of them overlap, from `errors.BACKGROUND` on.
        coco: By the same measure.
        class_names: K names in label order.
        score_threshold: Detections from this score on are shown in the confusion
            matrix, the counts of errors and the worst images.
    """

    truth: Truth
    answers: Answers
    pairs: Pairs
    coco: CocoCurves
    class_names: tuple[str, ...]
    score_threshold: float

    def scores(self, image_ids, num_mistakes: int) -> dict[str, Any]:
        """COCO's twelve numbers, and what `DetectionEvaluator.result` tells beside.

        Args:
            image_ids: (images,) int64.
            num_mistakes: How many of the worst images are listed.

        Returns:
            A dict of the twelve, `per_class`, `curves`, `confusion_matrix`, `errors`
            and `worst_images`.
        """
        shown = self.answers.scores >= self.score_threshold
        case = (self.truth, self.answers, self.pairs, self.matches, shown)
        k = len(self.class_names)
        return {
            **self.coco.summary(),
            "per_class": self._per_class(),
            "curves": {
                "recall": RECALLS,
                "precision": _curve(self.coco.precision, self.coco.precision),
                "scores": _curve(self.coco.scores, self.coco.precision),
            },
            "confusion_matrix": confusion_matrix(*case, k),
            "errors": error_split(*case, k),
            "worst_images": self._worst(shown, image_ids, num_mistakes),
        }

    @functools.cached_property
    def matches(self) -> Matches:
        """At an overlap of 0.5."""
        return match(self.answers, self.truth, self.pairs)

    def _per_class(self) -> list[dict[str, Any]]:
        k = len(self.class_names)
        rankings = rank_classes(
            self.answers.labels,
            self.answers.scores,
            self.matches.right,
            ~self.matches.ignored,
            self.truth.support(k),
        )
        detections = np.bincount(self.answers.labels, minlength=k).tolist()
        return [
            {
                "name": name,
                "support": ranking.support,
                "detections": detections[label],
                "ap": self.coco.mean_precision(label=label),
                "ap_50": self.coco.mean_precision(IOU_50, label=label),
                "ap_75": self.coco.mean_precision(IOU_75, label=label),
                "ar": self.coco.mean_recall(label=label),
                **ranking.best_f1(),
            }
            for label, (name, ranking) in enumerate(
                zip(self.class_names, rankings, strict=True)
            )
        ]

    def _worst(self, shown, image_ids, num_mistakes) -> list[dict[str, Any]]:
        def count(numbers, chosen):
            return np.bincount(numbers[chosen], minlength=len(image_ids))

        answers, truth, matches = self.answers, self.truth, self.matches
        columns = {
            "image_id": image_ids,
            "true_positives": count(answers.images, matches.right & shown),
            "false_positives": count(answers.images, matches.wrong & shown),
            "missed": count(truth.images, matches.missed(truth, shown)),
        }
        mistakes = columns["false_positives"] + columns["missed"]
        order = np.argsort(-mistakes, kind="stable")[:num_mistakes]
        return [
            {key: int(column[i]) for key, column in columns.items()}
            for i in order
            if mistakes[i]
        ]


def _curve(values, precision) -> np.ndarray:
    """(K, 101) at IoU 0.5, all sizes, 100 detections; NaN where undefined."""
    values, precision = (array[IOU_50, :, :, 0, -1].T for array in (values, precision))
    return np.where(precision > -1, values, np.nan).round(4)
