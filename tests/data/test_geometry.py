"""The two arithmetics of going back to original pixels agree."""

import numpy as np
import pytest

from visionkit.data import geometry, resize
from visionkit.types import RESIZE_MODES, Preprocessing

SIZES = np.array([[48, 97], [300, 1000], [61, 20], [512, 512]])


@pytest.mark.parametrize("mode", RESIZE_MODES)
def test_numpy_places_and_returns_boxes_as_the_graph_does(mode):
    preprocessing = Preprocessing((64, 96), mode)
    place = geometry.placements(SIZES, preprocessing)
    boxes = np.random.default_rng(0).uniform(-5, 100, (4, 7, 4)).astype("float32")
    boxes[..., 2:] = boxes[..., :2] + 20
    for size, placement, row in zip(SIZES, place, boxes, strict=True):
        _, expected = resize.resize_image(np.zeros((*size, 3), "uint8"), preprocessing)
        np.testing.assert_allclose(placement, expected, rtol=1e-6)
        np.testing.assert_allclose(
            geometry.boxes_to_original(row[None], placement[None], size[None])[0],
            resize.boxes_to_original(row, placement, size),
            atol=1e-3,
        )
