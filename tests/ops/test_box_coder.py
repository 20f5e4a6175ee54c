"""Deltas and distances: a loop, keras-cv, and the way there and back."""

import math

import keras
import numpy as np
import pytest
from keras import ops

from visionkit.ops.box_coder import BoxCoder, boxes_to_distances, distances_to_boxes

SSD = (10, 10, 5, 5)


def random_boxes(shape, seed=0):
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, 100, (*shape, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(1, 60, (*shape, 2))], -1)
    return boxes.astype("float32")


@pytest.mark.parametrize("weights", [(1, 1, 1, 1), SSD])
def test_deltas_equal_a_loop_and_decode_to_the_boxes(weights):
    anchors, boxes = random_boxes((9,)), random_boxes((2, 9), seed=1)
    coder = BoxCoder(weights)
    deltas = coder.encode(boxes, anchors)
    for example, row in ((0, 3), (1, 8)):
        a, b = anchors[row], boxes[example, row]
        expected = [
            ((b[0] + b[2]) / 2 - (a[0] + a[2]) / 2) / (a[2] - a[0]),
            ((b[1] + b[3]) / 2 - (a[1] + a[3]) / 2) / (a[3] - a[1]),
            math.log((b[2] - b[0]) / (a[2] - a[0])),
            math.log((b[3] - b[1]) / (a[3] - a[1])),
        ]
        expected = np.multiply(expected, weights)
        np.testing.assert_allclose(deltas[example, row], expected, atol=1e-4)
    np.testing.assert_allclose(coder.decode(deltas, anchors), boxes, atol=1e-3)


def test_deltas_equal_keras_cv():
    converters = pytest.importorskip("keras_cv.src.bounding_box.converters")
    anchors, boxes = random_boxes((9,)), random_boxes((9,), seed=1)
    options = {"anchor_format": "xyxy", "box_format": "xyxy"}
    variance = [0.1, 0.1, 0.2, 0.2]
    peer = converters._encode_box_to_deltas(
        anchors, boxes, variance=variance, **options
    )
    got = BoxCoder(SSD).encode(boxes, anchors)
    got = np.asarray(got)
    # keras-cv has y before x.
    np.testing.assert_allclose(got[:, [1, 0, 3, 2]], peer, rtol=1e-3, atol=1e-4)
    back = converters._decode_deltas_to_boxes(
        anchors, peer, variance=variance, **options
    )
    np.testing.assert_allclose(BoxCoder(SSD).decode(got, anchors), back, atol=1e-2)


def test_boxes_of_no_area_and_wild_predictions_stay_finite():
    empty = np.array([[5, 5, 5, 5], [9, 1, 3, 1]], "float32")
    real = random_boxes((2,))
    coder = BoxCoder()
    assert np.isfinite(coder.encode(empty, real)).all()
    assert np.isfinite(coder.encode(real, empty)).all()
    wild = coder.decode(np.full((2, 4), 1e4, "float32"), real)
    assert np.isfinite(wild).all()
    sides = np.asarray(wild)[:, 2:] - np.asarray(wild)[:, :2]
    assert (sides <= 1000 / 16 * (real[:, 2:] - real[:, :2]) * 1.01).all()


def test_half_precision_deltas_are_decoded_in_float32():
    anchors = random_boxes((5,))
    deltas = ops.cast(random_boxes((5,), seed=1) / 100, "bfloat16")
    got = BoxCoder().decode(deltas, ops.cast(anchors, "float32"))
    assert ops.dtype(got) == "float32"
    np.testing.assert_array_equal(
        got, BoxCoder().decode(ops.cast(deltas, "float32"), anchors)
    )


def test_distances_lead_back_to_the_boxes():
    boxes = random_boxes((2, 7))
    points = (boxes[0, :, :2] + boxes[0, :, 2:]) / 2 + 3
    distances = np.asarray(boxes_to_distances(points, boxes))
    x, y = points[4]
    left, top, right, bottom = boxes[1, 4]
    expected = (x - left, y - top, right - x, bottom - y)
    np.testing.assert_allclose(distances[1, 4], expected, rtol=1e-5)
    np.testing.assert_allclose(distances_to_boxes(points, distances), boxes, rtol=1e-5)


def test_a_config_gives_the_same_coder_and_wrong_weights_are_refused():
    coder = BoxCoder(SSD)
    config = keras.saving.serialize_keras_object(coder)
    assert keras.saving.deserialize_keras_object(config) == coder
    for weights in ((1, 1, 1), (1, 1, 1, 0)):
        with pytest.raises(ValueError, match="four positive numbers"):
            BoxCoder(weights)
