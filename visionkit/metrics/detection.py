"""Scores of a detector: COCO and VOC average precision, and what goes wrong."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from visionkit.metrics.coco import evaluate_coco
from visionkit.metrics.comparison import Comparison
from visionkit.metrics.errors import BACKGROUND
from visionkit.metrics.evaluator import ClassEvaluator
from visionkit.metrics.matching import find_pairs
from visionkit.metrics.objects import (
    Answers,
    Truth,
    check_rows,
    make_answers,
    make_truth,
)
from visionkit.metrics.ranking import nan_mean
from visionkit.metrics.voc import ELEVEN_POINTS, rank_voc


class DetectionEvaluator(ClassEvaluator):
    """Scores of boxes over a whole data set, in pixels of the original images.

        evaluator = DetectionEvaluator.from_columns(source.columns(), class_names)
        for image_ids, answers in batches:
            evaluator.update(image_ids, answers)
        scores = evaluator.result()

    The truth is the source's own: all objects, with crowds, difficult ones and areas.
    Only images that were answered count. Memory is the detections', some 30 bytes each.

    Args:
        class_names: K names in label order.
        score_threshold: Detections from this score on are shown in the confusion
            matrix, the counts of errors and the worst images; average precisions take
            all.
        num_mistakes: How many of the worst images `result` lists.

    Raises:
        ValueError: No class names, or a negative `num_mistakes`.
    """

    # What may lie beside boxes and labels, here and among a source's columns.
    _truth_columns: tuple[tuple[str, str], ...] = (
        ("area", "area"),
        ("is_crowd", "is_crowd"),
        ("is_difficult", "is_difficult"),
    )
    _answer_columns: tuple[str, ...] = ("boxes", "scores", "labels")

    def __init__(
        self,
        class_names: Sequence[str],
        *,
        score_threshold: float = 0.5,
        num_mistakes: int = 25,
    ):
        self.score_threshold = score_threshold
        self._truth: list[Truth] = []
        self._known: set[int] = set()
        super().__init__(class_names, num_mistakes=num_mistakes)

    @classmethod
    def from_columns(cls, columns, class_names: Sequence[str], **options):
        """An evaluator that knows the truth of a whole source.

        Args:
            columns: As `Source.columns()` gives them: `boxes`, `box_labels`,
                `row_splits` and perhaps `area`, `is_crowd`, `is_difficult`. The id of
                an image is the index of its record.
            class_names: K names in label order.
            **options: As for the constructor.
        """
        evaluator = cls(class_names, **options)
        splits = np.asarray(columns.get("row_splits", [0]))
        ids = np.arange(len(splits) - 1)
        if len(ids):
            optional = evaluator._truth_columns
            evaluator._add_truth(
                ids,
                np.repeat(ids, np.diff(splits)),
                columns["boxes"],
                columns["box_labels"],
                **{key: columns.get(column) for key, column in optional},
            )
        return evaluator

    def add_truth(
        self, image_id, boxes, labels, *, is_crowd=None, is_difficult=None, area=None
    ) -> None:
        """Tell what one image holds; an image without objects has to be told too.

        Args:
            image_id: Integer, at least 0.
            boxes: (N, 4) xyxy pixels of the original image.
            labels: (N,) int, 0 <= label < K; rows of -1 are padding.
            is_crowd: (N,) bool; default none is.
            is_difficult: (N,) bool; default none is.
            area: (N,) square pixels, of the mask where there is one; default the
                box's.

        Raises:
            ValueError: A wrong shape, a box that is not finite, a label out of range
                or an image that is known already.
        """
        ids = np.array([image_id])
        optional = {"is_crowd": is_crowd, "is_difficult": is_difficult, "area": area}
        rows = np.repeat(ids, np.size(labels))
        self._add_truth(ids, rows, boxes, labels, **optional)

    def _add_truth(self, ids, images, boxes, labels, **optional) -> None:
        columns = {"boxes": boxes, "labels": labels, "images": images, **optional}
        columns = {k: np.asarray(v) for k, v in columns.items() if v is not None}
        columns = check_rows(columns, images, len(self.class_names))
        new = {int(i) for i in ids}
        if self._known & new or min(new) < 0:
            raise ValueError(
                "The truth of an image is told once, under an id of at least 0. "
                f"Received: image {min(self._known & new or new)}"
            )
        self._known |= new
        self._truth.append(make_truth(**columns))

    def reset(self) -> None:
        """Forget every answer; the truth stays."""
        self._answers: dict[int, dict[str, np.ndarray]] = {}

    def update(self, image_ids, answers: Sequence[dict]) -> None:
        """Count one batch. An image that is answered twice has its last answer.

        Args:
            image_ids: B integers, of images whose truth is known.
            answers: B dicts of "boxes" (n, 4) xyxy pixels of the original image,
                "scores" (n,) and "labels" (n,); rows of label -1 are padding.

        Raises:
            ValueError: An image of unknown truth, a wrong shape, a box or score that
                is not finite or a label out of range. The batch is then not counted.
        """
        ids = [int(i) for i in image_ids]
        if len(ids) != len(answers):
            raise ValueError(
                "There must be one answer per image. "
                f"Received: {len(ids)} image ids, {len(answers)} answers"
            )
        unknown = set(ids) - self._known
        if unknown:
            raise ValueError(
                "Every image must have its truth, be it empty, before it is answered: "
                "add_truth(image_id, boxes, labels). Received: an answer for image "
                f"{min(unknown)}"
            )
        # Copies: views would keep whole padded batches alive.
        self._answers |= {
            i: self._check_answer(i, answer)
            for i, answer in zip(ids, answers, strict=True)
        }

    def _check_answer(self, image_id: int, answer: dict) -> dict[str, np.ndarray]:
        columns = {key: np.array(answer[key]) for key in self._answer_columns}
        return check_rows(columns, image_id, len(self.class_names))

    def summary(self) -> dict[str, float]:
        """COCO's twelve numbers alone, as `result` names them; quicker than it.

        Raises:
            ValueError: `update` has seen no image.
        """
        truth, answers, images = self._tables()
        k = len(self.class_names)
        return evaluate_coco(truth, answers, len(images), k).summary()

    def result(self) -> dict[str, Any]:
        """All scores so far; `to_json_safe` turns the dict into plain JSON values.

        A class without objects has NaN and is left out of the means; so has a size
        without objects. A class that has objects but is never found counts as 0.
        Difficult objects count nowhere, crowds as in COCO: what is found on them is
        neither right nor wrong.

        Returns:
            A dict of

            - `num_examples` (images), `num_objects`, `num_detections`;
            - COCO's twelve, equal to pycocotools: `map` (IoU .50 to .95), `map_50`,
              `map_75`, `map_small`, `map_medium`, `map_large`, `mar_1`, `mar_10`,
              `mar_100`, `mar_small`, `mar_medium`, `mar_large`;
            - `voc_map` (every point, IoU 0.5) and `voc_map_11_point`;
            - `per_class`: K dicts of name, support (objects), detections, ap, ap_50,
              ap_75, ar (100 detections), voc_ap, and the threshold with the best F1
              at IoU 0.5: threshold, precision, recall, f1;
            - `curves`: recall (101,), and beside it precision (K, 101) at IoU 0.5,
              interpolated as in COCO, and the scores (K, 101) that reach it, both to
              four decimals; NaN for a class without objects;
            - `score_threshold`, and for the detections above it `confusion_matrix`,
              (K + 1, K + 1) int64, rows are the truth, background last; `errors`, as
              `error_split` tells; `worst_images`, dicts of image_id, true_positives,
              false_positives, missed, those with the most mistakes first.

        Raises:
            ValueError: `update` has seen no image.
        """
        truth, answers, images = self._tables()
        return self._box_scores(truth, answers, images)

    def _box_scores(self, truth, answers, images) -> dict[str, Any]:
        k = len(self.class_names)
        coco = evaluate_coco(truth, answers, len(images), k)
        pairs = find_pairs(answers, truth, BACKGROUND)
        names, threshold = self.class_names, self.score_threshold
        found = Comparison(truth, answers, pairs, coco, names, threshold)
        found = found.scores(images, self.num_mistakes)
        voc = rank_voc(truth, answers, k, pairs=pairs)
        voc_ap = [ranking.average_precision() for ranking in voc]
        eleven = [ranking.average_precision(ELEVEN_POINTS) for ranking in voc]
        for row, score in zip(found["per_class"], voc_ap, strict=True):
            row["voc_ap"] = score
        return {
            "num_examples": len(images),
            "num_objects": int(truth.counted.sum()),
            "num_detections": len(answers.labels),
            **found,
            "voc_map": nan_mean(voc_ap),
            "voc_map_11_point": nan_mean(eleven),
            "score_threshold": self.score_threshold,
        }

    def _tables(self) -> tuple[Truth, Answers, np.ndarray]:
        """Truth and answers of the answered images, by number, and their ids."""
        if not self._answers:
            raise ValueError(
                "There is nothing to score: `update` has seen 0 images since "
                "`reset`. Check that the evaluated data set is not empty."
            )
        images = np.array(sorted(self._answers), np.int64)
        parts = [self._answers[i] for i in images.tolist()]
        columns = {key: np.concatenate([p[key] for p in parts]) for key in parts[0]}
        numbers = np.repeat(np.arange(len(parts)), [len(p["labels"]) for p in parts])
        first = self._truth[0]
        truth = {
            key: np.concatenate([getattr(part, key) for part in self._truth])
            for key in Truth._fields
            if getattr(first, key) is not None
        }
        answered = np.isin(truth["images"], images)
        truth = {key: rows[answered] for key, rows in truth.items()}
        truth["images"] = np.searchsorted(images, truth["images"])
        return make_truth(**truth), make_answers(numbers, **columns), images
