"""Compressed COCO RLE strings to masks, in TensorFlow's graph; the twin of `rle`.

Every function takes one image's strings.
"""

from __future__ import annotations

import tensorflow as tf

from visionkit.data.graph_headers import require
from visionkit.data.rle import GROUPS


def decode_rle(counts, size):
    """The mask of an RLE string.

    Args:
        counts: () string.
        size: (2,) int32, (height, width).

    Returns:
        (H, W) bool.

    Raises:
        InvalidArgumentError: The string is damaged ("mask.rle"), or of another size
            ("mask.size").
    """
    return paint_regions(counts[None], tf.ones([1], tf.int32), size) > 0


def paint_regions(regions, labels, size):
    """Class ids of an image whose regions are painted one over another.

    Args:
        regions: (R,) string, RLE strings of the whole image, the last on top.
        labels: (R,) int32 in 0..255; what no region covers is 0.
        size: (2,) int32, (height, width).

    Returns:
        (H, W) uint8.

    Raises:
        InvalidArgumentError: As `decode_rle`.
    """
    spec = tf.RaggedTensorSpec([None], tf.int64, ragged_rank=0)
    runs = tf.map_fn(decode_runs, regions, fn_output_signature=spec)
    area = tf.cast(tf.reduce_prod(size), tf.int64)
    rows, lengths = runs.value_rowids(), runs.flat_values
    whole = tf.reduce_all(tf.reduce_sum(runs, axis=1) == area)
    lengths = require(
        whole & tf.reduce_all(lengths >= 0),
        lengths,
        "mask.size: the runs of an RLE mask must fill its image; height, width:",
        size,
    )
    # All regions in one go: each pixel keeps the number of the last that covers it.
    ends = tf.cumsum(lengths) - rows * area
    ones = (tf.range(tf.size(rows, tf.int64)) - tf.gather(runs.row_starts(), rows)) % 2
    ones = tf.cast(ones, tf.bool)
    ends, lengths, rows = (x[ones] for x in (ends, lengths, rows))
    pixels = tf.ragged.range(ends - lengths, ends)
    last = tf.tensor_scatter_nd_max(
        tf.zeros(area[None], tf.int32),
        pixels.flat_values[:, None],
        tf.cast(tf.gather(rows, pixels.value_rowids()), tf.int32) + 1,
    )
    table = tf.concat([[0], labels], axis=0)
    painted = tf.gather(tf.cast(table, tf.uint8), last)
    return tf.transpose(tf.reshape(painted, (size[1], size[0])))


def decode_runs(counts):
    """(R,) int64, the lengths in a () RLE string: zeros and ones in turn."""
    codes = tf.cast(tf.io.decode_raw(counts, tf.uint8), tf.int64) - 48
    last = tf.bitwise.bitwise_and(codes, 32) == 0
    group = tf.cumsum(tf.cast(last, tf.int64), exclusive=True)
    ends = tf.where(last)[:, 0]
    starts = tf.concat([[0], ends + 1], axis=0)[: tf.size(ends)]
    widths = ends - starts + 1
    codes = require(
        tf.reduce_all((codes >= 0) & (codes < 64))
        & tf.reduce_any(last[-1:])
        & tf.reduce_all(widths <= GROUPS),
        codes,
        "mask.rle: not a compressed COCO RLE string; its length:",
        tf.strings.length(counts),
    )
    position = tf.range(tf.size(codes, tf.int64)) - tf.gather(starts, group)
    bits = tf.bitwise.left_shift(tf.bitwise.bitwise_and(codes, 31), 5 * position)
    runs = tf.math.segment_sum(bits, group)
    negative = tf.bitwise.bitwise_and(tf.gather(codes, ends), 16) > 0
    one = tf.ones_like(widths)
    runs -= tf.where(negative, tf.bitwise.left_shift(one, 5 * widths), 0)
    # From the fourth on they are differences from the last but one.
    rest = runs[1:]
    pairs = tf.pad(rest, [[0, tf.size(rest) % 2]])
    sums = tf.reshape(tf.cumsum(tf.reshape(pairs, (-1, 2)), axis=0), [-1])
    return tf.concat([runs[:1], sums[: tf.size(rest)]], axis=0)
