"""Masks in the frames of regions, beside loops over cells and known shapes."""

import keras
import numpy as np
import pytest
from keras import ops

from visionkit.ops.masks import HALF, masks_in_regions


def overlap(a1, a2, b1, b2):
    return max(0.0, min(a2, b2) - max(a1, b1))


def covered_loop(mask, box, region, size):
    """(size, size) share of each cell of a region that a mask covers."""
    height, width = mask.shape
    x1, y1, x2, y2 = np.float64(box)
    left, top, right, bottom = np.float64(region)
    cell = (bottom - top) / size, (right - left) / size
    pixel = (y2 - y1) / height, (x2 - x1) / width
    out = np.zeros((size, size))
    for i, j, y, x in np.ndindex(size, size, height, width):
        tall = overlap(
            *(top + cell[0] * i, top + cell[0] * (i + 1)),
            *(y1 + pixel[0] * y, y1 + pixel[0] * (y + 1)),
        )
        wide = overlap(
            *(left + cell[1] * j, left + cell[1] * (j + 1)),
            *(x1 + pixel[1] * x, x1 + pixel[1] * (x + 1)),
        )
        out[i, j] += mask[y, x] * tall * wide / (cell[0] * cell[1])
    return out


def random_case():
    rng = np.random.default_rng(0)
    masks = (rng.random((2, 3, 9, 12)) < 0.6).astype("uint8")
    low = rng.uniform(0, 40, (2, 3, 2))
    boxes = np.concatenate([low, low + rng.uniform(4, 50, (2, 3, 2))], -1)
    index = rng.integers(0, 3, (2, 8))
    # Around the boxes: larger, smaller, over an edge.
    regions = np.take_along_axis(boxes, index[..., None], 1)
    regions = regions + rng.uniform(-12, 12, regions.shape)
    regions[..., 2:] = np.maximum(regions[..., 2:], regions[..., :2] + 3)
    regions[0, 0] = (200, 200, 240, 260)  # beside its box
    return masks, *(x.astype("float32") for x in (boxes, index, regions))


@pytest.mark.parametrize("compiled", [False, True])
def test_equals_the_overlap_of_cells(compiled):
    masks, boxes, index, regions = random_case()
    function = masks_in_regions
    if compiled and keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        function = tf.function(function, jit_compile=True)
    index = index.astype("int32")
    found = ops.convert_to_numpy(function(masks, boxes, index, regions, 5))
    assert found.shape == (2, 8, 5, 5) and found.dtype == np.float32
    shares = []
    for i, j in np.ndindex(2, 8):
        row = index[i, j]
        share = covered_loop(masks[i, row], boxes[i, row], regions[i, j], 5)
        clear = np.abs(share - HALF) > 1e-4
        np.testing.assert_array_equal(found[i, j][clear], (share >= HALF)[clear])
        shares.append(share)
    assert 0.2 < np.mean(found) < 0.8 and np.min(shares) == 0 and np.max(shares) > 0.99


def test_in_its_own_box_a_mask_is_what_covers_half_of_each_block():
    """Exact halves, which are common there, count, wherever the box lies."""
    rng = np.random.default_rng(0)
    masks = (rng.random((1, 40, 112, 112)) < 0.5).astype("uint8")
    boxes = rng.uniform(0, 50, (1, 40, 4)).astype("float32")
    boxes[..., 2:] += boxes[..., :2] + 1
    blocks = masks.reshape(1, 40, 28, 4, 28, 4).sum((3, 5))
    assert (blocks == 8).mean() > 0.15
    found = masks_in_regions(masks, boxes, np.arange(40)[None], boxes, 28)
    np.testing.assert_array_equal(found, blocks >= 8)


def test_a_disc_is_a_disc_in_any_region():
    y, x = (np.mgrid[:112, :112] + 0.5) / 112
    disc = ((x - 0.5) ** 2 + (y - 0.5) ** 2 < 0.25).astype("uint8")[None, None]
    box = np.float32([[[20, 30, 100, 90]]])
    regions = np.float32([[[10, 20, 80, 95], [30, 40, 120, 100]]])
    found = masks_in_regions(disc, box, np.zeros((1, 2), "int32"), regions, 28)
    for mask, (x1, y1, x2, y2) in zip(np.array(found)[0], regions[0], strict=True):
        row, column = (np.mgrid[:28, :28] + 0.5) / 28
        px, py = x1 + column * (x2 - x1), y1 + row * (y2 - y1)
        radius = np.hypot((px - 60) / 40, (py - 60) / 30)
        clear = np.abs(radius - 1) > 0.06
        assert 0.8 < clear.mean() < 1
        np.testing.assert_array_equal(mask[clear], (radius < 1)[clear])


def test_what_has_no_area_or_is_no_number_has_no_mask():
    masks = np.ones((1, 3, 6, 6), "uint8")
    nothing = [np.nan] * 4
    boxes = np.float32([[[4, 4, 20, 20], nothing, [5, 5, 5, 9]]])
    regions = np.float32([[[4, 4, 20, 20], [4, 4, 20, 20], [0, 0, 9, 9], [7, 7, 7, 7]]])
    found = masks_in_regions(masks, boxes, np.int32([[0, 1, 2, 0]]), regions, 4)
    np.testing.assert_array_equal(np.mean(found, axis=(2, 3)), [[1, 0, 0, 0]])
