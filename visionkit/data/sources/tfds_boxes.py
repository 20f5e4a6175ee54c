"""The boxes, and their masks, in a set of TensorFlow Datasets."""

from __future__ import annotations

import dataclasses

import numpy as np

from visionkit.data.headers import inspect_image
from visionkit.data.image_header import BadImage
from visionkit.data.rle import encode_rle
from visionkit.data.sources.base import Record
from visionkit.data.sources.instance_files import read_one

# What a flag or number beside the boxes is called -> its column.
_BESIDE = {
    "is_crowd": "is_crowd",
    "is_difficult": "is_difficult",
    "difficult": "is_difficult",
    "area": "area",
}
_MASKS = ("segmentation", "mask")


@dataclasses.dataclass(frozen=True)
class BoxFeatures:
    """Which features of an example make its objects.

    Attributes:
        boxes: Key of the boxes, shares of the image in the order y, x, y, x.
        label: Key of the classes; None where all objects are of one.
        class_names: In label order.
        beside: Column -> (key, whether the numbers are floats).
        masks: Key of the PNGs, one of the whole image for each object; None where there
            are none, or they are not asked for.
    """

    boxes: str
    label: str | None
    class_names: tuple[str, ...]
    beside: dict[str, tuple[str, bool]]
    masks: str | None = None

    def record(self, example, encoded: bytes) -> Record:
        """The objects of a `tf.train.Example` as arrays."""
        features = example.features.feature
        shares = np.array(features[self.boxes].float_list.value, np.float32)
        shares = shares.reshape(-1, 4)
        try:
            height, width = inspect_image(encoded).upright_size
        except BadImage:  # the pipeline reports it
            height = width = 0
        scale = np.array([width, height, width, height], np.float32)
        labels = np.zeros(len(shares), np.int32)
        if self.label:
            labels = np.array(features[self.label].int64_list.value, np.int32)
        record: Record = {"boxes": shares[:, [1, 0, 3, 2]] * scale}
        record["box_labels"] = labels
        for column, (key, floats) in self.beside.items():
            values = features[key].float_list if floats else features[key].int64_list
            dtype = np.float32 if column == "area" else np.bool_
            record[column] = np.array(values.value, dtype)
        if self.masks:
            pngs = features[self.masks].bytes_list.value
            record["instance_masks"] = [encode_rle(read_one(png)) for png in pngs]
        return record

    def parse(self, example, encoded) -> dict:
        """As `record`, of () string tensors to tensors; graph code."""
        import tensorflow as tf

        from visionkit.data.decode import exif_orientation
        from visionkit.data.graph_headers import image_dimensions
        from visionkit.data.graph_rle_writer import encode_pngs

        floats = {self.boxes} | {key for key, real in self.beside.values() if real}
        keys = floats | {key for key, _ in self.beside.values()}
        keys |= {self.label} - {None}
        spec = {
            key: tf.io.FixedLenSequenceFeature(
                [], tf.float32 if key in floats else tf.int64, True
            )
            for key in keys
        }
        if self.masks:
            spec[self.masks] = tf.io.FixedLenSequenceFeature([], tf.string, True)
        found = tf.io.parse_single_example(example, spec)
        shares = tf.reshape(found[self.boxes], (-1, 4))
        height, width = image_dimensions(encoded)
        turned = exif_orientation(encoded) >= 5
        height, width = (
            tf.where(turned, width, height),
            tf.where(turned, height, width),
        )
        scale = tf.cast(tf.stack([width, height, width, height]), tf.float32)
        labels = tf.zeros(tf.shape(shares)[:1], tf.int32)
        if self.label:
            labels = tf.cast(found[self.label], tf.int32)
        record = {"boxes": tf.gather(shares, [1, 0, 3, 2], axis=1) * scale}
        record["box_labels"] = labels
        for column, (key, _) in self.beside.items():
            dtype = tf.float32 if column == "area" else tf.bool
            record[column] = tf.cast(found[key], dtype)
        if self.masks:
            record["instance_masks"] = encode_pngs(found[self.masks])
        return record


def find_boxes(info) -> BoxFeatures | None:
    """The features with the objects; None where no sequence has boxes.

    Raises:
        ValueError: The boxes are in another format than TFDS' own.
    """
    import tensorflow_datasets as tfds

    for group, feature in info.features.items():
        inner = getattr(feature, "feature", None)
        if not isinstance(inner, tfds.features.FeaturesDict):
            continue
        boxes = [
            k for k, f in inner.items() if isinstance(f, tfds.features.BBoxFeature)
        ]
        if not boxes:
            continue
        _check_format(info, group, inner[boxes[0]])
        labels = [
            k for k, f in inner.items() if isinstance(f, tfds.features.ClassLabel)
        ]
        names = tuple(inner[labels[0]].names) if labels else ("object",)
        beside = {
            _BESIDE[key]: (f"{group}/{key}", np.issubdtype(f.np_dtype, np.floating))
            for key, f in inner.items()
            if key in _BESIDE
        }
        label = f"{group}/{labels[0]}" if labels else None
        images = [k for k, f in inner.items() if isinstance(f, tfds.features.Image)]
        masks = [f"{group}/{k}" for k in images if any(word in k for word in _MASKS)]
        return BoxFeatures(
            f"{group}/{boxes[0]}", label, names, beside, next(iter(masks), None)
        )
    return None


def choose_boxes(info, boxes: BoxFeatures | None, task: str) -> BoxFeatures:
    """The features of the objects, with masks where the task has them.

    Args:
        info: Of the set.
        boxes: What `find_boxes` found.
        task: "detection" or "instance_segmentation".

    Raises:
        ValueError: The set has no boxes, or no masks.
    """
    if boxes is None:
        raise ValueError(
            f"{info.full_name} has no boxes: none of its features is a sequence "
            f"with a BBoxFeature. Features: {', '.join(info.features)}."
        )
    if task == "detection":
        return dataclasses.replace(boxes, masks=None)
    if boxes.masks is None:
        raise ValueError(
            f"{info.full_name} has boxes, but no masks: no image called a segmentation "
            f"or mask is beside {boxes.boxes}. Train detection on it, or take the "
            "set's own files with another source."
        )
    return boxes


def _check_format(info, group: str, feature) -> None:
    kind = getattr(feature, "bbox_format", None)
    name = getattr(kind, "value", kind)
    if name not in (None, "REL_YXYX", "rel_yxyx"):
        raise ValueError(
            f"The boxes of {info.full_name} ({group}) are in the format {name!r}. "
            "Expected TFDS' own, REL_YXYX."
        )
