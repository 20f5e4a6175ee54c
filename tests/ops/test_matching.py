"""Matches and targets against loops over anchors and objects, with padding of NaN."""

import numpy as np
import pytest

from visionkit.ops.box_coder import BoxCoder
from visionkit.ops.matching import match_by_iou
from visionkit.ops.targets import anchor_targets

A, B, M = 60, 3, 6


def random_boxes(shape, seed, sides=(8, 50)):
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, 80, (*shape, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(*sides, (*shape, 2))], -1)
    return boxes.astype("float32")


@pytest.fixture
def truth():
    """Some objects, one image without any, padded rows of NaN, infinity and numbers."""
    boxes = random_boxes((B, M), seed=1)
    labels = np.random.default_rng(2).integers(0, 4, (B, M)).astype("int32")
    labels[0, 4:], labels[1], labels[2, 1] = -1, -1, -1
    boxes[0, 4], boxes[1, :3], boxes[2, 1] = np.nan, np.inf, (0, 0, 200, 200)
    return boxes, labels


def loop_iou(a, b):
    a, b = a.astype("float64"), b.astype("float64")
    sides = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    inter = np.prod(np.maximum(sides, 0))
    union = np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - inter
    return inter / union if union > 0 else 0.0


def loop_match(anchors, boxes, labels, positive, negative, force_best):
    """(index, positive, negative) of one image."""
    rows = [m for m in range(len(labels)) if labels[m] >= 0]
    index = np.zeros(len(anchors), int)
    best = np.zeros(len(anchors))
    for a, anchor in enumerate(anchors):
        for m in rows:
            overlap = loop_iou(anchor, boxes[m])
            if overlap > best[a]:
                index[a], best[a] = m, overlap
    is_positive = best >= positive
    if force_best:
        claims = {}
        for m in rows:
            overlaps = [loop_iou(anchor, boxes[m]) for anchor in anchors]
            a = int(np.argmax(overlaps))
            if overlaps[a] > claims.get(a, (0.0,))[0]:
                claims[a] = (overlaps[a], m)
        for a, (_, m) in claims.items():
            index[a], is_positive[a] = m, True
    return index, is_positive, (best < negative) & ~is_positive


@pytest.mark.parametrize("per_image", [False, True])
@pytest.mark.parametrize("force_best", [False, True])
@pytest.mark.parametrize("thresholds", [(0.5, 0.5), (0.5, 0.4), (0.7, 0.3)])
def test_match_equals_a_loop(truth, thresholds, force_best, per_image):
    boxes, labels = truth
    anchors = random_boxes((B, A) if per_image else (A,), seed=3)
    names = dict(zip(("positive", "negative"), thresholds, strict=True))
    match = match_by_iou(anchors, boxes, labels, **names, force_best=force_best)
    for i in range(B):
        own = anchors[i] if per_image else anchors
        expected = loop_match(own, boxes[i], labels[i], *thresholds, force_best)
        positive = np.asarray(match.positive[i])
        np.testing.assert_array_equal(positive, expected[1])
        np.testing.assert_array_equal(match.negative[i], expected[2])
        got = np.asarray(match.index[i])
        np.testing.assert_array_equal(got[positive], expected[0][positive])
    assert not np.any(match.positive[1]) and np.all(match.negative[1])


def test_objects_that_share_their_best_anchor_leave_it_to_the_closest():
    anchors = np.array([[0, 0, 10, 10], [50, 50, 60, 60]], "float32")
    boxes = np.array([[[0, 0, 10, 6], [0, 0, 10, 8], [0, 0, 8, 10]]], "float32")
    options = {"positive": 0.9, "negative": 0.3, "force_best": True}
    match = match_by_iou(anchors, boxes, np.zeros((1, 3), "int32"), **options)
    np.testing.assert_array_equal(match.index[0][:1], [1])
    np.testing.assert_array_equal(match.positive, [[True, False]])
    np.testing.assert_array_equal(match.negative, [[False, True]])


