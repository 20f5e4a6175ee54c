"""Images of any size to the model's input, and answers back to original pixels.

TensorFlow's graph; the same functions in training, evaluation, prediction and export.
A `placement` (4,) float32 [scale_y, scale_x, offset_y, offset_x] says where the image
went: resized = original * scale + offset, in pixels with continuous edges.
"""

from __future__ import annotations

from visionkit.data.decode import slice_window
from visionkit.data.geometry import STRIP_VALUES, placement_of, resize_geometry
from visionkit.data.lazy import tf
from visionkit.types import PAD_VALUE, VOID_CLASS, Preprocessing


def resize_image(image, preprocessing: Preprocessing):
    """One image as the model sees it.

    Bilinear, with antialiasing where it shrinks (as in Pillow), rounded to uint8: a
    batch in training and a request in serving have the same pixels.

    Args:
        image: (H, W, C) uint8.
        preprocessing: Mode and size.

    Returns:
        (h, w, C) uint8 of `preprocessing.image_size`, borders of `PAD_VALUE`; and the
        placement (4,) float32.
    """
    return _resize(image, preprocessing, resample, PAD_VALUE)


def resize_mask(mask, preprocessing: Preprocessing):
    """One mask of class ids, (H, W) uint8, beside its image: (h, w) uint8.

    Nearest neighbour; borders are `VOID_CLASS`.
    """
    return _resize(mask[..., None], preprocessing, resample_mask, VOID_CLASS)[0][..., 0]


def resample(image, size):
    """`image` (H, W, C) uint8 at `size` (2,) int32: bilinear, antialiased, uint8."""
    old = tf.shape(image)[:2]

    def resized():
        # Without shrinking both are the same, and the plain one is faster.
        return tf.cond(
            tf.reduce_any(size < old),
            lambda: _antialiased(image, size),
            lambda: _to_uint8(tf.image.resize(image, size)),
        )

    return tf.cond(tf.reduce_all(size == old), lambda: image, resized)


def _antialiased(image, size):
    """`tf.image.resize(antialias=True)`, to the bit, in half the time.

    Its kernel is slow on three channels but fast on many: each axis is resized alone,
    with all that lies along the other one as channels.
    """
    channels = image.shape[-1]

    def along_rows(x, count):  # (rows, n, channels) to (count, n, channels)
        flat = tf.reshape(x, [tf.shape(x)[0], 1, -1])
        flat = tf.image.resize(flat, tf.stack([count, 1]), antialias=True)
        return tf.reshape(flat, [count, -1, channels])

    image = tf.transpose(along_rows(image, size[0]), [1, 0, 2])
    return tf.transpose(_to_uint8(along_rows(image, size[1])), [1, 0, 2])


def _to_uint8(x):
    return tf.cast(tf.round(x), tf.uint8)


def resample_mask(mask, size):
    """`mask` (H, W, C) of class ids at `size` (2,) int32, nearest neighbour."""
    return tf.image.resize(mask, size, method="nearest")


def boxes_to_input(boxes, placement):
    """Boxes (..., N, 4) xyxy of the original in pixels of the resized image.

    Args:
        boxes: (..., N, 4) float32.
        placement: (..., 4) float32; a negative scale is a flip.

    Returns:
        (..., N, 4) float32, x1 <= x2 and y1 <= y2, not clipped.
    """
    scale, offset = _xyxy(placement)
    return _sorted_corners(boxes * scale + offset)


def boxes_to_original(boxes, placement, image_size=None):
    """The inverse of `boxes_to_input`, clipped to the original image.

    Args:
        boxes: (..., N, 4) float32, xyxy pixels of the resized image.
        placement: (..., 4) float32.
        image_size: (..., 2) int32, original (height, width); None to clip nothing.

    Returns:
        (..., N, 4) float32, xyxy pixels of the original.
    """
    scale, offset = _xyxy(placement)
    boxes = _sorted_corners((boxes - offset) / scale)
    if image_size is None:
        return boxes
    limit = tf.cast(tf.gather(image_size, [1, 0, 1, 0], axis=-1), boxes.dtype)
    return tf.clip_by_value(boxes, 0.0, limit[..., None, :])


def segmentation_to_original(segmentation, placement, image_size, fill=VOID_CLASS):
    """A map of the resized image at the original's size, nearest neighbour.

    Args:
        segmentation: (h, w) of any type, e.g. class ids.
        placement: (4,) float32.
        image_size: (2,) int32, original (height, width).
        fill: Value where the model saw nothing (outside of a centre crop).

    Returns:
        (height, width) of the same type.
    """
    size = tf.shape(segmentation)

    def source(axis):
        centre = tf.range(image_size[axis], dtype=tf.int32)
        centre = (tf.cast(centre, tf.float32) + 0.5) * placement[axis]
        index = tf.cast(tf.floor(centre + placement[2 + axis]), tf.int32)
        inside = (index >= 0) & (index < size[axis])
        return tf.clip_by_value(index, 0, size[axis] - 1), inside

    (rows, in_rows), (columns, in_columns) = source(0), source(1)
    out = tf.gather(tf.gather(segmentation, rows), columns, axis=1)
    inside = in_rows[:, None] & in_columns[None, :]
    return tf.where(inside, out, tf.cast(fill, out.dtype))


def logits_to_original(logits, placement, image_size):
    """Logits of the resized image at the original's size, bilinear.

    An original pixel i lies at (i + 0.5) * scale + offset - 0.5 of the frame, but never
    beyond the centres of the first and last pixel that hold image: what the model says
    of the border that a resize added does not show.

    Args:
        logits: (h, w, K), at the model's size; what is not finite counts as 0.
        placement: (4,) float32, scales positive.
        image_size: (2,) int32, original (height, width).

    Returns:
        (height, width, K) float32; zeros where the model saw nothing (outside of a
        centre crop).
    """
    rows, columns = _all_taps(logits, placement, image_size)
    out = _bilinear(_finite(logits), rows, columns)
    inside = rows["seen"][:, None] & columns["seen"]
    return tf.where(inside[..., None], out, 0.0)


