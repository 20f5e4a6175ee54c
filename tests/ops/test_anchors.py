"""Anchors: the published numbers, places, shapes and order, and what a config keeps."""

import itertools
import math

import keras
import numpy as np
import pytest

from visionkit.ops.anchors import (
    RETINANET_ANCHORS,
    RPN_ANCHORS,
    SSD300_BOXES,
    SSD300_COCO_BOXES,
    SSD512_BOXES,
    SSD512_COCO_BOXES,
    SSDLITE_BOXES,
    AnchorGenerator,
    DefaultBoxes,
    anchor_points,
)
from visionkit.ops.pyramid import pyramid_sizes

SSD300_SIDES = (38, 19, 10, 5, 3, 1)
SSD512_SIDES = (64, 32, 16, 8, 4, 2, 1)


def pyramid(image_size, levels):
    """Sizes that "same" convolutions give, of an image of any size."""
    return {
        level: tuple(math.ceil(side / 2 ** int(level[1:])) for side in image_size)
        for level in levels
    }


def squares(levels, sides):
    return {level: (side, side) for level, side in zip(levels, sides, strict=True)}


@pytest.mark.parametrize(
    ("boxes", "sides", "count"),
    [
        (SSD300_BOXES, SSD300_SIDES, 8732),
        (SSD300_COCO_BOXES, SSD300_SIDES, 8732),
        (SSD512_BOXES, SSD512_SIDES, 24564),
        (SSD512_COCO_BOXES, SSD512_SIDES, 24564),
        (SSDLITE_BOXES, (20, 10, 5, 3, 2, 1), 3234),
    ],
)
def test_ssd_has_the_published_number_of_boxes(boxes, sides, count):
    size = (boxes.image_size,) * 2
    got = boxes(squares(boxes.levels, sides), size)
    assert got.shape == (count, 4) and got.dtype == "float32"
    per_place = boxes.num_anchors
    places = zip(boxes.levels, sides, strict=True)
    assert count == sum(per_place[level] * side**2 for level, side in places)


def test_retinanet_has_76725_anchors_at_640():
    sizes = pyramid((640, 640), RETINANET_ANCHORS.levels)
    assert RETINANET_ANCHORS(sizes, (640, 640)).shape == (76725, 4)
    assert RPN_ANCHORS.num_anchors == dict.fromkeys(RPN_ANCHORS.levels, 3)
    assert set(RETINANET_ANCHORS.num_anchors.values()) == {9}


def test_anchors_equal_a_loop_on_an_odd_image():
    generator = AnchorGenerator(("P3", "P5"), (32, 100), (1.0, 1.5), (0.5, 1, 2))
    image_size = (75, 130)
    sizes = pyramid(image_size, generator.levels)
    assert sizes == {"P3": (10, 17), "P5": (3, 5)}
    expected = []
    for level, size, stride in (("P3", 32, 8), ("P5", 100, 32)):
        height, width = sizes[level]
        for y, x, scale, ratio in itertools.product(
            range(height), range(width), (1.0, 1.5), (0.5, 1, 2)
        ):
            half_w = size * scale / math.sqrt(ratio) / 2
            half_h = size * scale * math.sqrt(ratio) / 2
            cx, cy = (x + 0.5) * stride, (y + 0.5) * stride
            expected.append((cx - half_w, cy - half_h, cx + half_w, cy + half_h))
    np.testing.assert_allclose(generator(sizes, image_size), expected, rtol=1e-6)


def test_ssd300_boxes_are_those_of_the_paper():
    boxes = SSD300_BOXES(squares(SSD300_BOXES.levels, SSD300_SIDES), (300, 300))
    sides = boxes[:, 2:] - boxes[:, :2]
    centres = (boxes[:, 2:] + boxes[:, :2]) / 2
    np.testing.assert_allclose(centres[0], (4, 4), atol=1e-5)
    np.testing.assert_allclose(centres[4], (12, 4), atol=1e-5)
    root = math.sqrt(2)
    first = [(30, 30), (math.sqrt(30 * 60),) * 2]
    first += [(30 * root, 30 / root), (30 / root, 30 * root)]
    np.testing.assert_allclose(sides[:4], first, rtol=1e-5)
    np.testing.assert_allclose(centres[-4:], 150, rtol=1e-6)
    np.testing.assert_allclose(sides[-4], 264, rtol=1e-6)
    np.testing.assert_allclose(sides[-3], math.sqrt(264 * 315), rtol=1e-6)
    # The level of 3 x 3 places has steps of 100.
    np.testing.assert_allclose(centres[-5], (250, 250), rtol=1e-6)


