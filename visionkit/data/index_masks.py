"""Masks in PNG files as class ids, in TensorFlow's graph."""

from __future__ import annotations

import tensorflow as tf

from visionkit.data.graph_headers import check_header, format_flags, read_head, require
from visionkit.data.mask_codes import UNKNOWN, MaskCode
from visionkit.types import VOID_CLASS

# Bytes 0..32 of a PNG, xor this: palette (3) becomes grey (0) with the right CRC.
# crc(a ^ b) = crc(a) ^ crc(b) ^ crc(0), for the 17 bytes from "IHDR" on.
_PALETTE_TO_GREY = bytes(25) + b"\x03" + bytes(3) + b"\x12\xb5\xaf\xee"


def decode_index_mask(encoded):
    """An index PNG as class ids: grey values, or palette indices and not colours.

    libpng would turn a palette into colours. The colour type in the header is set to
    grey instead; the header's CRC is linear, so that it changes by a constant.

    Args:
        encoded: () string, a PNG of colour type grey or palette, 8 bits at most.

    Returns:
        (H, W) uint8.

    Raises:
        InvalidArgumentError: Not a PNG, or one of another kind ("mask.format").
    """
    encoded = check_header(encoded)
    head = read_head(encoded)
    depth, colour = tf.cast(head[24], tf.int32), head[25]
    usable = (colour == 0) | (colour == 3)
    encoded = require(
        format_flags(head)[1] & usable & (depth <= 8),
        encoded,
        "mask.format: expected a PNG of class ids (grey or palette, at most 8 bits); "
        "bits, colour type:",
        depth,
        colour,
    )
    rest = tf.strings.substr(encoded, 33, tf.strings.length(encoded) - 33)
    start = tf.io.decode_raw(tf.strings.substr(encoded, 0, 33), tf.uint8)
    grey = tf.bitwise.bitwise_xor(start, tf.constant(list(_PALETTE_TO_GREY), tf.uint8))
    start = tf.where(colour == 3, grey, start)
    characters = tf.gather(
        tf.constant([bytes([i]) for i in range(256)]), tf.cast(start, tf.int32)
    )
    png = tf.strings.join([tf.strings.reduce_join(characters), rest])
    mask = tf.io.decode_png(png, channels=1)[..., 0]
    # Below 8 bits libpng stretches grey to 0..255.
    levels = tf.bitwise.left_shift(1, depth) - 1
    return tf.cast(tf.cast(mask, tf.int32) * levels // 255, tf.uint8)


def decode_mask(encoded, code: MaskCode | None = None):
    """A mask file as class ids: `MaskCode.decode` in the graph.

    Args:
        encoded: () string, a PNG.
        code: What its values mean; None leaves them as they are.

    Returns:
        (H, W) uint8, 255 = void.

    Raises:
        InvalidArgumentError: As `decode_index_mask`, or a value that no class has
            ("mask.value").
    """
    if code is None:
        return decode_index_mask(encoded)
    if code.colors:
        classes = _classes_of_colors(_decode_colors(encoded), code)
    else:
        values = tf.cast(decode_index_mask(encoded), tf.int32)
        classes = tf.gather(tf.constant(code.lookup), values)
    unknown = tf.math.count_nonzero(classes == UNKNOWN, dtype=tf.int32)
    text = "mask.value: pixels of a value that no class has:"
    return tf.cast(require(unknown == 0, classes, text, unknown), tf.uint8)


def _decode_colors(encoded):
    """(H, W) int32, red * 65536 + green * 256 + blue of a PNG."""
    encoded = check_header(encoded)
    head = read_head(encoded)
    depth = tf.cast(head[24], tf.int32)
    encoded = require(
        format_flags(head)[1] & (depth <= 8),
        encoded,
        "mask.format: expected a PNG of at most 8 bits; bits:",
        depth,
    )
    red, green, blue = tf.unstack(
        tf.cast(tf.io.decode_png(encoded, channels=3), tf.int32), num=3, axis=-1
    )
    return red * 65536 + green * 256 + blue


def _classes_of_colors(colors, code: MaskCode):
    """(H, W) int16, `UNKNOWN` where no class has the colour; no table of 2**24."""
    known, classes = map(tf.constant, code.columns)
    flat = tf.reshape(colors, [-1])
    place = tf.minimum(tf.searchsorted(known, flat), tf.size(known) - 1)
    found = tf.cast(tf.gather(classes, place), tf.int16)
    rest = tf.constant(VOID_CLASS if code.others else UNKNOWN, tf.int16)
    found = tf.where(tf.gather(known, place) == flat, found, rest)
    return tf.reshape(found, tf.shape(colors))
