"""Masks of class ids in PNG files, in TensorFlow's graph."""

from __future__ import annotations

import tensorflow as tf

from visionkit.data.graph_headers import check_header, format_flags, read_head, require

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