def test_published_steps_do_not_leave_the_image():
    """A last level of 2 x 2 places, as strides of 2 give, is divided evenly."""
    sizes = squares(SSD300_BOXES.levels, [*SSD300_SIDES[:-1], 2])
    boxes = SSD300_BOXES(sizes, (300, 300))
    centres = (boxes[:, 2:] + boxes[:, :2]) / 2
    np.testing.assert_allclose(centres[-1], (225, 225), rtol=1e-6)
    np.testing.assert_allclose(centres[0], (4, 4), atol=1e-5)


def test_default_boxes_follow_the_image():
    """Centres share it evenly, squares stay square and keep their share of its area."""
    sizes = {level: (2, 4) for level in SSD300_BOXES.levels}
    boxes = SSD300_BOXES(sizes, (150, 600))
    sides = boxes[:, 2:] - boxes[:, :2]
    np.testing.assert_allclose(sides[0], (30, 30), rtol=1e-6)
    np.testing.assert_allclose((boxes[0, :2] + boxes[0, 2:]) / 2, (75, 37.5), rtol=1e-6)
    half = SSD300_BOXES(sizes, (75, 300))
    np.testing.assert_allclose(half * 2, boxes, rtol=1e-5)


def test_points_of_a_pyramid():
    points, strides = anchor_points({"P4": (2, 3), "P3": (3, 5)})
    assert points.shape == (21, 2) and points.dtype == strides.dtype == "float32"
    np.testing.assert_array_equal(points[:2], [(4, 4), (12, 4)])
    np.testing.assert_array_equal(points[15:17], [(8, 8), (24, 8)])
    np.testing.assert_array_equal(points[-1], (40, 24))
    np.testing.assert_array_equal(strides, [8] * 15 + [16] * 6)


@pytest.mark.parametrize("boxes", [RPN_ANCHORS, SSD300_BOXES, SSDLITE_BOXES])
def test_a_config_gives_the_same_boxes(boxes):
    config = keras.saving.serialize_keras_object(boxes)
    again = keras.saving.deserialize_keras_object(config)
    assert again.get_config() == boxes.get_config() and type(again) is type(boxes)


@pytest.mark.parametrize("size", [(64, 96), (75, 101), (300, 300), (320, 320)])
@pytest.mark.parametrize(
    "boxes", [RETINANET_ANCHORS, RPN_ANCHORS, SSD300_BOXES, SSDLITE_BOXES]
)
def test_a_size_that_a_tensor_says_gives_the_table_of_its_numbers(boxes, size):
    """Traced for any size, as a batch of several sizes is."""
    import tensorflow as tf

    @tf.function(input_signature=[tf.TensorSpec((2,), tf.int32)])
    def traced(size):
        size = tf.unstack(size)
        sizes = pyramid_sizes(boxes.levels, size)
        return boxes(sizes, size), anchor_points(sizes)

    sizes = pyramid(size, boxes.levels)
    found, places = traced(size)
    assert found.dtype == "float32"
    np.testing.assert_allclose(found, boxes(sizes, size), rtol=1e-5, atol=1e-4)
    for tensor, array in zip(places, anchor_points(sizes), strict=True):
        np.testing.assert_array_equal(tensor, array)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="Level P4 of an image"):
        AnchorGenerator(("P4",), (64,))({"P4": (3, 3)}, (64, 64))
    with pytest.raises(ValueError, match="need level P4"):
        AnchorGenerator(("P4",), (64,))({"P3": (8, 8)}, (64, 64))
    with pytest.raises(ValueError, match="must ascend"):
        AnchorGenerator(("P4", "P3"), (64, 32))
    with pytest.raises(ValueError, match="each of 2 levels"):
        AnchorGenerator(("P3", "P4"), (64,))
    with pytest.raises(ValueError, match="`aspect_ratios`"):
        DefaultBoxes(("P3", "P4"), (1, 2), (2, 3), ((2.0,),))
    with pytest.raises(ValueError, match="A level is called"):
        anchor_points({"C3": (1, 1)})