def test_an_object_takes_its_best_anchor_from_one_that_overlaps_it_more():
    """Else a small object beside a large one would have no anchor at all."""
    anchors = np.array([[0, 0, 10, 10], [0, 0, 12, 12]], "float32")
    boxes = np.array([[[0, 0, 12, 12], [0, 0, 2, 2]]], "float32")
    options = {"positive": 0.5, "negative": 0.4, "force_best": True}
    match = match_by_iou(anchors, boxes, np.zeros((1, 2), "int32"), **options)
    np.testing.assert_array_equal(match.index, [[1, 0]])
    np.testing.assert_array_equal(match.positive, [[True, True]])


def test_objects_without_area_or_overlap_match_nothing():
    anchors = random_boxes((A,), seed=3)
    boxes = np.array([[[20, 20, 20, 40], [30, 30, 30, 30], [900, 900, 950, 950]]])
    options = {"positive": 0.5, "negative": 0.4, "force_best": True}
    match = match_by_iou(anchors, boxes, np.zeros((1, 3), "int32"), **options)
    assert not np.any(match.positive) and np.all(match.negative)


def test_a_one_pixel_object_gets_one_anchor():
    anchors = random_boxes((A,), seed=3)
    boxes = np.array([[[40, 40, 41, 41]]], "float32")
    options = {"positive": 0.5, "negative": 0.4}
    labels = np.zeros((1, 1), "int32")
    forced = match_by_iou(anchors, boxes, labels, **options, force_best=True)
    assert np.sum(forced.positive) == 1
    assert not np.any(
        match_by_iou(anchors, boxes, labels, **options, force_best=False).positive
    )


def test_targets_equal_a_loop_and_are_zero_elsewhere(truth):
    boxes, labels = truth
    anchors, coder = random_boxes((A,), seed=3), BoxCoder((10, 10, 5, 5))
    options = {"positive": 0.5, "negative": 0.4, "force_best": True}
    match = match_by_iou(anchors, boxes, labels, **options)
    targets = anchor_targets(match, anchors, boxes, labels, coder)
    assert np.any(match.positive)
    for i in range(B):
        for a in range(A):
            label, deltas = targets["labels"][i][a], targets["deltas"][i][a]
            if match.positive[i][a]:
                row = int(match.index[i][a])
                assert label == labels[i, row] >= 0
                expected = coder.encode(boxes[i, row], anchors[a])
                np.testing.assert_allclose(deltas, expected, atol=1e-4)
            else:
                assert label == -1
                np.testing.assert_array_equal(deltas, 0)
    decoded = np.asarray(coder.decode(targets["deltas"], anchors))
    positive = np.asarray(match.positive)
    matched = np.take_along_axis(boxes, np.asarray(match.index)[..., None], axis=1)
    np.testing.assert_allclose(decoded[positive], matched[positive], atol=1e-3)


def test_a_compiled_match_of_any_batch_equals_the_plain_one(truth):
    import tensorflow as tf

    boxes, labels = truth
    anchors = random_boxes((A,), seed=3)

    @tf.function(
        jit_compile=True,
        input_signature=[
            tf.TensorSpec((None, M, 4), "float32"),
            tf.TensorSpec((None, M), "int32"),
        ],
    )
    def compiled(boxes, labels):
        match = match_by_iou(
            anchors, boxes, labels, positive=0.5, negative=0.4, force_best=True
        )
        return match, anchor_targets(match, anchors, boxes, labels, BoxCoder())

    match = match_by_iou(
        anchors, boxes, labels, positive=0.5, negative=0.4, force_best=True
    )
    targets = anchor_targets(match, anchors, boxes, labels, BoxCoder())
    got_match, got_targets = compiled(boxes, labels)
    for got, expected in zip(got_match, match, strict=True):
        np.testing.assert_array_equal(got, expected)
    for name in targets:
        np.testing.assert_allclose(got_targets[name], targets[name], atol=1e-5)


def test_wrong_thresholds_are_refused(truth):
    for positive, negative in ((0.0, 0.0), (0.4, 0.5), (1.5, 0.5)):
        with pytest.raises(ValueError, match="Thresholds"):
            match_by_iou(
                random_boxes((A,), seed=3),
                *truth,
                positive=positive,
                negative=negative,
                force_best=False,
            )
