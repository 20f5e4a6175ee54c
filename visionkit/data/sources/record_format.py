"""A record as a `tf.train.Example`, and back in Python and in a graph."""

from __future__ import annotations

import numpy as np

from visionkit.data.image_header import BadImage
from visionkit.data.sources.base import SCALAR_COLUMNS, Record, multi_hot
from visionkit.data.sources.ragged import OBJECT_COLUMNS

# Key -> (list of the Example, dtype it is read as, shape of one row).
FEATURES = {
    "encoded": ("bytes_list", object, ()),
    "label": ("int64_list", np.int32, ()),
    "boxes": ("float_list", np.float32, (4,)),
    "box_labels": ("int64_list", np.int32, ()),
    "is_crowd": ("int64_list", np.bool_, ()),
    "is_difficult": ("int64_list", np.bool_, ()),
    "area": ("float_list", np.float32, ()),
    "mask_encoded": ("bytes_list", object, ()),
    "instance_masks": ("bytes_list", object, ()),
    "proposals": ("float_list", np.float32, (4,)),
}
NAME = "name"
"""The feature that holds what the source called the record, as bytes."""


def to_example(record: Record, name: bytes) -> bytes:
    """The serialized Example of a record without `path` and `mask_path`.

    A label of many classes is stored as the list of those that are there.
    """
    import tensorflow as tf

    example = tf.train.Example()
    example.features.feature[NAME].bytes_list.value.append(name)
    for key, value in record.items():
        values = [value] if key in SCALAR_COLUMNS else value
        if key == "label" and np.ndim(value):
            values = np.flatnonzero(value)
        if isinstance(values, np.ndarray):
            flags = values.dtype == np.bool_  # protobuf takes no bool for an int
            values = (values.astype(int) if flags else values).reshape(-1).tolist()
        feature = getattr(example.features.feature[key], FEATURES[key][0])
        feature.SetInParent()  # an image without objects has empty lists
        feature.value.extend(values)
    return example.SerializeToString(deterministic=True)


def from_example(
    serialized: bytes, keys: tuple[str, ...], num_classes: int | None = None
) -> tuple[Record, bytes]:
    """(record, name) as they were given to `to_example`.

    Args:
        serialized: The Example.
        keys: Of the record.
        num_classes: Size of a label of many classes; None where there is one.

    Raises:
        BadImage: By the rule "record.damaged": it is no Example with these keys.
    """
    import tensorflow as tf
    from google.protobuf.message import DecodeError

    try:
        features = tf.train.Example.FromString(serialized).features.feature
        record = _read_features(features, keys, num_classes)
        return record, features[NAME].bytes_list.value[0]
    except (DecodeError, IndexError, OverflowError, ValueError) as error:
        detail = f"no record with {', '.join((*keys, NAME))}: {error}"
        raise BadImage("record.damaged", detail) from error


def without_objects(keys: tuple[str, ...]) -> Record:
    """The ragged columns `keys` of a record that has none."""
    import tensorflow as tf

    return _read_features(tf.train.Example().features.feature, keys, None)


def _read_features(features, keys, num_classes: int | None) -> Record:
    record: Record = {}
    for key in keys:
        kind, dtype, row = FEATURES[key]
        values = getattr(features[key], kind).value
        if key == "label" and num_classes:
            record[key] = multi_hot(list(values), num_classes)
        elif key in SCALAR_COLUMNS:
            record[key] = values[0]
        elif dtype is object:
            record[key] = list(values)
        else:
            record[key] = np.array(values, dtype).reshape(-1, *row)
    counts = {len(record[key]) for key in keys if key in OBJECT_COLUMNS}
    if len(counts) > 1:
        raise ValueError(f"it has {sorted(counts)} objects at once")
    return record


def parse_example(
    serialized, keys: tuple[str, ...], num_classes: int | None = None
) -> dict:
    """As `from_example`, of () string `serialized` to tensors; graph code.

    Where that would refuse, the record is one without an image, which cannot be
    decoded, and without objects.

    Raises:
        InvalidArgumentError: It is no Example at all.
    """
    import tensorflow as tf

    types = {"bytes_list": tf.string, "int64_list": tf.int64, "float_list": tf.float32}
    missing = {"bytes_list": b"", "int64_list": -1}
    scalars = set(SCALAR_COLUMNS) - ({"label"} if num_classes else set())
    kinds = {key: FEATURES[key][0] for key in keys}
    spec = {
        key: tf.io.FixedLenFeature([], types[kind], missing[kind])
        if key in scalars
        else tf.io.FixedLenSequenceFeature([], types[kind], True)
        for key, kind in kinds.items()
    }
    record = tf.io.parse_single_example(serialized, spec)
    sound = record["label"] >= 0 if "label" in scalars & set(keys) else True
    for key in keys:
        _, dtype, row = FEATURES[key]
        if row:
            count = tf.size(record[key])
            sound &= count % row[0] == 0
            rows = record[key][: count // row[0] * row[0]]
            record[key] = tf.reshape(rows, (-1, *row))
        if key == "label" and num_classes:
            record[key] = tf.reduce_sum(tf.one_hot(record[key], num_classes), axis=0)
        elif dtype is not object:
            record[key] = tf.cast(record[key], dtype)
    counts = [tf.shape(record[key])[0] for key in keys if key in OBJECT_COLUMNS]
    for count in counts[1:]:
        sound &= count == counts[0]
    if "encoded" in record:
        record["encoded"] = tf.where(sound, record["encoded"], b"")
    return record
