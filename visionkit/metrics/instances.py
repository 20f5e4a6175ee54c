"""Scores of an instance segmenter: of its boxes, its masks and their boundaries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from visionkit.metrics.coco import IOU_50, IOU_75, evaluate_coco, rle_library
from visionkit.metrics.comparison import Comparison
from visionkit.metrics.detection import DetectionEvaluator
from visionkit.metrics.errors import BACKGROUND
from visionkit.metrics.masks import boundary_precision, find_mask_pairs
from visionkit.metrics.objects import Answers, Truth
from visionkit.metrics.panoptic import panoptic_quality
from visionkit.metrics.ranking import nan_mean


class InstanceEvaluator(DetectionEvaluator):
    """Scores of boxes and masks over a whole data set, in original pixels.

    It is used as a `DetectionEvaluator`; truth and answers have masks too, which stay
    RLE: some hundred bytes each, and decoded one by one.

    Args:
        class_names: K names in label order.
        score_threshold: As for `DetectionEvaluator`, and the detections that the
            panoptic quality is about.
        num_mistakes: How many of the worst images `result` lists.

    Raises:
        ValueError: No class names, or a negative `num_mistakes`.
    """

    _truth_columns = (*DetectionEvaluator._truth_columns, ("masks", "instance_masks"))
    _answer_columns = (*DetectionEvaluator._answer_columns, "masks")

    @classmethod
    def from_columns(cls, columns, class_names: Sequence[str], **options):
        """An evaluator that knows the truth of a whole source.

        Args:
            columns: As for `DetectionEvaluator`, with `instance_masks`: (N,) object,
                RLE strings.
            class_names: K names in label order.
            **options: As for the constructor.

        Raises:
            ValueError: No masks.
        """
        if "boxes" in columns and "instance_masks" not in columns:
            raise ValueError(
                "Instances are scored against `instance_masks` beside the boxes. "
                f"Received: columns {', '.join(columns)}"
            )
        return super().from_columns(columns, class_names, **options)

    def add_truth(
        self, image_id, boxes, labels, masks, *, is_crowd=None, area=None
    ) -> None:
        """Tell what one image holds; an image without objects has to be told too.

        Args:
            image_id: Integer, at least 0.
            boxes: (N, 4) xyxy pixels of the original image.
            labels: (N,) int, 0 <= label < K; rows of -1 are padding.
            masks: N RLE strings (bytes) of the original image.
            is_crowd: (N,) bool; default none is.
            area: (N,) square pixels; default that of the masks.

        Raises:
            ValueError: As for `DetectionEvaluator`.
        """
        ids, rows = np.array([image_id]), np.full(np.size(labels), image_id)
        optional = {"is_crowd": is_crowd, "area": area, "masks": _strings(masks)}
        self._add_truth(ids, rows, boxes, labels, **optional)

    def _add_truth(self, ids, images, boxes, labels, **optional) -> None:
        if optional.get("area") is None:  # of the masks, whose size is told later
            optional["area"] = np.full(np.size(labels), np.nan)
        super()._add_truth(ids, images, boxes, labels, **optional)

    def reset(self) -> None:
        """Forget every answer; the truth stays."""
        super().reset()
        self._sizes: dict[int, tuple[int, int]] = {}

    def update(self, image_ids, answers: Sequence[dict]) -> None:
        """Count one batch. An image that is answered twice has its last answer.

        Args:
            image_ids: B integers, of images whose truth is known.
            answers: B dicts of "boxes" (n, 4) xyxy pixels of the original image,
                "scores" (n,), "labels" (n,), "masks" n RLE strings (bytes) of the
                original image, and its "image_size" (height, width); rows of label -1
                are padding.

        Raises:
            ValueError: As for `DetectionEvaluator`.
        """
        answers = [{**row, "masks": _strings(row["masks"])} for row in answers]
        super().update(image_ids, answers)
        for image_id, answer in zip(image_ids, answers, strict=True):
            self._sizes[int(image_id)] = tuple(map(int, answer["image_size"]))

    def summary(self) -> dict[str, float]:
        """COCO's twelve numbers of boxes, and of masks with `mask_` before each.

        Raises:
            ValueError: `update` has seen no image.
        """
        truth, answers, images = self._tables()
        k = len(self.class_names)
        boxes, masks = (
            evaluate_coco(truth, answers, len(images), k, iou_type=kind).summary()
            for kind in ("bbox", "segm")
        )
        return boxes | {f"mask_{name}": value for name, value in masks.items()}

    def result(self) -> dict[str, Any]:
        """All scores so far; `to_json_safe` turns the dict into plain JSON values.

        COCO's numbers know the 100 surest of a class in an image alone: of more objects
        than that not all can be found. The panoptic quality knows no such limit.

        Returns:
            The dict of `DetectionEvaluator.result`, which is about boxes, and

            - the same about masks, with `mask_` before each key: COCO's twelve, as
              pycocotools gives them for "segm", `mask_curves`,
              `mask_confusion_matrix`, `mask_errors` and `mask_worst_images`;
            - `boundary_map`, `boundary_map_50`, `boundary_map_75`: the same average
              precision where the overlap is the lower of the IoU of the masks and that
              of their boundaries (Cheng et al. 2021), which large masks do not hide;
            - `pq`, `sq`, `rq`: panoptic quality of the detections from
              `score_threshold` on, see `panoptic.panoptic_quality`, its mean IoU and
              its F1; means over the classes that are true or answered;
            - in each row of `per_class` also mask_ap, mask_ap_50, mask_ap_75, mask_ar,
              mask_threshold, mask_precision, mask_recall, mask_f1, boundary_ap and pq.

        Raises:
            ValueError: `update` has seen no image.
        """
        truth, answers, images = self._tables()
        k = len(self.class_names)
        out = self._box_scores(truth, answers, images)
        coco = evaluate_coco(truth, answers, len(images), k, iou_type="segm")
        pairs = find_mask_pairs(answers, truth, BACKGROUND)
        names, threshold = self.class_names, self.score_threshold
        found = Comparison(truth, answers, pairs, coco, names, threshold)
        found = found.scores(images, self.num_mistakes)
        edges = boundary_precision(answers, truth, pairs, k)
        panoptic = panoptic_quality(truth, answers, answers.scores >= threshold, k)

        rows = zip(out["per_class"], found.pop("per_class"), strict=True)
        for label, (row, masks) in enumerate(rows):
            new = {f"mask_{key}": masks[key] for key in masks if key not in _SHARED}
            row |= new | {
                "boundary_ap": nan_mean(edges[:, label]),
                "pq": float(panoptic.pq[label]),
            }
        return {
            **out,
            **{f"mask_{key}": value for key, value in found.items()},
            "boundary_map": nan_mean(edges),
            "boundary_map_50": nan_mean(edges[IOU_50]),
            "boundary_map_75": nan_mean(edges[IOU_75]),
            **{key: nan_mean(value) for key, value in panoptic._asdict().items()},
        }

    def _tables(self) -> tuple[Truth, Answers, np.ndarray]:
        truth, answers, images = super()._tables()
        sizes = [list(self._sizes[i]) for i in images.tolist()]  # one for all its masks
        truth, answers = (
            table._replace(masks=_with_sizes(table.masks, table.images, sizes))
            for table in (truth, answers)
        )
        unknown = np.isnan(truth.area)
        if unknown.any():
            area = truth.area.copy()
            area[unknown] = rle_library().area(truth.masks[unknown].tolist())
            truth = truth._replace(area=area)
        return truth, answers, images


_SHARED = ("name", "support", "detections")  # by boxes as by masks


def _strings(masks) -> np.ndarray:
    """(N,) object; a plain array of bytes would be as wide as its longest."""
    return np.array(list(masks), object)


def _with_sizes(masks, numbers, sizes) -> np.ndarray:
    """(N,) object, COCO's RLE dicts of strings."""
    return np.array(
        [
            {"size": sizes[number], "counts": counts}
            for counts, number in zip(masks, numbers.tolist(), strict=True)
        ],
        object,
    )
