"""Resize and its inverse: pixels against Pillow, coordinates against themselves."""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from visionkit.data import resize
from visionkit.types import PAD_VALUE, VOID_CLASS, Preprocessing

FRAME = (60, 90)
MODES = ("letterbox", "stretch", "center_crop", "shortest_edge")
SIZES = ((41, 77), (200, 131), (60, 90), (33, 400), (2, 3))


def picture(height, width):
    rng = np.random.default_rng(height)
    small = Image.fromarray(rng.integers(0, 256, (5, 7, 3), np.uint8))
    return np.asarray(small.resize((width, height), Image.BICUBIC))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size", SIZES)
def test_resize_image_agrees_with_pillow(mode, size):
    image = picture(*size)
    preprocessing = Preprocessing(FRAME, mode)
    out, placement = resize.resize_image(tf.constant(image), preprocessing)
    assert out.shape == (*FRAME, 3) and out.dtype == tf.uint8
    sy, sx, oy, ox = placement.numpy().astype(float)
    # The part of the original that the frame shows, and where it lies in the frame.
    y1, y2 = (np.clip((v - oy) / sy, 0, size[0]) for v in (0, FRAME[0]))
    x1, x2 = (np.clip((v - ox) / sx, 0, size[1]) for v in (0, FRAME[1]))
    top, bottom, left, right = (
        round(v) for v in (y1 * sy + oy, y2 * sy + oy, x1 * sx + ox, x2 * sx + ox)
    )
    box = tuple(round(v) for v in (x1, y1, x2, y2))
    part = Image.fromarray(image).crop(box)
    part = part.resize((right - left, bottom - top), Image.BILINEAR)
    expected = np.full((*FRAME, 3), PAD_VALUE)
    expected[top:bottom, left:right] = np.asarray(part)
    assert abs(out.numpy().astype(int) - expected).max() <= 1


def test_geometry_of_each_mode():
    def placement(mode, height, width, **options):
        image = tf.zeros((height, width, 1), tf.uint8)
        preprocessing = Preprocessing((100, 200), mode, **options)
        return resize.resize_image(image, preprocessing)[1].numpy().tolist()

    assert placement("stretch", 50, 50) == [2, 4, 0, 0]
    assert placement("letterbox", 50, 50) == [2, 2, 0, 50]
    assert placement("letterbox", 50, 400) == [0.5, 0.5, 37, 0]
    assert placement("center_crop", 300, 400, crop_fraction=1.0) == [0.5, 0.5, -25, 0]
    assert placement("center_crop", 400, 800, crop_fraction=0.5) == [
        0.5,
        0.5,
        -50,
        -100,
    ]
    assert placement("shortest_edge", 50, 50) == [2, 2, 0, 0]
    assert placement("shortest_edge", 50, 50, min_edge=50) == [1, 1, 0, 0]
    assert placement("shortest_edge", 400, 100) == [0.25, 0.25, 0, 0]


@pytest.mark.parametrize("mode", MODES)
def test_boxes_and_segmentation_come_back(mode):
    height, width = 200, 140
    preprocessing = Preprocessing(FRAME, mode)
    mask = np.zeros((height, width), np.uint8)
    mask[90:125, 50:95] = 3
    _, placement = resize.resize_image(tf.constant(mask[..., None]), preprocessing)
    small = resize.resize_mask(tf.constant(mask), preprocessing)
    assert small.shape == FRAME
    box = tf.constant([[50.0, 90.0, 95.0, 125.0]])
    inside = resize.boxes_to_input(box, placement)
    rows, columns = np.nonzero(small.numpy() == 3)
    found = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    np.testing.assert_allclose(inside[0], found, atol=0.51)
    size = tf.constant([height, width])
    back = resize.boxes_to_original(inside, placement, size)
    np.testing.assert_allclose(back, box, atol=1e-3)
    large = resize.segmentation_to_original(small, placement, size).numpy()
    assert large.shape == (height, width)
    seen = large != VOID_CLASS
    assert (large[seen] == mask[seen]).mean() > 0.97
    assert seen.all() == (mode != "center_crop")


def test_boxes_functions_take_batches_and_flips():
    boxes = tf.constant([[[1.0, 2.0, 5.0, 9.0]], [[0.0, 0.0, 4.0, 2.0]]])
    placement = tf.constant([[2.0, 3.0, 1.0, 4.0], [1.0, -1.0, 0.0, 20.0]])
    out = resize.boxes_to_input(boxes, placement)
    np.testing.assert_allclose(out, [[[7, 5, 19, 19]], [[16, 0, 20, 2]]])
    sizes = tf.constant([[8, 50], [50, 50]])
    back = resize.boxes_to_original(out, placement, sizes)
    np.testing.assert_allclose(back, [[[1, 2, 5, 8]], [[0, 0, 4, 2]]])


def test_resize_image_runs_in_map_fn_with_dynamic_sizes():
    images = tf.ragged.stack([picture(20, 30), picture(70, 41)]).to_tensor()
    sizes = tf.constant([[20, 30], [70, 41]])
    preprocessing = Preprocessing(FRAME)

    @tf.function
    def both(images, sizes):
        def one(args):
            image, size = args
            return resize.resize_image(image[: size[0], : size[1]], preprocessing)[0]

        spec = tf.TensorSpec((*FRAME, 3), tf.uint8)
        return tf.map_fn(one, (images, sizes), fn_output_signature=spec)

    out = both(images, sizes)
    assert out.shape == (2, *FRAME, 3)
    alone, _ = resize.resize_image(tf.constant(picture(70, 41)), preprocessing)
    np.testing.assert_array_equal(out[1], alone)
