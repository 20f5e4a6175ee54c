"""Answers of a model against the truth: what `evaluate` reads of each task.

A scorer has `update(answers, target)` for one batch and `result()`; of all but classes
also `add(image_id, results)`, for what `predict` says of an image of its source. It
needs no TensorFlow.
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
from visionkit.data.instance_masks import InstanceMasks
from visionkit.data.rle import check_runs, decode_runs
from visionkit.ops.pixels import pixel_labels
from visionkit.paste import reframe_masks
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

    evaluator_type = "DetectionEvaluator"

    def __init__(self, class_names, preprocessing: Preprocessing, source=None):
        self.preprocessing = preprocessing
        self.source = source
        kind = getattr(metrics, self.evaluator_type)
        if source is not None:
            self._objects = source.origin.objects()
            self.evaluator = kind.from_columns(self._objects, class_names)
        else:
            self.evaluator = kind(class_names)
        self.result = self.evaluator.result
        self.summary = self.evaluator.summary  # COCO's numbers alone
        self.reset = self.evaluator.reset  # forgets the answers
        self._count = 0

    def update(self, answers: dict, target: dict) -> None:
        """Add a batch.

        Args:
            answers: Of the predictor, in pixels of the input.
            target: "image_id" (B,) and "image_size" (B, 2), or, without a source,
                "boxes" (B, M, 4) and "labels" (B, M).
        """
        answers, target = (
            {name: np.asarray(value) for name, value in columns.items()}
            for columns in (answers, target)
        )
        count = len(answers["boxes"])
        if self.source is not None:
            ids, sizes = target["image_id"].tolist(), target["image_size"]
            answers |= self._to_original(answers, sizes)
        else:
            ids = list(range(self._count, self._count + count))
            self._count += count
            sizes = np.tile(self.preprocessing.image_size, (count, 1))
            valid = target["labels"] != PADDING_LABEL
            for i, image_id in enumerate(ids):
                columns = self._truth_of(target, i, valid[i], sizes[i])
                self.evaluator.add_truth(image_id, *columns)
        found = answers["num_detections"]
        rows = [self._found(answers, i, found[i], sizes[i]) for i in range(count)]
        self.evaluator.update(ids, rows)

    def add(self, image_id: int, result) -> None:
        """Add a `Results` of one image, in its own pixels."""
        keys = ("boxes", "scores", "labels")
        self.evaluator.update([image_id], [{key: getattr(result, key) for key in keys}])

    def _to_original(self, answers: dict, sizes) -> dict:
        """What of the answers lies elsewhere in pixels of the original images."""
        place = placements(sizes, self.preprocessing)
        return {"boxes": boxes_to_original(answers["boxes"], place, sizes)}

    def _truth_of(self, target: dict, index: int, valid, size) -> list:
        """Columns of the evaluator's `add_truth`, of one image."""
        return [target["boxes"][index][valid], target["labels"][index][valid]]

    def _found(self, answers: dict, index: int, count: int, size) -> dict:
        """One image's answer as the evaluator takes it."""
        keys = ("boxes", "scores", "labels")
        return {key: answers[key][index][:count] for key in keys}


class InstanceScorer(DetectionScorer):
    """Scores instance segmenters; see `InstanceEvaluator.result`.

    Masks are pasted as `predict` pastes them, and kept as RLE.

    Args:
        class_names: Names in label order.
        preprocessing: How the images became the model's input.
        source: The truth is its annotations, uncapped and in original pixels, and the
            batches must have "image_id" and "image_size". None: the truth is the
            targets, "masks" (B, M, h, w) framed by their boxes among them, in pixels of
            the input; what the boxes were cut to, and finer than their cells, does not
            count then.
    """

    evaluator_type = "InstanceEvaluator"

    def __init__(self, class_names, preprocessing: Preprocessing, source=None):
        super().__init__(class_names, preprocessing, source)
        self._checked: set[int] = set()

    def update(self, answers: dict, target: dict) -> None:
        """Add a batch.

        Args:
            answers: Of the predictor, in pixels of the input.
            target: As for a `DetectionScorer`; without a source "masks" (B, M, h, w)
                too.

        Raises:
            ValueError: True masks of another size than their image.
        """
        if self.source is not None:
            columns = (np.asarray(target[key]) for key in ("image_id", "image_size"))
            for image_id, size in zip(*(c.tolist() for c in columns), strict=True):
                self._check_truth(image_id, size)
        super().update(answers, target)

    def add(self, image_id: int, result) -> None:
        """Add a `Results` of one image, in its own pixels."""
        self._check_truth(image_id, list(result.image_size))
        keys = ("boxes", "scores", "labels", "image_size")
        row = {key: getattr(result, key) for key in keys}
        self.evaluator.update([image_id], [{**row, "masks": result.masks.counts}])

    def _check_truth(self, image_id: int, size) -> None:
        """Refuse masks that would be missed in silence, wherever they are found."""
        if image_id in self._checked:
            return
        start, stop = self._objects["row_splits"][image_id : image_id + 2]
        for counts in self._objects["instance_masks"][start:stop]:
            try:
                check_runs(decode_runs(counts), size)
            except ValueError as error:
                name = self.source.origin.record_name(image_id)
                raise ValueError(
                    f"A mask does not fit {name}, of (height, width) {tuple(size)}: "
                    f"{error}. Mend the annotations or leave the image out; `check` "
                    "finds all of these."
                ) from error
        self._checked.add(image_id)

    def _to_original(self, answers, sizes):
        found = super()._to_original(answers, sizes)
        place = placements(sizes, self.preprocessing)
        # Boxes end with the image, and what their masks lose is cut off.
        whole = boxes_to_original(answers["boxes"], place)
        columns = (answers["masks"], whole, found["boxes"])
        masks = [reframe_masks(*row) for row in zip(*columns, strict=True)]
        return {**found, "masks": masks}

    def _truth_of(self, target, index, valid, size):
        boxes, labels = super()._truth_of(target, index, valid, size)
        masks = target["masks"][index][valid]
        return [boxes, labels, InstanceMasks.from_boxes(masks, boxes, size).counts]

    def _found(self, answers, index, count, size):
        found = super()._found(answers, index, count, size)
        masks = answers["masks"][index][:count]
        masks = InstanceMasks.from_boxes(masks, found["boxes"], size)
        return {**found, "masks": masks.counts, "image_size": masks.image_size}


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

    def add(self, image_id: int, result) -> None:
        """Add a `Results` of one image, in its own pixels."""
        truth = self.source.origin.mask(image_id)
        self.evaluator.update([image_id], [result.segmentation], [truth])

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


def answer_batches(model, batches):
    """The answers to batches (images, target), each as (answers, target).

    A batch smaller than the first is filled up to its size: another shape would be
    compiled anew, for one batch.

    Args:
        model: A `VisionTask`, or what answers as one.
        batches: Batches of any kind of arrays, read one at a time.
    """
    size = None
    for images, target in batches:
        count = len(images)
        size = size or count
        if count < size:
            rows = np.minimum(np.arange(size), count - 1)
            images = np.asarray(images)[rows]
        # Images stay what they are: the predictor casts on the device.
        answers = model.predict_on_batch(images)
        yield {name: value[:count] for name, value in answers.items()}, target


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
