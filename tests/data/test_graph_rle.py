"""RLE in the graph gives the masks that NumPy and a COCO library give."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from visionkit.data.graph_rle import decode_rle, paint_regions, sample_grids
from visionkit.data.rle import decode_rle as decode_in_numpy
from visionkit.data.rle import encode_rle, encode_runs
from visionkit.data.rle import paint_regions as paint_in_numpy


def masks():
    rng = np.random.default_rng(0)
    for size in ((1, 1), (3, 2), (37, 61), (200, 130)):
        for density in (0, 0.02, 0.5, 0.97, 1):
            yield rng.random(size) < density
            blocks = rng.random((-(-size[0] // 7), -(-size[1] // 3))) < density
            yield np.kron(blocks, np.ones((7, 3)))[: size[0], : size[1]] > 0


def test_masks_equal_those_of_a_coco_library():
    from hotcoco import mask as library

    decode = tf.function(decode_rle, reduce_retracing=True)
    for mask in masks():
        theirs = library.encode(np.asfortranarray(mask, np.uint8))["counts"]
        theirs = theirs if isinstance(theirs, bytes) else theirs.encode()
        for counts in (theirs, encode_rle(mask)):
            found = decode(tf.constant(counts), tf.constant(mask.shape))
            np.testing.assert_array_equal(found, mask)
            np.testing.assert_array_equal(found, decode_in_numpy(counts, mask.shape))


def test_later_regions_cover_earlier_ones():
    rng, size = np.random.default_rng(1), (45, 70)
    paint = tf.function(paint_regions, reduce_retracing=True)
    for count in (0, 1, 5, 40):
        shapes = rng.random((count, *size)) < 0.3
        labels = rng.integers(0, 256, count).astype(np.int32)
        regions = [encode_rle(shape) for shape in shapes]
        expected = np.zeros(size, np.uint8)
        for shape, label in zip(shapes, labels, strict=True):
            expected[shape] = label
        found = paint(tf.constant(regions, tf.string, [count]), labels, list(size))
        assert found.dtype == tf.uint8
        np.testing.assert_array_equal(found, expected)
        np.testing.assert_array_equal(paint_in_numpy(regions, labels, size), expected)


def test_grids_are_the_masks_at_their_points():
    rng = np.random.default_rng(2)
    sample = tf.function(sample_grids, reduce_retracing=True)
    for count, size, density in itertools.product(
        (0, 1, 6), ((1, 1), (13, 17), (40, 23)), (0, 0.03, 0.5, 1)
    ):
        masks = rng.random((count, *size)) < density
        regions = tf.constant([encode_rle(m) for m in masks], tf.string, [count])
        y = np.sort(rng.integers(0, size[0], (count, 9), np.int32), axis=1)
        x = rng.integers(0, size[1], (count, 11), np.int32)
        found = sample(regions, tf.constant(size), tf.constant(y), tf.constant(x))
        assert found.dtype == tf.uint8 and found.shape == (count, 9, 11)
        for mask, rows, columns, grid in zip(masks, y, x, found, strict=True):
            np.testing.assert_array_equal(grid, mask[np.ix_(rows, columns)])


def test_damage_and_other_sizes_are_refused():
    counts = encode_rle(np.eye(6, 9, dtype=bool))
    for damaged in (b"", b"\xff\xff", counts[:-1] + b"o", b"oooooooooooo0"):
        with pytest.raises(tf.errors.InvalidArgumentError, match=r"mask\.rle"):
            decode_rle(tf.constant(damaged), tf.constant((6, 9)))
        for regions in ([counts, damaged], [damaged, counts]):
            with pytest.raises(tf.errors.InvalidArgumentError, match=r"mask\.rle"):
                paint_regions(tf.constant(regions), tf.ones(2, tf.int32), (6, 9))
    for wrong in (counts, encode_runs(np.array([90, -9]))):
        with pytest.raises(tf.errors.InvalidArgumentError, match=r"mask\.size"):
            decode_rle(tf.constant(wrong), tf.constant((9, 9)))
