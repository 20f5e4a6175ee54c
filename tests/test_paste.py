"""Masks in boxes become pixels by one rule, wherever the box lies."""

import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from visionkit.paste import paste_mask, paste_masks, reframe_masks

SIZE = (30, 50)  # height, width
BOXES = [
    [5, 3, 40, 25],
    [3.3, 4.6, 9.1, 28.2],
    [-12.5, -7.25, 20.5, 14],
    [30, 10, 80, 300],
    [-100, -100, 200, 200],
    [20.2, 7.7, 20.9, 8.4],  # one pixel's centre
    [20.6, 7.6, 21.4, 8.4],  # none
    [60, 5, 70, 10],  # outside
    [10, 10, 10, 20],  # without area
]


def one_value(mask, box, x, y):
    """What the mask says at the centre of pixel (x, y), written out."""
    x1, y1, x2, y2 = box
    rows, columns = mask.shape
    if x2 <= x1 or y2 <= y1:
        return 0.0
    u = (x + 0.5 - x1) / (x2 - x1) * columns - 0.5
    v = (y + 0.5 - y1) / (y2 - y1) * rows - 0.5
    total = 0.0
    for i in (int(np.floor(v)), int(np.floor(v)) + 1):
        for j in (int(np.floor(u)), int(np.floor(u)) + 1):
            if 0 <= i < rows and 0 <= j < columns:
                total += (1 - abs(v - i)) * (1 - abs(u - j)) * mask[i, j]
    return total


@pytest.mark.parametrize("box", BOXES)
def test_every_pixel_is_the_interpolated_value(box):
    mask = np.random.default_rng(0).random((28, 20)).astype("float32") ** 0.5
    (found,) = paste_masks(mask[None], [box], SIZE)
    values = np.array(
        [[one_value(mask, box, x, y) for x in range(SIZE[1])] for y in range(SIZE[0])]
    )
    clear = np.abs(values - 0.5) > 1e-5  # rounding decides no other
    np.testing.assert_array_equal(found[clear], values[clear] >= 0.5)
    crop, top, left = paste_mask(mask, box, SIZE)
    rest = found.copy()
    rest[top : top + crop.shape[0], left : left + crop.shape[1]] ^= crop
    assert not rest.any()


def test_scipy_agrees_on_a_large_box():
    mask = np.random.default_rng(1).random((14, 28)).astype("float32")
    box, size = (30.3, -20.0, 410.7, 222.2), (200, 400)
    y, x = np.mgrid[: size[0], : size[1]] + 0.5
    places = [(y - box[1]) / 242.2 * 14 - 0.5, (x - box[0]) / 380.4 * 28 - 0.5]
    values = map_coordinates(mask, places, order=1, mode="grid-constant")
    clear = np.abs(values - 0.7) > 1e-4
    (found,) = paste_masks(mask[None], [box], size, threshold=0.7)
    np.testing.assert_array_equal(found[clear], values[clear] >= 0.7)
    assert 0.1 < found.mean() < 0.5


def test_a_full_mask_fills_its_box_and_an_empty_list_is_empty():
    boxes = [[2, 4, 6, 8], [-3, -3, 3, 2]]
    full = paste_masks(np.ones((2, 28, 28)), boxes, (10, 12))
    assert full[0, 4:8, 2:6].all() and full[1, :2, :3].all()
    assert full.sum((1, 2)).tolist() == [16, 6]
    assert paste_masks(np.ones((0, 28, 28)), np.zeros((0, 4)), SIZE).shape == (0, *SIZE)


def test_a_mask_framed_anew_is_the_same_mask():
    rng = np.random.default_rng(2)
    masks = rng.random((3, 28, 28)).astype("float32")
    boxes = np.float32([[-10, 2, 60, 20], [1, 1, 9, 9], [4, 4, 4, 8]])
    frames = np.clip(boxes, 0, np.float32([50, 30, 50, 30]))
    found = reframe_masks(masks, boxes, frames)
    np.testing.assert_array_equal(found[1], masks[1])  # a frame that is the box
    assert not found[2].any()
    # Cell by cell: where the new cell's centre lies in the old box.
    for i, j in ((0, 0), (13, 5), (27, 27)):
        x, y = (j + 0.5) / 28 * 50, 2 + (i + 0.5) / 28 * 18
        expected = one_value(masks[0], boxes[0], x - 0.5, y - 0.5)
        assert found[0, i, j] == pytest.approx(expected, abs=1e-5)
    smooth = map_coordinates(masks[0], np.mgrid[:28, :28] / 5.0, order=1)[None]
    before = paste_masks(smooth, boxes[:1], SIZE)
    after = paste_masks(reframe_masks(smooth, boxes[:1], frames[:1]), frames[:1], SIZE)
    assert (before == after)[:, 1:-1, 1:-1].mean() > 0.97


def test_what_cannot_be_pasted_is_refused():
    with pytest.raises(ValueError, match=r"\(N, h, w\)"):
        paste_masks(np.ones((28, 28)), [[0, 0, 1, 1]], SIZE)
    with pytest.raises(ValueError, match="threshold"):
        paste_mask(np.ones((28, 28)), [0, 0, 1, 1], SIZE, threshold=0.3)
