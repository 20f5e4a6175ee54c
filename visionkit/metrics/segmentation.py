"""Scores of masks over a whole data set, in pixels of the original images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from visionkit.metrics.evaluator import ClassEvaluator
from visionkit.metrics.ranking import nan_mean
from visionkit.types import VOID_CLASS

BOUNDARY_WIDTH = 0.02  # of the diagonal: Cheng et al. 2021, "Boundary IoU"


class SegmentationEvaluator(ClassEvaluator):
    """Scores of semantic segmentation, streamed image by image on the host.

    Counts are exact integers, over all pixels of all images together, so that large
    images count for more than small ones. Void pixels of the truth count nowhere. A
    pixel that the model never saw (255 in the answer) is a missed one: it is wrong, but
    no class's answer.

    Args:
        class_names: K names in label order, K of at most 255.
        num_mistakes: How many of the worst images `result` lists.
        boundary_width: How deep the boundary of a region reaches into it, as a share of
            the image's diagonal.

    Raises:
        ValueError: No class names, or a negative `num_mistakes`.
    """

    def __init__(
        self,
        class_names: Sequence[str],
        *,
        num_mistakes: int = 25,
        boundary_width: float = BOUNDARY_WIDTH,
    ):
        self.boundary_width = boundary_width
        super().__init__(class_names, num_mistakes=num_mistakes)

    def reset(self) -> None:
        """Forget every image."""
        k = len(self.class_names)
        self._confusion = np.zeros((k, k + 1), np.int64)  # last column: not answered
        self._boundary = np.zeros((3, k), np.int64)  # right, true, answered
        self._images: list[tuple[Any, float]] = []  # id, mean IoU

    def update(self, image_ids, predicted: Sequence, truths: Sequence) -> None:
        """Count some images.

        Args:
            image_ids: Their B ids, for the list of the worst.
            predicted: B arrays (H, W) uint8 of class ids, 255 where there is no answer.
            truths: B arrays (H, W) uint8 of class ids, 255 = void.

        Raises:
            ValueError: Another number of masks, a mask of another size than its truth,
                or a value that is neither a class nor 255. None is then counted.
        """
        ids, masks = list(image_ids), []
        for image_id, *pair in zip(ids, predicted, truths, strict=True):
            pair = [np.asarray(mask) for mask in pair]
            self._check(image_id, *pair)
            masks.append([mask.astype(np.uint8, copy=False) for mask in pair])
        for image_id, (answer, truth) in zip(ids, masks, strict=True):
            confusion = self._compare(answer, truth)
            self._confusion += confusion
            self._boundary += self._compare_boundaries(answer, truth)
            iou = nan_mean(_overlaps(confusion)[0])
            number = getattr(image_id, "item", lambda i=image_id: i)()
            self._images.append((number, iou))

    def result(self) -> dict[str, Any]:
        """All scores so far; `to_json_safe` turns the dict into plain JSON values.

        A class that is neither in the truth nor in an answer has NaN and is left out of
        the means. One that is only answered has an IoU and Dice of 0, which do count.
        Precision is NaN where a class was never answered, recall where it is never
        true.

        Returns:
            A dict of `num_examples` (images), `num_pixels` (not void), `mean_iou`,
            `pixel_accuracy`, `mean_accuracy` (mean recall over the classes in the
            truth), `frequency_weighted_iou` (each class by its share of the truth),
            `mean_dice`, `boundary_iou` (mean over the classes of the IoU of the
            boundaries of truth and answer; what is void in the truth is so in the
            answer), `unanswered_pixels`, `per_class` (K dicts of name, iou, dice,
            precision, recall, boundary_iou, truth_pixels, predicted_pixels),
            `confusion_matrix` ((K, K) int64, rows are the truth) and `worst_images`
            (dicts of image_id and iou, the mean over the image's classes, lowest first;
            perfect ones are not listed).

        Raises:
            ValueError: `update` has seen no image.
        """
        if not self._images:
            raise ValueError(
                "There is nothing to score: `update` has seen 0 images since "
                "`reset`. Check that the evaluated data set is not empty."
            )
        iou, dice = _overlaps(self._confusion)
        right = self._confusion.diagonal()
        truth, answered = self._confusion.sum(1), self._confusion[:, :-1].sum(0)
        total = int(truth.sum())
        boundary_iou = _ratio(
            self._boundary[0], self._boundary[1:].sum(0) - self._boundary[0]
        )
        recall = _ratio(right, truth)
        rows = {
            "name": np.array(self.class_names, object),
            "iou": iou,
            "dice": dice,
            "precision": _ratio(right, answered),
            "recall": recall,
            "boundary_iou": boundary_iou,
            "truth_pixels": truth,
            "predicted_pixels": answered,
        }
        columns = [column.tolist() for column in rows.values()]
        return {
            "num_examples": len(self._images),
            "num_pixels": total,
            "mean_iou": nan_mean(iou),
            "pixel_accuracy": float(_ratio(right.sum(), total)),
            "mean_accuracy": nan_mean(recall),
            "frequency_weighted_iou": float(
                _ratio((truth * np.nan_to_num(iou)).sum(), total)
            ),
            "mean_dice": nan_mean(dice),
            "boundary_iou": nan_mean(boundary_iou),
            "unanswered_pixels": int(self._confusion[:, -1].sum()),
            "per_class": [
                dict(zip(rows, row, strict=True)) for row in zip(*columns, strict=True)
            ],
            "confusion_matrix": self._confusion[:, :-1].copy(),
            "worst_images": self._worst(),
        }

    def _check(self, image_id, answer, truth) -> None:
        if answer.ndim != 2 or answer.shape != truth.shape:
            raise ValueError(
                "An answer and its truth must both be (H, W) of the same size. "
                f"Received for image {image_id}: {answer.shape} and {truth.shape}"
            )
        k = len(self.class_names)
        for name, mask in {"answer": answer, "truth": truth}.items():
            wrong = ((mask < 0) | (mask >= k)) & (mask != VOID_CLASS)
            if mask.dtype.kind not in "iu" or wrong.any():
                raise ValueError(
                    f"Masks must hold integers in 0..{k - 1}, or {VOID_CLASS}. "
                    f"Received in the {name} of image {image_id}: "
                    f"{mask[wrong][:1].tolist()}, "
                    f"{int(wrong.sum())} such pixels, dtype {mask.dtype}"
                )

    def _compare(self, answer, truth) -> np.ndarray:
        """(K, K + 1) int64, rows are the truth, last column: not answered."""
        k = len(self.class_names)
        valid = truth != VOID_CLASS
        columns = np.minimum(answer[valid], k)
        cells = truth[valid].astype(np.int64) * (k + 1) + columns
        return np.bincount(cells, minlength=k * (k + 1)).reshape(k, k + 1)

    def _compare_boundaries(self, answer, truth) -> np.ndarray:
        """(3, K) int64: pixels of both boundaries, of the truth's, of the answer's."""
        # Where the truth stops being known, so does what is asked of the answer.
        answer = np.where(truth == VOID_CLASS, VOID_CLASS, answer).astype(np.uint8)
        depth = boundary_depth(truth.shape, self.boundary_width)
        true, answered = (
            np.where(boundary(mask, depth), mask, VOID_CLASS)
            for mask in (truth, answer)
        )
        right = np.where(true == answered, true, VOID_CLASS)
        return np.array(
            [
                np.bincount(mask.ravel(), minlength=256)[: len(self.class_names)]
                for mask in (right, true, answered)
            ]
        )

    def _worst(self) -> list[dict[str, Any]]:
        """Images with mistakes, the worst first; all-void ones have no score."""
        rows = [(i, iou) for i, iou in self._images if iou < 1]
        rows.sort(key=lambda row: row[1])
        return [{"image_id": i, "iou": iou} for i, iou in rows[: self.num_mistakes]]


def boundary_depth(image_size, width: float = BOUNDARY_WIDTH) -> int:
    """Pixels that are `width` of the diagonal of (height, width), at least 1."""
    return max(1, round(width * float(np.hypot(*image_size))))


def boundary(mask: np.ndarray, depth: int) -> np.ndarray:
    """Which pixels lie near the edge of their region, or of the image.

    What repeated erosion of each class's mask would take away, for all at once.

    Args:
        mask: (H, W) uint8.
        depth: At least 1: the distance (of a king's moves) to a pixel of another value
            or outside, up to which a pixel belongs to the boundary.

    Returns:
        (H, W) bool.
    """
    import cv2

    kernel = np.ones((2 * depth + 1, 2 * depth + 1), np.uint8)
    edge = (cv2.erode(mask, kernel) != mask) | (cv2.dilate(mask, kernel) != mask)
    edge[:depth] = edge[-depth:] = True
    edge[:, :depth] = edge[:, -depth:] = True
    return edge


def _overlaps(confusion) -> tuple[np.ndarray, np.ndarray]:
    """IoU and Dice (K,) of a (K, K + 1) matrix, NaN for classes that are nowhere."""
    right = confusion.diagonal()
    both = confusion.sum(axis=1) + confusion[:, :-1].sum(axis=0)
    return _ratio(right, both - right), _ratio(2 * right, both)


def _ratio(part, whole) -> np.ndarray:
    """part / whole, NaN where there is nothing."""
    return np.where(whole == 0, np.nan, part / np.maximum(whole, 1))
