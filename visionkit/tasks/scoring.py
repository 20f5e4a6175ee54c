"""Answers of a model against the truth: what `evaluate` reads of each task.

A scorer has `update(answers, target)` for one batch and `result()`. It needs no
TensorFlow.
"""

from __future__ import annotations

import keras
import numpy as np

from visionkit import metrics
from visionkit.data.geometry import (
    boxes_to_original,
    classes_to_original,
    placements,
)
from visionkit.ops.pixels import pixel_labels
from visionkit.types import PADDING_LABEL, Preprocessing


class ClassScorer:
    """Scores classifiers; see the evaluators' `result`.

    Args:
        class_names: Names in label order.
        multi_label: Whether an image has any number of labels.
    """

    def __init__(self, class_names, multi_label: bool = False):
        kind = "MultiLabelEvaluator" if multi_label else "ClassificationEvaluator"
        self.evaluator = getattr(metrics, kind)(class_names)
        self.result = self.evaluator.result

    def update(self, answers: dict, target: dict) -> None:
        """Add a batch.

        Args:
            answers: "probabilities" (B, K).
            target: "labels" and "image_id" (B,).
        """
        self.evaluator.update(
            np.asarray(answers["probabilities"]),
            np.asarray(target["labels"]),
            np.asarray(target["image_id"]),
        )


class DetectionScorer:
    """Scores detectors by COCO's rules; see `DetectionEvaluator.result`.

    Args:
        class_names: Names in label order.
        preprocessing: How the images became the model's input.
        source: The truth is its annotations, uncapped and in original pixels, and the
            batches must have "image_id" and "image_size". None: the truth is the
            targets, in pixels of the input.
    """

    def __init__(self, class_names, preprocessing: Preprocessing, source=None):
        self.preprocessing = preprocessing
        self.source = source
        if source is not None:
            columns = source.origin.objects()
            self.evaluator = metrics.DetectionEvaluator.from_columns(
                columns, class_names
            )
        else:
            self.evaluator = metrics.DetectionEvaluator(class_names)
        self.result = self.evaluator.result
        self.summary = self.evaluator.summary  # COCO's twelve numbers alone
        self.reset = self.evaluator.reset  # forgets the answers
        self._count = 0

    def update(self, answers: dict, target: dict) -> None:
        """Add a batch.

        Args:
            answers: Of the predictor, in pixels of the input.
            target: "image_id" (B,) and "image_size" (B, 2), or, without a source,
                "boxes" (B, M, 4) and "labels" (B, M).
        """
        answers = {name: np.asarray(value) for name, value in answers.items()}
        boxes = answers["boxes"]
        if self.source is not None:
            ids = np.asarray(target["image_id"])
            sizes = np.asarray(target["image_size"])
            place = placements(sizes, self.preprocessing)
            boxes = boxes_to_original(boxes, place, sizes)
        else:
            ids = np.arange(self._count, self._count + len(boxes))
            self._count += len(boxes)
            truths = zip(
                ids,
                np.asarray(target["boxes"]),
                np.asarray(target["labels"]),
                strict=True,
            )
            for image_id, truth, labels in truths:
                valid = labels != PADDING_LABEL
                self.evaluator.add_truth(int(image_id), truth[valid], labels[valid])
        rows = zip(
            boxes,
            answers["scores"],
            answers["labels"],
            answers["num_detections"],
            strict=True,
        )
        found = [
            {"boxes": b[:n], "scores": s[:n], "labels": c[:n]} for b, s, c, n in rows
        ]
        self.evaluator.update(ids.tolist(), found)


class SegmentationScorer:
    """Scores semantic segmentation; see `SegmentationEvaluator.result`.

    Args:
        class_names: Names in label order.
        preprocessing: How the images became the model's input.
        source: The truth is its masks, in original pixels, where the logits are mapped
            to as in prediction; the batches must have "image_id" and "image_size".
            None: the truth is the targets, in pixels of the input.
    """

    def __init__(self, class_names, preprocessing: Preprocessing, source=None):
        self.preprocessing = preprocessing
        self.source = source
        self.evaluator = metrics.SegmentationEvaluator(class_names)
        self.result = self.evaluator.result
        self.reset = self.evaluator.reset
        self._count = 0

    def update(self, answers: dict, target: dict) -> None:
        """Add a batch.

        Args:
            answers: Of the predictor: "logits" (B, h, w, K) and "segmentation" (B, h,
                w).
            target: "image_id" (B,) and "image_size" (B, 2), or, without a source,
                "segmentation_masks" (B, h, w) integers or (B, h, w, K) shares.
        """
        found = np.asarray(answers["segmentation"])
        if self.source is not None:
            ids = np.asarray(target["image_id"]).tolist()
            sizes = np.asarray(target["image_size"])
            found = self._to_original(found, answers["logits"], sizes)
            truths = [self.source.origin.mask(image_id) for image_id in ids]
        else:
            ids = range(self._count, self._count + len(found))
            self._count += len(found)
            masks = np.asarray(target["segmentation_masks"])
            truths = np.asarray(pixel_labels(masks, answers["logits"]))
        self.evaluator.update(ids, found, truths)

    def _to_original(self, found, logits, sizes) -> list[np.ndarray]:
        """Class ids of each image in its own pixels, 255 where it was not seen."""
        logits, out = np.asarray(logits), []
        places = placements(sizes, self.preprocessing)
        for i, (place, size) in enumerate(zip(places, sizes.tolist(), strict=True)):
            window = tuple(
                slice(int(start), int(start) + length)
                for start, length in zip(place[2:], size, strict=True)
            )
            # Nothing was resized, and no part of the image is outside of the frame.
            if (place[:2] == 1).all() and found[i][window].shape == tuple(size):
                out.append(found[i][window])
            else:
                out.append(classes_to_original(logits[i], place, size))
        return out


def batches_of(x, y=None, batch_size: int = 32, steps: int | None = None):
    """The batches (images, target) that `evaluate` was given, or None.

    Args:
        x: A data set that can be read again, a `keras.utils.PyDataset`, or images.
        y: The target where `x` are images.
        batch_size: Where `x` are images.
        steps: Batches at most.

    Returns:
        An iterator; None where `x` can be read only once.
    """
    if y is not None:
        starts = range(0, len(keras.tree.flatten(x)[0]), batch_size)
        batches = (_rows((x, y), start, start + batch_size) for start in starts)
    elif hasattr(x, "num_batches") and hasattr(x, "__getitem__"):
        batches = (x[i] for i in range(x.num_batches))
    elif iter(x) is x:
        return None
    else:
        batches = iter(x)
    if steps is not None:
        batches = (batch for batch, _ in zip(batches, range(steps), strict=False))
    return ((images, target) for images, target, *_ in batches)


def _rows(arrays, start: int, stop: int):
    return keras.tree.map_structure(lambda array: array[start:stop], arrays)
