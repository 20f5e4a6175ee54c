import keras
import numpy as np
import pytest
from keras import ops

from visionkit.ops.roi_align import level_of_boxes, multilevel_roi_align, roi_align

# Inside, over every edge, far outside, tiny, a line, no area, the whole map, long.
BOXES = np.array(
    [
        [10.3, 5.1, 60.7, 41.9],
        [-30, -20, 25, 30],
        [70, 30, 130, 90],
        [500, 500, 600, 600],
        [33.2, 17.1, 33.9, 17.6],
        [20, 10, 20, 50],
        [0, 0, 0, 0],
        [0, 0, 96, 64],
        [2, 30, 94, 33],
    ],
    "float32",
)


def bilinear(image, y, x):
    """One point of (H, W, C), 0 outside; centres of cells at whole numbers."""
    height, width = image.shape[:2]
    if y < -1 or y > height or x < -1 or x > width:
        return np.zeros(image.shape[2])
    y, x = np.clip(y, 0, height - 1), np.clip(x, 0, width - 1)
    y0, x0 = int(y), int(x)
    y1, x1 = min(y0 + 1, height - 1), min(x0 + 1, width - 1)
    top = image[y0, x0] * (x0 + 1 - x) + image[y0, x1] * (x - x0)
    bottom = image[y1, x0] * (x0 + 1 - x) + image[y1, x1] * (x - x0)
    return top * (y0 + 1 - y) + bottom * (y - y0)


def roi_align_loop(image, box, stride, size, ratio):
    """The definition, point by point."""
    rows, columns = size
    x1, y1, x2, y2 = np.float64(box) / stride
    bin_height, bin_width = (y2 - y1) / rows, (x2 - x1) / columns
    output = np.zeros((rows, columns, image.shape[2]))
    for row in range(rows):
        for column in range(columns):
            for i in range(ratio):
                for j in range(ratio):
                    y = y1 + bin_height * (row + (i + 0.5) / ratio) - 0.5
                    x = x1 + bin_width * (column + (j + 0.5) / ratio) - 0.5
                    output[row, column] += bilinear(image, y, x) / ratio**2
    return output


@pytest.fixture(scope="module")
def pyramid():
    rng = np.random.default_rng(0)
    sizes = {"P2": (17, 24), "P3": (9, 12), "P4": (5, 6), "P5": (3, 3)}
    return {
        level: rng.normal(size=(2, *size, 5)).astype("float32")
        for level, size in sizes.items()
    }


def batch(boxes):
    return np.stack([boxes, boxes[::-1]])


@pytest.mark.parametrize(("size", "ratio"), [((3, 2), 2), ((2, 2), 1), ((1, 4), 3)])
def test_equals_the_definition(pyramid, size, ratio):
    features, boxes = pyramid["P2"], batch(BOXES)
    aligned = ops.convert_to_numpy(roi_align(features, boxes, 4, size, ratio))
    assert aligned.shape == (2, len(BOXES), *size, 5)
    for image, rows, result in zip(features, boxes, aligned, strict=True):
        for box, value in zip(rows, result, strict=True):
            expected = roi_align_loop(image, box, 4, size, ratio)
            np.testing.assert_allclose(value, expected, atol=1e-4)


def test_reads_a_plane_at_the_centres_of_the_bins():
    # Pixel (y, x) of a plane is known everywhere, also between the cells' centres.
    y, x = np.mgrid[4:64:8, 4:96:8].astype("float32")
    plane = np.stack([y, x], -1)[None]
    box = np.array([[[16.0, 8.0, 72.0, 40.0]]], "float32")
    aligned = ops.convert_to_numpy(roi_align(plane, box, 8, (4, 7)))[0, 0]
    expected = np.mgrid[12:40:8, 20:72:8].transpose(1, 2, 0)
    np.testing.assert_allclose(aligned, expected, atol=1e-4)


def test_one_cell_and_one_row_are_maps_too():
    for shape in ((1, 1), (1, 6), (6, 1)):
        ones = np.ones((1, *shape, 2), "float32")
        box = np.array([[[0, 0, shape[1] * 4, shape[0] * 4]]], "float32")
        np.testing.assert_allclose(roi_align(ones, box, 4, 3), 1.0)


def test_each_box_of_a_pyramid_reads_the_level_of_its_size(pyramid):
    sides = [2.0, 100, 111.9, 112, 223.9, 224, 447.9, 448, 1e4]
    boxes = np.array([[3, 2, 3 + side, 2 + side] for side in sides], "float32")
    levels = ops.convert_to_numpy(level_of_boxes(boxes, 2, 5))
    np.testing.assert_array_equal(levels, [2, 2, 2, 3, 3, 4, 4, 5, 5])

    boxes = batch(np.concatenate([boxes, BOXES]))
    aligned = ops.convert_to_numpy(multilevel_roi_align(pyramid, boxes, 3))
    levels = ops.convert_to_numpy(level_of_boxes(boxes, 2, 5))
    for level, features in pyramid.items():
        number = int(level[1:])
        single = ops.convert_to_numpy(roi_align(features, boxes, 2**number, 3))
        chosen = levels == number
        np.testing.assert_allclose(aligned[chosen], single[chosen], atol=1e-5)


def test_a_pyramid_of_one_level_is_that_level(pyramid):
    only = {"P4": pyramid["P4"]}
    np.testing.assert_allclose(
        multilevel_roi_align(only, batch(BOXES), 2),
        roi_align(only["P4"], batch(BOXES), 16, 2),
        atol=1e-6,
    )


def test_half_precision_is_summed_in_float32(pyramid):
    half = {level: ops.cast(value, "bfloat16") for level, value in pyramid.items()}
    exact = {level: ops.cast(value, "float32") for level, value in half.items()}
    aligned = multilevel_roi_align(half, batch(BOXES), 2)
    assert keras.backend.standardize_dtype(aligned.dtype) == "bfloat16"
    expected = ops.cast(multilevel_roi_align(exact, batch(BOXES), 2), "bfloat16")
    np.testing.assert_allclose(
        ops.cast(aligned, "float32"), ops.cast(expected, "float32"), atol=1e-5
    )


def test_boxes_that_are_no_numbers_do_not_crash(pyramid):
    # A net that has diverged must reach the loss, where it is seen.
    boxes = np.full((2, 3, 4), [np.nan, -np.inf, np.inf, 1e30], "float32")
    assert multilevel_roi_align(pyramid, boxes, 2).shape == (2, 3, 2, 2, 5)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="tf.function")
def test_compiled_values_and_gradients_are_the_plain_ones(pyramid):
    import tensorflow as tf

    def both(features):
        with tf.GradientTape() as tape:
            tape.watch(features)
            aligned = multilevel_roi_align(features, tf.constant(batch(BOXES)), 2)
            loss = tf.reduce_sum(aligned**2)
        return aligned, tape.gradient(loss, features)

    features = tf.nest.map_structure(tf.constant, pyramid)
    compiled = tf.nest.flatten(tf.function(both, jit_compile=True)(features))
    for one, other in zip(compiled, tf.nest.flatten(both(features)), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)
