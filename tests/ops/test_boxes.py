"""Box formats and overlaps against NumPy loops and keras-cv, with boxes of no area."""

import numpy as np
import pytest
from keras import ops

from visionkit.ops.boxes import (
    box_area,
    clip_boxes,
    convert_boxes,
    ioa_matrix,
    iou,
    iou_matrix,
)

SIZE = (120, 200)  # height, width
FORMATS = ("xyxy", "yxyx", "xywh", "cxcywh")
ALL_FORMATS = (*FORMATS, *(f"rel_{name}" for name in FORMATS))
KINDS = ("iou", "giou", "diou", "ciou")
# Empty, inside out, one pixel, equal, touching, containing, far away, huge.
ODD = np.array(
    [
        [10, 10, 10, 10],
        [30, 20, 10, 40],
        [5, 6, 6, 7],
        [10, 20, 30, 60],
        [10, 20, 30, 60],
        [30, 20, 50, 60],
        [0, 0, 200, 120],
        [190, 100, 199, 119],
        [-1e5, -1e5, 1e5, 1e5],
    ],
    "float32",
)


def random_boxes(count, seed=0):
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, 100, (count, 2))
    return np.concatenate([corner, corner + rng.uniform(1, 60, (count, 2))], -1).astype(
        "float32"
    )


def intersection(a, b):
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    return width * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))


def area(box):
    return max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1])


def loop_iou(a, b):
    a, b = a.astype("float64"), b.astype("float64")
    inter = intersection(a, b)
    union = area(a) + area(b) - inter
    return inter / union if union > 0 else 0.0


@pytest.mark.parametrize("target", ALL_FORMATS)
@pytest.mark.parametrize("source", ALL_FORMATS)
def test_formats_convert_there_and_back(source, target):
    boxes = random_boxes(6).reshape(2, 3, 4)
    start = convert_boxes(boxes, "xyxy", source, SIZE)
    there = convert_boxes(start, source, target, SIZE)
    assert there.shape == boxes.shape
    back = convert_boxes(there, target, "xyxy", SIZE)
    np.testing.assert_allclose(back, boxes, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("relative", [False, True])
@pytest.mark.parametrize("target", FORMATS)
def test_formats_equal_keras_cv(target, relative):
    keras_cv = pytest.importorskip("keras_cv")
    peer = {"cxcywh": "center_xywh", "xyxy": "xyxy", "yxyx": "yxyx", "xywh": "xywh"}
    peer = ("rel_" if relative else "") + peer[target]
    if peer not in ("rel_xywh", "rel_center_xywh"):  # newer names of keras-cv
        boxes = random_boxes(5)
        expected = keras_cv.bounding_box.convert_format(
            boxes, source="xyxy", target=peer, image_shape=(*SIZE, 3)
        )
        got = convert_boxes(boxes, "xyxy", ("rel_" if relative else "") + target, SIZE)
        np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_an_unknown_format_and_a_missing_size_are_refused():
    with pytest.raises(ValueError, match=r"box format.*'xxyy'"):
        convert_boxes(random_boxes(1), "xyxy", "xxyy")
    with pytest.raises(ValueError, match="image_size"):
        convert_boxes(random_boxes(1), "xyxy", "rel_xyxy")
    with pytest.raises(ValueError, match="`kind`"):
        iou(random_boxes(1), random_boxes(1), "ious")


def test_areas_and_clipping():
    np.testing.assert_allclose(box_area(ODD), [area(box) for box in ODD])
    expected = np.clip(ODD, 0, [SIZE[1], SIZE[0]] * 2)
    np.testing.assert_array_equal(clip_boxes(ODD, SIZE), expected)


def test_iou_matrix_equals_a_loop_and_keras_cv():
    keras_cv = pytest.importorskip("keras_cv")
    a = np.concatenate([random_boxes(10), ODD])
    b = np.concatenate([random_boxes(7, seed=1), ODD[::-1]])
    got = np.asarray(iou_matrix(a, b))
    np.testing.assert_allclose(got, [[loop_iou(x, y) for y in b] for x in a], atol=1e-6)
    peer = keras_cv.bounding_box.compute_iou(a[:10], b[:7], "xyxy")
    np.testing.assert_allclose(got[:10, :7], peer, atol=1e-5)
    batch = np.asarray(iou_matrix(a[None], np.stack([b, b[::-1]])))
    np.testing.assert_allclose(batch, [got, got[:, ::-1]], atol=1e-6)


def test_ioa_is_the_share_of_the_first():
    a, b = np.concatenate([random_boxes(5), ODD]), random_boxes(4, seed=1)
    expected = [[intersection(x, y) / max(area(x), 1e-9) for y in b] for x in a]
    np.testing.assert_allclose(ioa_matrix(a, b), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_kinds_of_iou_against_numpy(kind):
    a, b = random_boxes(40), random_boxes(40, seed=1)
    a[0] = b[0]
    expected = []
    for x, y in zip(a.astype("float64"), b.astype("float64"), strict=True):
        value = loop_iou(x, y)
        around = [*np.minimum(x, y)[:2], *np.maximum(x, y)[2:]]
        if kind == "giou":
            union = area(x) + area(y) - intersection(x, y)
            value -= (area(around) - union) / area(around)
        elif kind != "iou":
            centres = (x[:2] + x[2:] - y[:2] - y[2:]) / 2
            diagonal = np.hypot(around[2] - around[0], around[3] - around[1])
            penalty = (centres @ centres) / diagonal**2
            if kind == "ciou":
                sides_x, sides_y = x[2:] - x[:2], y[2:] - y[:2]
                angle = np.arctan2(*sides_x) - np.arctan2(*sides_y)
                v = 4 / np.pi**2 * angle**2
                penalty += v * v / (1 - value + v) if v else 0
            value -= penalty
        expected.append(value)
    np.testing.assert_allclose(iou(a, b, kind), expected, atol=1e-5)


def test_ciou_of_boxes_of_one_shape_equals_keras_cv():
    """Of one shape: keras-cv squares the factor 4 / pi^2 too, the paper does not."""
    keras_cv = pytest.importorskip("keras_cv")
    a, b = random_boxes(30), random_boxes(30, seed=1)
    b[:, 2:] = b[:, :2] + 1.5 * (a[:, 2:] - a[:, :2])
    peer = keras_cv.losses.CIoULoss("xyxy", reduction="none")(a, b)
    np.testing.assert_allclose(1 - iou(a, b, "ciou"), peer, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_values_and_gradients_are_finite_for_all_pairs_of_odd_boxes(kind):
    import tensorflow as tf

    pairs = [(x, y) for x in ODD for y in ODD]
    a = tf.Variable([x for x, _ in pairs])
    b = tf.constant([y for _, y in pairs])
    with tf.GradientTape() as tape:
        values = iou(a, b, kind)
        total = tf.reduce_sum(values)
    gradient = tape.gradient(total, a).numpy()
    assert np.isfinite(values).all() and np.isfinite(gradient).all()
    assert np.abs(gradient).max() < 1e3


def test_half_precision_boxes_are_computed_in_float32():
    boxes = ops.cast(random_boxes(4) * 8, "bfloat16")
    exact = np.asarray(ops.cast(boxes, "float32"))
    got = iou_matrix(boxes, boxes)
    np.testing.assert_allclose(got, iou_matrix(exact, exact))
    np.testing.assert_allclose(np.diag(got), 1, rtol=1e-6)
