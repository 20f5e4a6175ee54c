"""Compressed COCO RLE strings to masks, in TensorFlow's graph; the twin of `rle`.

Every function takes one image's strings, all of them in one go.
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
    runs = decode_runs(regions, size)
    area = tf.cast(tf.reduce_prod(size), tf.int64)
    rows, lengths = runs.value_rowids(), runs.flat_values
    # All regions in one go: each pixel keeps the number of the last that covers it.
    ends = tf.cumsum(lengths) - rows * area
    ones = _place_in_row(runs) % 2 == 1
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


def sample_grids(regions, size, y, x):
    """Masks at the points of a grid each, without a mask of the image's size.

    Args:
        regions: (R,) string, RLE strings of the whole image.
        size: (2,) int32, (height, width).
        y: (R, h) int32, rows of pixels in the image, ascending in each region.
        x: (R, w) int32, columns of pixels, in any order.

    Returns:
        (R, h, w) uint8 of 0 and 1: [r, i, j] is region r at the pixel (y[r, i],
        x[r, j]).

    Raises:
        InvalidArgumentError: As `decode_rle`.
    """
    runs = decode_runs(regions, size)
    # One long row of pixels, region by region and column by column. A pixel is in its
    # region if an odd number of the region's runs end before it.
    ends = tf.cumsum(runs.flat_values)
    height, width = tf.unstack(tf.cast(size, tf.int64))
    number = tf.range(runs.nrows())[:, None]
    top = tf.reshape((number * width + tf.cast(x, tf.int64)) * height, [-1])
    above = _count_up_to(ends, top)
    below = _count_up_to(ends, top + height - 1)
    start = above - tf.repeat(runs.row_starts(), tf.shape(x)[1])
    # Each end within a column of the grid changes all that is below it.
    inner = tf.ragged.range(above, below)
    column = inner.value_rowids()
    depth = tf.gather(ends, inner.flat_values) - tf.gather(top, column)
    region = column // tf.shape(x, tf.int64)[1]
    rows = tf.cast(y, tf.int64) + number * height
    rank = _count_up_to(tf.reshape(rows, [-1]), depth + region * height - 1)
    side = tf.shape(y, tf.int64)[1]
    cell = column * (side + 1) + rank - region * side
    changes = tf.scatter_nd(
        cell[:, None],
        tf.ones_like(cell, tf.uint8),
        (tf.size(top, tf.int64) * (side + 1))[None],
    )
    changes = tf.reshape(changes, (-1, side + 1))[:, :-1]
    inside = (tf.cast(start, tf.uint8)[:, None] + tf.cumsum(changes, axis=1)) & 1
    inside = tf.reshape(inside, (-1, tf.shape(x)[1], tf.shape(y)[1]))
    inside = tf.transpose(inside, (0, 2, 1))
    return tf.ensure_shape(inside, [None, y.shape[1], x.shape[1]])


def check_regions(regions, size):
    """`regions` (R,) string, which cannot be computed with unless all are sound.

    Raises:
        InvalidArgumentError: As `decode_rle`.
    """
    with tf.control_dependencies([decode_runs(regions, size).flat_values]):
        return tf.identity(regions)


def decode_runs(regions, size):
    """The lengths of runs in RLE strings, those of zeros and ones in turn.

    Args:
        regions: (R,) string, RLE strings of the whole image.
        size: (2,) int32, (height, width).

    Returns:
        Ragged (R, runs) int64.

    Raises:
        InvalidArgumentError: As `decode_rle`.
    """
    lengths = tf.strings.length(regions)
    text = tf.strings.reduce_join(regions)
    codes = tf.cast(tf.io.decode_raw(text, tf.uint8), tf.int64) - 48
    last = tf.bitwise.bitwise_and(codes, 32) == 0
    group = tf.cumsum(tf.cast(last, tf.int64), exclusive=True)
    ends = tf.where(last)[:, 0]
    starts = tf.concat([[0], ends + 1], axis=0)[: tf.size(ends)]
    widths = ends - starts + 1
    behind = tf.cumsum(lengths)  # the place behind each string
    whole = tf.gather(tf.concat([[False], last], axis=0), behind) & (lengths > 0)
    codes = require(
        tf.reduce_all((codes >= 0) & (codes < 64))
        & tf.reduce_all(whole)
        & tf.reduce_all(widths <= GROUPS),
        codes,
        "mask.rle: not a compressed COCO RLE string; its length:",
        lengths,
    )
    position = tf.range(tf.size(codes, tf.int64)) - tf.gather(starts, group)
    bits = tf.bitwise.left_shift(tf.bitwise.bitwise_and(codes, 31), 5 * position)
    values = tf.math.segment_sum(bits, group)
    negative = tf.bitwise.bitwise_and(tf.gather(codes, ends), 16) > 0
    one = tf.ones_like(widths)
    values -= tf.where(negative, tf.bitwise.left_shift(one, 5 * widths), 0)
    row = _count_up_to(tf.cast(behind, tf.int64), ends)
    values = tf.RaggedTensor.from_value_rowids(
        values, row, tf.size(regions, tf.int64), validate=False
    )
    values = _undo_differences(values)
    area = tf.cast(tf.reduce_prod(size), tf.int64)
    filled = tf.reduce_all(tf.reduce_sum(values, axis=1) == area)
    sound = filled & tf.reduce_all(values.flat_values >= 0)
    text = "mask.size: the runs of an RLE mask must fill its image; height, width:"
    return values.with_flat_values(require(sound, values.flat_values, text, size))


def _undo_differences(runs):
    """Runs of which those from the fourth on are told against the last but one."""
    flat, place = runs.flat_values, _place_in_row(runs)
    start = tf.gather(runs.row_starts(), runs.value_rowids())

    def sums(chosen):
        total = tf.cumsum(tf.where(chosen, flat, 0))
        return total - tf.gather(total, start)

    odd = place % 2 == 1
    even = ~odd & (place > 0)  # the first of all stands alone
    return runs.with_flat_values(
        tf.where(odd, sums(odd), tf.where(even, sums(even), flat))
    )


def _place_in_row(runs):
    """(all runs,) int64, the number of each within its string."""
    starts = tf.gather(runs.row_starts(), runs.value_rowids())
    return tf.range(tf.size(starts, tf.int64)) - starts


def _count_up_to(ascending, values):
    """(N,) int64, how many of `ascending` (M,) are at most each of `values` (N,)."""
    # The raw op: `tf.searchsorted` fails in a graph where there is nothing.
    counts = tf.raw_ops.UpperBound(
        sorted_inputs=ascending[None], values=values[None], out_type=tf.int64
    )
    return counts[0]
