"""The single operations of AutoAugment and RandAugment, in TensorFlow's graph.

Each takes an image (H, W, C) uint8, C of 1 or 3, and a level, and does what Pillow's
operation of that name does, to which the papers refer (Cubuk et al. 2019, table 6),
within a grey level. A level of 1 is the end of the published range, -1 its other end
where the operation has two sides; the sign of the others does not matter.
"""

from __future__ import annotations

import math

from visionkit.data.decode import GREY_WEIGHTS
from visionkit.data.lazy import tf
from visionkit.types import PAD_VALUE

MAX_SHEAR = 0.3
MAX_SHIFT = 150 / 331  # share of the side; published in pixels of a side of 331
MAX_TURN = 30.0  # degrees
MAX_CHANGE = 0.9  # factors of 0.1 to 1.9
MAX_BITS_LOST = 4


def select(condition, new, old):
    """`tf.where` of uint8 tensors by their bits, which is several times as fast."""
    mask = 255 * tf.cast(condition, tf.uint8)
    return tf.bitwise.bitwise_xor(old, (old ^ new) & mask)


def identity(image, level):
    """The image."""
    return image


def shear_x(image, level):
    """Rows moved to the left by 0.3 times their distance from the top."""
    return _affine(image, (1.0, MAX_SHEAR * level, 0.0), (0.0, 1.0, 0.0))


def shear_y(image, level):
    """Columns moved up by 0.3 times their distance from the left."""
    return _affine(image, (1.0, 0.0, 0.0), (MAX_SHEAR * level, 1.0, 0.0))


def translate_x(image, level):
    """Moved to the left by 150 / 331 of the width."""
    return _translate(image, 1, level)


def translate_y(image, level):
    """Moved up by 150 / 331 of the height."""
    return _translate(image, 0, level)


def rotate(image, level):
    """Turned counter-clockwise by 30 degrees about the centre."""
    angle = level * math.radians(MAX_TURN)
    cos, sin = tf.cos(angle), tf.sin(angle)
    height, width = tf.unstack(_size(image) / 2)
    at_x = width - cos * width + sin * height
    at_y = height - sin * width - cos * height
    return _affine(image, (cos, -sin, at_x), (sin, cos, at_y))


def brightness(image, level):
    """Away from black, or towards it."""
    return _enhance(image, 0.0, level)


def color(image, level):
    """Away from its own grey, or towards it; grey images stay."""
    return _enhance(image, _grey(image), level)


def contrast(image, level):
    """Away from its mean grey, or towards it."""
    return _enhance(image, tf.round(tf.reduce_mean(_grey(image))), level)


def sharpness(image, level):
    """Away from a blurred image, or towards it; the outermost pixels stay."""
    real = tf.cast(image, tf.float32)
    rows = real[:-2] + real[1:-1] + real[2:]
    box = rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]
    inner = tf.round((box + 4 * real[1:-1, 1:-1]) / 13)
    # The border: the image itself, which no factor changes.
    change = tf.pad(inner - real[1:-1, 1:-1], [[1, 1], [1, 1], [0, 0]])
    return _enhance(image, real + change, level)


def posterize(image, level):
    """Up to four of the eight bits set to zero."""
    lost = tf.cast(tf.round(MAX_BITS_LOST * tf.abs(level)), tf.int32)
    kept = tf.bitwise.left_shift(255, tf.minimum(lost, 7))
    return tf.bitwise.bitwise_and(image, tf.cast(kept & 255, tf.uint8))


def solarize(image, level):
    """Values inverted from a threshold of 256 down to 0 on."""
    threshold = tf.maximum(256 - 256 * tf.abs(level), 0.0)
    highest_kept = tf.cast(tf.maximum(threshold - 1, 0.0), tf.uint8)
    return select((image > highest_kept) | (threshold < 1), 255 - image, image)


def invert(image, level):
    """The negative."""
    return 255 - image


def auto_contrast(image, level):
    """Each channel stretched to 0..255."""
    pixels = tf.reshape(image, (-1, image.shape[-1]))
    low = tf.cast(tf.reduce_min(pixels, axis=0), tf.float32)
    high = tf.cast(tf.reduce_max(pixels, axis=0), tf.float32)
    scale = tf.where(high > low, 255 / tf.maximum(high - low, 1.0), 1.0)
    offset = tf.where(high > low, -low * scale, 0.0)
    return _to_uint8(tf.cast(image, tf.float32) * scale + offset)


def equalize(image, level):
    """Each channel's values spread so that all are about equally frequent."""
    channels = image.shape[-1]
    index = tf.cast(image, tf.int32) + 256 * tf.range(channels)
    size = 256 * channels
    counts = tf.math.bincount(tf.reshape(index, [-1]), minlength=size, maxlength=size)
    counts = tf.reshape(counts, (channels, 256))
    total = tf.reduce_sum(counts, axis=1, keepdims=True)
    # As Pillow: the brightest value that occurs does not count for the step.
    brightest = 255 - tf.argmax(tf.reverse(counts > 0, [1]), axis=1)
    last = tf.gather(counts, brightest, axis=1, batch_dims=1)[:, None]
    step = (total - last) // 255
    below = tf.cumsum(counts, axis=1, exclusive=True)
    table = tf.minimum((below + step // 2) // tf.maximum(step, 1), 255)
    table = tf.where(step > 0, table, tf.range(256))
    return tf.gather(tf.reshape(tf.cast(table, tf.uint8), [-1]), index)


def _translate(image, axis, level):
    """Moved towards the beginning of an axis; `PAD_VALUE` where nothing is left."""
    side = tf.shape(image)[axis]
    shift = tf.round(MAX_SHIFT * level * tf.cast(side, tf.float32))
    shift = tf.clip_by_value(tf.cast(shift, tf.int32), -side, side)
    left, right = tf.maximum(-shift, 0), tf.maximum(shift, 0)
    window = slice(right, side - left)
    kept = image[window] if axis == 0 else image[:, window]
    pads = [[0, 0], [0, 0], [0, 0]]
    pads[axis] = [left, right]
    return tf.pad(kept, pads, constant_values=PAD_VALUE)


def _affine(image, to_x, to_y):
    """The image with (x, y), in continuous coordinates, from `to_x` and `to_y` of it.

    Nearest neighbour, as in the papers' code; `PAD_VALUE` from outside.
    """
    (a, b, c), (d, e, f) = to_x, to_y
    # The operation's coordinates are those of pixel centres.
    c, f = c + (a + b - 1) / 2, f + (d + e - 1) / 2
    matrix = tf.stack([tf.cast(v, tf.float32) for v in (a, b, c, d, e, f, 0.0, 0.0)])
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=image[None],
        transforms=matrix[None],
        output_shape=tf.shape(image)[:2],
        fill_value=float(PAD_VALUE),
        interpolation="NEAREST",
        fill_mode="CONSTANT",
    )[0]


def _enhance(image, plain, level):
    """Between `plain` and the image, or beyond it."""
    factor = tf.maximum(1 + MAX_CHANGE * level, 0.0)
    return _to_uint8(plain + factor * (tf.cast(image, tf.float32) - plain))


def _grey(image):
    """(H, W, 1) float32, whole numbers."""
    if image.shape[-1] == 1:
        return tf.cast(image, tf.float32)
    grey = tf.tensordot(tf.cast(image, tf.float32), tf.constant(GREY_WEIGHTS), 1)
    return tf.round(grey)[..., None]


def _size(image):
    return tf.cast(tf.shape(image)[:2], tf.float32)


def _to_uint8(values):
    return tf.cast(tf.clip_by_value(tf.round(values), 0.0, 255.0), tf.uint8)
