"""Bilinear resizing of feature maps, of static and dynamic sizes, XLA-safe.

The centre of output pixel i lies at (i + 0.5) * old / new - 0.5 of the input, held
within the centres of the first and last pixel; no antialiasing. Each axis is one linear
map, done in one of two ways: a product with its matrix, whose gradient is another
product, or two gathers, which cost the same however long the axis is, but whose
gradient is a scatter. (`tf.image.resize` is slow under XLA and exists in TensorFlow
alone; `keras.ops.image.resize` takes no dynamic sizes.)
"""

from __future__ import annotations

import keras
from keras import ops

from visionkit.ops.pyramid import is_static

MAX_MATRIX = 256
"""Input pixels of the longest axis resized by its matrix. On a CPU, forward and
backward together take equally long in both ways at about this length."""


def resize_bilinear(x, size):
    """Feature maps at another size.

    Args:
        x: (B, h, w, C), float. Static or dynamic.
        size: (H, W) in pixels, integers or scalar integer tensors; at most 2**30 / h
            and 2**30 / w.

    Returns:
        (B, H, W, C) of the same type, computed in float32 at least.
    """
    dtype = keras.backend.standardize_dtype(x.dtype)
    x = ops.cast(x, keras.backend.result_type(dtype, "float32"))
    for axis, new in enumerate(size, start=1):
        old = ops.shape(x)[axis]
        static = is_static((old, new))
        if static and old == new:
            continue
        way = _by_matrix if static and old <= MAX_MATRIX else _by_gather
        x = way(x, old, new, axis)
    return ops.cast(x, dtype)


@keras.saving.register_keras_serializable(package="visionkit")
class ResizeLike(keras.layers.Layer):
    """`resize_bilinear` to the size of another map.

    Call arguments:
        x: (B, h, w, C), float.
        like: (B, H, W, ...), of which only the size is read.

    Returns:
        (B, H, W, C), of the dtype of `x`.
    """

    def __init__(self, **kwargs):
        super().__init__(**{"autocast": False, **kwargs})

    def call(self, x, like):
        """The resized map; see the class."""
        return resize_bilinear(x, ops.shape(like)[1:3])

    def compute_output_spec(self, x, like):
        """The size of `like`, the channels and the dtype of `x`."""
        shape = (x.shape[0], *like.shape[1:3], x.shape[-1])
        return keras.KerasTensor(shape, dtype=x.dtype)


def _positions(old, new):
    """(new,) int32: where output pixels lie, in 1 / (2 * new) of an input pixel.

    Whole numbers, so that a long axis is not less exact than a short one.
    """
    centres = (2 * ops.arange(new, dtype="int32") + 1) * old - new
    return ops.clip(centres, 0, 2 * new * (old - 1))


def _by_matrix(x, old, new, axis: int):
    """(B, new, w, C) or (B, h, new, C): each row of the matrix has two shares."""
    distance = _positions(old, new)[:, None] - 2 * new * ops.arange(old, dtype="int32")
    distance = ops.cast(ops.abs(distance), x.dtype) / (2 * new)
    matrix = ops.maximum(1.0 - distance, 0.0)
    height, width, channels = ops.shape(x)[1:]
    if axis == 1:
        x = ops.matmul(matrix, ops.reshape(x, (-1, old, width * channels)))
        return ops.reshape(x, (-1, new, width, channels))
    x = ops.matmul(matrix, ops.reshape(x, (-1, old, channels)))
    return ops.reshape(x, (-1, height, new, channels))


def _by_gather(x, old, new, axis: int):
    """The same by reading both neighbours of each output pixel."""
    positions = _positions(old, new)
    first = positions // (2 * new)
    second = ops.minimum(first + 1, old - 1)
    share = ops.cast(positions - 2 * new * first, x.dtype) / ops.cast(2 * new, x.dtype)
    share = ops.reshape(share, (-1, *[1] * (3 - axis)))
    near, far = ops.take(x, first, axis=axis), ops.take(x, second, axis=axis)
    return near + (far - near) * share
