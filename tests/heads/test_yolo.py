"""YOLO's head: where its locations are, what it says before it has learnt anything."""

import keras
import numpy as np
import pytest

from visionkit.heads.yolo import YOLOHead

SIZES = {"P3": (8, 12), "P4": (4, 6), "P5": (2, 3)}


def pyramid(channels=8):
    rng = np.random.default_rng(0)
    return {
        level: rng.normal(size=(1, *size, channels)).astype("float32")
        for level, size in SIZES.items()
    }


def test_locations_are_row_by_row_and_the_finest_level_first():
    head = YOLOHead(3, 8)
    features = pyramid()
    before = head(features)
    assert before["classes"].shape == (1, 126, 3)
    assert before["boxes"].shape == (1, 126, 64)
    first = 0
    for level, (height, width) in SIZES.items():
        moved = dict(features)
        moved[level] = features[level].copy()
        moved[level][0, height - 1, 1] += 100  # two 3x3 convolutions reach two cells
        cell = np.zeros((height, width), bool)
        cell[max(0, height - 3) :, :4] = True
        after = head(moved)
        for name in before:
            change = np.abs(np.asarray(after[name]) - np.asarray(before[name]))
            rows = np.flatnonzero(change[0].max(-1) > 0)
            np.testing.assert_array_equal(rows, first + np.flatnonzero(cell))
        first += height * width


@pytest.mark.parametrize("num_classes", [1, 80])
def test_it_starts_from_five_objects_of_a_class_in_a_640_image(num_classes):
    zeros = {level: 0 * x for level, x in pyramid().items()}
    outputs = YOLOHead(num_classes, 8)(zeros)
    score = np.asarray(keras.ops.exp(outputs["classes"]))[0]
    strides = np.repeat([8, 16, 32], [96, 24, 6])
    expected = 5 / num_classes / (640 / strides) ** 2
    np.testing.assert_allclose(score, np.tile(expected[:, None], num_classes), 1e-4)


def test_half_precision_ends_before_the_outputs():
    head = YOLOHead(3, 8, dtype="mixed_bfloat16")
    for output in head(pyramid()).values():
        assert keras.backend.standardize_dtype(output.dtype) == "float32"
    kinds = {
        keras.backend.standardize_dtype(layer.compute_dtype)
        for tower in head.boxes.values()
        for layer in tower.layers[0].layers
    }
    assert kinds == {"bfloat16"}
