"""Images of any kind and size as batches of a model's input."""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from visionkit.data.decode import decode_image
from visionkit.data.tuning import without_autotuning
from visionkit.inference import graph
from visionkit.inference.inputs import Image, is_file, original_size, split_kinds
from visionkit.types import Preprocessing


def prepared_batches(
    items: Sequence[Image], preprocessing: Preprocessing, batch_size: int
) -> Iterator[tuple[list[int], dict]]:
    """Indices of some images, and the batch of `graph.prepare_image` of those.

    In order, but files and encoded images before arrays. A batch has "image_valid"
    (B,) int32 too.

    Args:
        items: Images of any kind.
        preprocessing: How they become the model's input.
        batch_size: Images per batch.
    """
    for indices in filter(None, split_kinds(items)):
        dataset = _prepared([items[i] for i in indices], preprocessing)
        batches = without_autotuning(dataset.batch(batch_size).prefetch(1))
        for start, batch in zip(
            itertools.count(step=batch_size), batches, strict=False
        ):
            yield indices[start : start + batch_size], batch


def _prepared(items: Sequence[Image], preprocessing: Preprocessing):
    """A data set of images of one kind, each prepared."""
    if isinstance(items[0], np.ndarray):
        # Not `from_generator`, whose Python functions TensorFlow keeps for ever.
        pixels, shapes = [i.tobytes() for i in items], [i.shape for i in items]
        dataset = tf.data.Dataset.from_tensor_slices((pixels, shapes))
        prepare = _prepare_pixels(preprocessing)
    else:
        paths = [os.fsencode(i) if is_file(i) else b"" for i in items]
        content = [i if isinstance(i, bytes) else b"" for i in items]
        dataset = tf.data.Dataset.from_tensor_slices((paths, content))
        prepare = _prepare_file(preprocessing)
    return graph.tolerant_map(dataset, prepare, preprocessing)


def decode_pixels(item: Image, preprocessing: Preprocessing) -> np.ndarray:
    """(H, W, C) uint8 pixels of an image of any kind, by the decoder of training.

    Raises:
        BadImage: It cannot be read.
    """
    if isinstance(item, np.ndarray):
        return item
    original_size(item, preprocessing)
    content = item if isinstance(item, bytes) else Path(item).read_bytes()
    try:
        image = decode_image(content, preprocessing.channels, preprocessing.exif)
    except tf.errors.OpError:
        original_size(item, preprocessing, valid=False)
        raise
    return image.numpy()


@functools.cache
def _prepare_pixels(preprocessing: Preprocessing):
    """From the bytes of (H, W, C) uint8 pixels and their shape; traced once."""
    signature = [tf.TensorSpec((), tf.string), tf.TensorSpec((3,), tf.int32)]

    @tf.function(input_signature=signature, autograph=False)
    def prepare(pixels, shape):
        image = tf.reshape(tf.io.decode_raw(pixels, tf.uint8), shape)
        image = tf.ensure_shape(image, (None, None, preprocessing.channels))
        return graph.prepare_image(image, preprocessing)

    return prepare


@functools.cache
def _prepare_file(preprocessing: Preprocessing):
    """From a path or, where that is empty, from encoded bytes; traced once."""

    @tf.function(input_signature=[tf.TensorSpec((), tf.string)] * 2, autograph=False)
    def prepare(path, encoded):
        has_path = tf.strings.length(path) > 0
        encoded = tf.cond(has_path, lambda: tf.io.read_file(path), lambda: encoded)
        return graph.prepare_encoded(encoded, preprocessing)

    return prepare
