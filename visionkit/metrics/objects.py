"""Objects of many images as flat columns: what is true, and what a detector says."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from visionkit.types import PADDING_LABEL


class Truth(NamedTuple):
    """The N true objects of all images, images ascending.

    Attributes:
        images: (N,) int64, the number of the image that each belongs to, from 0.
        boxes: (N, 4) float64 xyxy, pixels of the original image.
        labels: (N,) int64.
        area: (N,) float64 square pixels; decides small, medium or large.
        is_crowd: (N,) bool: one box around many, which takes any number of answers.
        is_difficult: (N,) bool: to be found or not, neither counts.
        masks: (N,) object, COCO RLEs {"size": [height, width], "counts": bytes}, or
            None.
    """

    images: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    area: np.ndarray
    is_crowd: np.ndarray
    is_difficult: np.ndarray
    masks: np.ndarray | None = None

    @property
    def counted(self) -> np.ndarray:
        """(N,) bool, the objects that a detector has to find."""
        return ~(self.is_crowd | self.is_difficult)

    def support(self, num_classes: int) -> np.ndarray:
        """(num_classes,) int64, counted objects of each class."""
        return np.bincount(self.labels[self.counted], minlength=num_classes)


class Answers(NamedTuple):
    """The D detections of all images, the surest first.

    Equal scores are in the order of their images, and then as they were given.

    Attributes:
        images: (D,) int64, as in `Truth`.
        boxes: (D, 4) float64 xyxy, pixels of the original image.
        scores: (D,) float64.
        labels: (D,) int64.
        masks: As in `Truth`.
    """

    images: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    masks: np.ndarray | None = None


def make_truth(
    images, boxes, labels, *, area=None, is_crowd=None, is_difficult=None, masks=None
) -> Truth:
    """`Truth` of columns in any order of images; area by default the box's."""
    labels = np.asarray(labels, np.int64)
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    if area is None:
        area = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    columns = {
        "images": np.asarray(images, np.int64),
        "boxes": boxes,
        "labels": labels,
        "area": np.asarray(area, np.float64),
        "is_crowd": _flags(is_crowd, len(labels)),
        "is_difficult": _flags(is_difficult, len(labels)),
    }
    return Truth(*_take(columns, masks, np.argsort(columns["images"], kind="stable")))


def make_answers(images, boxes, scores, labels, *, masks=None) -> Answers:
    """`Answers` of columns in any order of images."""
    columns = {
        "images": np.asarray(images, np.int64),
        "boxes": np.asarray(boxes, np.float64).reshape(-1, 4),
        "scores": np.asarray(scores, np.float64),
        "labels": np.asarray(labels, np.int64),
    }
    order = np.argsort(columns["images"], kind="stable")
    order = order[np.argsort(-columns["scores"][order], kind="stable")]
    return Answers(*_take(columns, masks, order))


def check_rows(columns, images, num_classes: int) -> dict[str, np.ndarray]:
    """The columns without their padding, which is rows of label -1.

    Args:
        columns: "boxes" (n, 4), "labels" (n,) and what lies beside them.
        images: The id of the image, or of each row's; for messages.
        num_classes: K.

    Raises:
        ValueError: A wrong shape, a box or score that is not finite, or a label that
            is no integer in 0..K-1.
    """
    if not columns["boxes"].size:
        columns["boxes"] = columns["boxes"].reshape(0, 4)
    shapes = {key: column.shape for key, column in columns.items()}
    if shapes["boxes"][1:] != (4,) or len({shape[:1] for shape in shapes.values()}) > 1:
        raise ValueError(
            "Boxes must be (n, 4) and what lies beside them (n,). Received: "
            f"{shapes} for image {np.ravel(images)[:1].tolist()}"
        )
    labels = columns["labels"]
    valid = labels != PADDING_LABEL
    faults = {
        f"Labels must be integers in 0..{num_classes - 1}; background is no class": (
            (labels < 0) | (labels >= num_classes) | (labels != np.floor(labels))
        )
    }
    for key in columns.keys() & {"boxes", "scores"}:
        values = columns[key]
        message = f"The {key} must be finite; a model that gives others has diverged"
        faults[message] = ~np.isfinite(values).all(axis=tuple(range(1, values.ndim)))
    for message, wrong in faults.items():
        bad = np.flatnonzero(wrong & valid)
        if bad.size:
            image = np.broadcast_to(images, labels.shape)[bad[0]]
            numbers = {k: c for k, c in columns.items() if c.dtype != object}
            row = {key: column[bad[0]].tolist() for key, column in numbers.items()}
            raise ValueError(f"{message}. Received for image {image}: {row}")
    if valid.all():
        return columns
    return {key: column[valid] for key, column in columns.items()}


def _take(columns, masks, order) -> list:
    if masks is not None:
        columns = {**columns, "masks": np.array(masks, object)}
    return [column[order] for column in columns.values()]


def _flags(values, count) -> np.ndarray:
    return np.zeros(count, bool) if values is None else np.asarray(values, bool)
