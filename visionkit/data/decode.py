"""Encoded bytes to upright pixels, in TensorFlow's graph.

One decoder for training, prediction and export, since decoders differ in pixels. No
Python op: the same functions run in `dataset.map`, in `tf.map_fn` and in a SavedModel.
Every function takes one image; `encoded` is a () string.
"""

from __future__ import annotations

from visionkit.data.exif import ORIENTATION_TAG
from visionkit.data.graph_headers import (
    check_header,
    format_flags,
    has_webp_alpha,
    read_head,
)
from visionkit.data.lazy import tf

EXIF_BYTES = 65536  # EXIF stands in the first segment, and a segment has 64 KiB

# RE2: JPEG's APP1 or PNG's chunk, up to the TIFF header.
TO_EXIF = r"^\C*?(?:Exif\x00\x00|eXIf)(II\*\x00|MM\x00\*)"

GREY_WEIGHTS = (0.299, 0.587, 0.114)
"""Luma of RGB (ITU-R BT.601), as JPEG and Pillow define grey."""


def exif_orientation(encoded):
    """() int32, EXIF orientation 1..8; 1 where there is none or it is damaged."""
    head = tf.strings.substr(encoded, 0, EXIF_BYTES)
    tiff = tf.strings.regex_replace(head, TO_EXIF, r"\1", replace_global=False)
    mark = tf.strings.substr(tiff, 0, 4)
    big_endian = mark == b"MM\0*"
    found = big_endian | (mark == b"II*\0")
    return tf.cond(found, lambda: _orientation_tag(tiff, big_endian), lambda: 1)


def orient(image, orientation):
    """The image upright.

    Args:
        image: (H, W, C) as stored.
        orientation: () int32, EXIF orientation 1..8.

    Returns:
        (H, W, C), or (W, H, C) for orientations 5 to 8.
    """

    def when(orientations, change, image):
        holds = tf.reduce_any(orientation == tf.constant(orientations))
        return tf.cond(holds, lambda: change(image), lambda: image)

    def turned():
        turned = when([5, 6, 7, 8], lambda x: tf.transpose(x, [1, 0, 2]), image)
        turned = when([2, 3, 6, 7], lambda x: tf.reverse(x, [1]), turned)
        return when([3, 4, 7, 8], lambda x: tf.reverse(x, [0]), turned)

    return tf.cond(orientation == 1, lambda: image, turned)


def decode_image(encoded, channels: int = 3, exif: str = "apply"):
    """One image as pixels.

    Args:
        encoded: () string: JPEG, PNG, GIF (first frame), BMP or WebP.
        channels: 1 (grey) or 3 (RGB).
        exif: `"apply"` turns the image upright, `"ignore"` leaves it as stored.

    Returns:
        (H, W, channels) uint8. 16-bit PNGs are scaled down, alpha is dropped.

    Raises:
        InvalidArgumentError: See `check_header`, or the pixels are damaged.
    """
    encoded = check_header(encoded)
    orientation = exif_orientation(encoded) if exif == "apply" else None
    return _decode_checked(encoded, channels, orientation)


def _decode_checked(encoded, channels, orientation):
    # A WebP has to be asked for as many channels as it has.
    image = tf.cond(
        has_webp_alpha(encoded),
        lambda: tf.io.decode_image(encoded, 4, expand_animations=False)[..., :3],
        lambda: tf.io.decode_image(encoded, 3, expand_animations=False),
    )
    image.set_shape([None, None, 3])
    if orientation is not None:
        image = orient(image, orientation)
    return _to_channels(image, channels)


def decode_and_crop(encoded, window_of, channels: int = 3, exif: str = "apply"):
    """A window of one image; only that window is decoded where the format allows it.

    The pixels are `decode_image`'s, but for the window's outermost ones, whose colour
    JPEG interpolates from one side only.

    Args:
        encoded: As in `decode_image`.
        window_of: Called with the upright (height, width) as (2,) int32; returns the
            window [y, x, height, width] as (4,) int32. Called in two branches of a
            `tf.cond`, so it must be a pure function.
        channels: 1 or 3.
        exif: As in `decode_image`.

    Returns:
        The window's (h, w, channels) uint8, the image's size (2,) int32 and the
        window (4,) int32.
    """
    encoded = check_header(encoded)
    fusable = format_flags(read_head(encoded))[0]
    orientation = None
    if exif == "apply":
        orientation = exif_orientation(encoded)
        fusable &= orientation == 1

    def fused():
        size = tf.image.extract_jpeg_shape(encoded)[:2]
        window = window_of(size)
        image = tf.io.decode_and_crop_jpeg(encoded, window, channels=3)
        return _to_channels(image, channels), size, window

    def whole():
        image = _decode_checked(encoded, channels, orientation)
        size = tf.shape(image)[:2]
        window = window_of(size)
        return slice_window(image, window), size, window

    return tf.cond(fusable, fused, whole)


def slice_window(image, window):
    """`image` (H, W, ...) inside `window` (4,) int32 [y, x, height, width]."""
    y, x, height, width = tf.unstack(window)
    return image[y : y + height, x : x + width]


def _orientation_tag(tiff, big_endian):
    """The orientation in the first directory of `tiff` (TIFF 6.0, section 2)."""
    data = tf.io.decode_raw(tf.strings.join([tiff, bytes(16)]), tf.uint8)
    length = tf.size(data, tf.int64)

    def number(raw):  # (..., n) uint8
        raw = tf.cast(raw, tf.int64)
        raw = tf.where(big_endian, raw, tf.reverse(raw, [-1]))
        count = raw.shape[-1]
        return tf.reduce_sum(raw * [256**i for i in reversed(range(count))], axis=-1)

    def u16(values):
        return number(tf.ensure_shape(values, [2]))

    first = tf.minimum(number(tf.ensure_shape(data[4:8], [4])), length - 14)
    count = tf.minimum(u16(data[first : first + 2]), (length - first - 2) // 12)
    count = tf.maximum(count, 1)
    start = first + 2
    entries = tf.reshape(data[start : start + 12 * count], [-1, 12])
    is_tag = (number(entries[:, :2]) == ORIENTATION_TAG) & (
        number(entries[:, 2:4]) == 3
    )
    value = number(entries[:, 8:10])[tf.argmax(is_tag)]
    valid = tf.reduce_any(is_tag) & (value >= 1) & (value <= 8)
    return tf.where(valid, tf.cast(value, tf.int32), 1)


def _to_channels(image, channels: int):
    """RGB as it is, or as one channel of grey; (H, W, 3) to (H, W, channels) uint8."""
    if channels == 3:
        return image
    grey = tf.tensordot(tf.cast(image, tf.float32), GREY_WEIGHTS, 1)[..., None]
    return tf.cast(tf.round(grey), tf.uint8)
