"""Masks to compressed COCO RLE strings, in TensorFlow's graph; the twin of `rle`."""

from __future__ import annotations

import tensorflow as tf

from visionkit.data.graph_headers import check_header
from visionkit.data.rle import GROUPS


def encode_pngs(encoded):
    """The RLE strings of PNGs with an instance each.

    A pixel belongs to it that is at least half as bright as the brightest.

    Args:
        encoded: (N,) string.

    Returns:
        (N,) string.
    """

    def encode(png):
        pixels = tf.io.decode_png(check_header(png), channels=3)
        pixels = tf.cast(tf.reduce_max(pixels, axis=-1), tf.int32)
        return encode_rle(pixels >= tf.maximum((tf.reduce_max(pixels) + 1) // 2, 1))

    spec = tf.TensorSpec([], tf.string)
    return tf.map_fn(encode, encoded, fn_output_signature=spec)


def encode_rle(mask):
    """The RLE string, () string, of a (H, W) bool mask."""
    flat = tf.reshape(tf.transpose(mask), [-1])
    edges = tf.where(flat[1:] != flat[:-1])[:, 0] + 1
    ends = tf.concat([edges, tf.size(flat, tf.int64)[None]], axis=0)
    # Runs begin with one of zeros, which may have no pixel.
    ends = tf.concat([tf.zeros(tf.cast(flat[0], tf.int32)[None], tf.int64), ends], 0)
    runs = ends - tf.concat([[0], ends[:-1]], axis=0)
    before = tf.concat([tf.zeros([3], tf.int64), runs[1:-2]], axis=0)
    deltas = runs - before[: tf.size(runs)]

    shifts = 5 * tf.range(GROUPS + 1, dtype=tf.int64)
    shifted = tf.bitwise.right_shift(deltas[:, None], shifts)  # (R, groups + 1)
    groups, rest = tf.bitwise.bitwise_and(shifted[:, :-1], 31), shifted[:, 1:]
    # A group is the last when what is left is only its own sign, bit 4.
    sign = tf.where(groups >= 16, tf.constant(-1, tf.int64), 0)
    lengths = tf.argmax(tf.cast(rest == sign, tf.int32), axis=1)[:, None]
    position = tf.range(GROUPS, dtype=tf.int64)
    codes = groups + tf.where(position < lengths, tf.constant(32, tf.int64), 0) + 48
    codes = tf.boolean_mask(codes, position <= lengths)
    return tf.strings.unicode_encode(tf.cast(codes, tf.int32), "UTF-8")