def classes_to_original(logits, placement, image_size):
    """The best class of each original pixel, by `logits_to_original`.

    Some rows at a time, so that large images with many classes need little memory.

    Args:
        logits: (h, w, K), at the model's size; what is not finite counts as 0.
        placement: (4,) float32, scales positive.
        image_size: (2,) int32, original (height, width).

    Returns:
        (height, width) uint8, the first of the best classes; 255 where the model saw
        nothing.
    """
    height, width = tf.unstack(image_size)
    # An image that could not be read has no rows, but `map_fn` wants one strip.
    at_least = tf.stack([tf.maximum(height, 1), width])
    rows, columns = _all_taps(logits, placement, at_least)
    logits = _finite(logits)
    values = tf.maximum(width * tf.shape(logits)[2], 1)
    count = tf.clip_by_value(STRIP_VALUES // values, 1, at_least[0])
    strips = (at_least[0] + count - 1) // count

    def one(index):
        chosen = tf.minimum(tf.range(count) + index * count, at_least[0] - 1)
        strip = {name: tf.gather(value, chosen) for name, value in rows.items()}
        found = tf.argmax(_bilinear(logits, strip, columns), -1, "int32")
        inside = strip["seen"][:, None] & columns["seen"]
        return tf.cast(tf.where(inside, found, VOID_CLASS), tf.uint8)

    spec = tf.TensorSpec((None, None), tf.uint8)
    found = tf.map_fn(
        one, tf.range(strips), fn_output_signature=spec, parallel_iterations=2
    )
    return tf.reshape(found, [-1, width])[:height]


def _finite(logits):
    logits = tf.cast(logits, tf.float32)
    return tf.where(tf.math.is_finite(logits), logits, 0.0)


def _all_taps(logits, placement, image_size):
    """Of rows and of columns: see `_taps`."""
    size = tf.shape(logits)
    return [
        _taps(image_size[axis], size[axis], placement[axis], placement[2 + axis])
        for axis in (0, 1)
    ]


def _taps(length, size, scale, offset) -> dict:
    """Between which pixels of the frame those of the original lie, on one axis.

    Of each: the pixels "low" and "high", the "weight" of the latter, and whether the
    model saw it ("seen").
    """
    scale, offset, edge, frame = (
        tf.cast(value, tf.float64) for value in (scale, offset, length, size)
    )
    centre = (tf.cast(tf.range(length), tf.float64) + 0.5) * scale + offset
    first = tf.round(tf.maximum(offset, 0.0))
    last = tf.round(tf.minimum(edge * scale + offset, frame)) - 1.0
    last = tf.maximum(last, first)
    place = tf.minimum(tf.maximum(centre - 0.5, first), last)
    low = tf.floor(place)
    return {
        "low": tf.cast(low, tf.int32),
        "high": tf.cast(tf.minimum(low + 1.0, last), tf.int32),
        "weight": tf.cast(place - low, tf.float32),
        "seen": (centre > 0) & (centre < frame),
    }


def _bilinear(logits, rows, columns):
    """`logits` (h, w, K) at the taps: (rows, columns, K)."""

    def mix(values, taps, weight, axis):
        low = tf.gather(values, taps["low"], axis=axis)
        return low + (tf.gather(values, taps["high"], axis=axis) - low) * weight

    logits = mix(logits, rows, rows["weight"][:, None, None], 0)
    return mix(logits, columns, columns["weight"][:, None], 1)


def _resize(image, preprocessing, resample, pad_value):
    """`resize_image` for a way to resample and a value of the border."""
    height, width = tf.unstack(tf.cast(tf.shape(image)[:2], tf.float64))
    geometry = resize_geometry(height, width, preprocessing, tf)
    (start, size), target, offset = geometry
    placement = tf.stack(placement_of(start, size, target, offset))
    start, size, target, offset = (
        tf.cast(tf.stack(pair), tf.int32) for pair in (start, size, target, offset)
    )
    if preprocessing.resize == "center_crop":
        image = slice_window(image, tf.concat([start, size], axis=0))
    image = resample(image, target)
    if preprocessing.resize in ("letterbox", "shortest_edge"):
        image = pad_to(image, offset, preprocessing.image_size, pad_value)
    image.set_shape([*preprocessing.image_size, image.shape[-1]])
    return image, tf.cast(placement, tf.float32)


def pad_to(image, offset, size, value):
    """`image` (h, w, C) at `offset` (2,) int32 in a frame of `size` full of `value`."""
    after = size - offset - tf.shape(image)[:2]
    pads = tf.concat([tf.stack([offset, after], axis=1), [[0, 0]]], axis=0)
    padded = tf.pad(image, pads, constant_values=tf.cast(value, image.dtype))
    return tf.ensure_shape(padded, [None, None, image.shape[-1]])


def _xyxy(placement):
    """Scale and offset of a placement (..., 4), each (..., 1, 4) in box order."""
    scale = tf.gather(placement, [1, 0, 1, 0], axis=-1)
    offset = tf.gather(placement, [3, 2, 3, 2], axis=-1)
    return scale[..., None, :], offset[..., None, :]


def _sorted_corners(boxes):
    first, second = boxes[..., :2], boxes[..., 2:]
    return tf.concat([tf.minimum(first, second), tf.maximum(first, second)], axis=-1)
