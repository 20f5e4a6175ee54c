"""A record as a `tf.train.Example`, and back in Python and in a graph."""

from __future__ import annotations

import numpy as np

from visionkit.data.sources.base import SCALAR_COLUMNS, Record, multi_hot

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
    """
    import tensorflow as tf

    features = tf.train.Example.FromString(serialized).features.feature
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
    return record, features[NAME].bytes_list.value[0]


def parse_example(
    serialized, keys: tuple[str, ...], num_classes: int | None = None
) -> dict:
    """As `from_example`, of () string `serialized` to tensors; graph code."""
    import tensorflow as tf

    types = {"bytes_list": tf.string, "int64_list": tf.int64, "float_list": tf.float32}
    scalars = set(SCALAR_COLUMNS) - ({"label"} if num_classes else set())
    spec = {
        key: tf.io.FixedLenFeature([], types[FEATURES[key][0]])
        if key in scalars
        else tf.io.FixedLenSequenceFeature([], types[FEATURES[key][0]], True)
        for key in keys
    }
    record = tf.io.parse_single_example(serialized, spec)
    for key in keys:
        _, dtype, row = FEATURES[key]
        if row:
            record[key] = tf.reshape(record[key], (-1, *row))
        if key == "label" and num_classes:
            record[key] = tf.reduce_sum(tf.one_hot(record[key], num_classes), axis=0)
        elif dtype is not object:
            record[key] = tf.cast(record[key], dtype)
    return record
