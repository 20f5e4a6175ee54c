"""The RPN's proposals and targets, against loops over boxes."""

import keras
import numpy as np
import pytest
from keras import ops

from visionkit.ops.box_coder import BoxCoder
from visionkit.tasks.detection.proposals import Proposals, RPNOptions, rpn_terms

IMAGE_SIZE = (60, 100)
IMAGES = np.zeros((2, *IMAGE_SIZE, 3), "float32")  # for their size alone
COUNTS = (40, 12, 3)


def numpy(tensor):
    return ops.convert_to_numpy(tensor)


def iou(a, b):
    overlap = np.clip(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0, None)
    inter = overlap.prod()
    union = (a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - inter
    return inter / union if union > 0 else 0.0


@pytest.fixture
def anchors():
    rng = np.random.default_rng(1)
    centres = rng.uniform((0, 0), (100, 60), (sum(COUNTS), 2))
    sides = rng.uniform(10, 40, (sum(COUNTS), 2))
    return np.hstack([centres - sides / 2, centres + sides / 2]).astype("float32")


def proposals_loop(anchors, logits, deltas, num, pre_nms, threshold):
    """One image: level by level, box by box."""
    found, start = [], 0
    for count in COUNTS:
        rows = np.arange(start, start + count)
        start += count
        kept = []
        for row in rows[np.argsort(-logits[rows], kind="stable")][:pre_nms]:
            box = numpy(BoxCoder().decode(deltas[row], anchors[row]))
            box = np.clip(box, 0, [*IMAGE_SIZE[::-1]] * 2)
            if (box[2:] > box[:2]).all() and all(
                iou(box, other) <= threshold for other, _ in kept
            ):
                kept.append((box, logits[row]))
        found += kept
    found = [box for box, _ in sorted(found, key=lambda pair: -pair[1])][:num]
    return np.array(found + [np.zeros(4)] * (num - len(found)))


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("num", [8, 30])
def test_proposals_equal_a_loop(anchors, num, training):
    rng = np.random.default_rng(2)
    logits = rng.normal(size=(2, len(anchors), 1)).astype("float32")
    deltas = rng.normal(0, 0.5, (2, len(anchors), 4)).astype("float32")
    deltas[0, :10, 0] = 50  # far outside
    options = RPNOptions(
        num_proposals=num, pre_nms=10, training_pre_nms=20, iou_threshold=0.4
    )
    layer = Proposals(lambda size: (anchors, COUNTS), options)
    result, scores = map(numpy, layer(logits, deltas, IMAGES, training=training))
    assert scores.shape == (2, num) and (np.diff(scores) <= 0).all()
    np.testing.assert_array_equal(scores > 0, result[..., 2] > result[..., 0])
    assert result.shape == (2, num, 4)
    for image in range(2):
        expected = proposals_loop(
            anchors,
            logits[image, :, 0],
            deltas[image],
            num,
            20 if training else 10,
            0.4,
        )
        np.testing.assert_allclose(result[image], expected, atol=1e-4)


def test_no_proposal_is_left_of_deltas_that_are_no_numbers(anchors):
    options = RPNOptions(num_proposals=8)
    deltas = np.full((1, len(anchors), 4), np.nan, "float32")
    layer = Proposals(lambda size: (anchors, COUNTS), options)
    result, _ = layer(deltas[..., :1], deltas, IMAGES)
    np.testing.assert_array_equal(result, np.zeros((1, 8, 4)))


def test_targets_of_the_rpn_equal_a_loop(anchors):
    boxes = np.stack([anchors[[3, 30, 50]] + 3, np.full((3, 4), np.nan)])
    boxes = boxes.astype("float32")
    labels = np.array([[4, 0, -1], [-1, -1, -1]])
    options = RPNOptions(num_samples=1000, positive_fraction=1.0, positive_iou=0.6)
    # The prediction of a row is its number, so that drawn rows can be told.
    rows = np.broadcast_to(
        np.arange(len(anchors), dtype="float32")[:, None], (2, 55, 1)
    )
    outputs = {"rpn_classes": rows, "rpn_boxes": np.repeat(rows, 4, axis=2)}
    terms = rpn_terms(anchors, outputs, boxes, labels, options, 0)
    classes, deltas = (
        [numpy(x) for x in terms[f"rpn_{n}"]] for n in ("classes", "boxes")
    )

    expected = {}
    for image in range(2):
        truth = boxes[image][labels[image] >= 0]
        overlaps = np.array([[iou(a, t) for t in truth] for a in anchors])
        overlaps = overlaps.reshape(len(anchors), len(truth))
        for row, overlap in enumerate(overlaps):
            forced = [t for t in range(len(truth)) if overlaps[:, t].argmax() == row]
            best = overlap.argmax() if len(truth) else None
            if forced or (len(truth) and overlap[best] >= 0.6):
                match = truth[forced[0] if forced else best]
                delta = numpy(BoxCoder().encode(match, anchors[row]))
                expected[image, row] = (1.0, delta)
            elif not len(truth) or overlap[best] < 0.3:
                expected[image, row] = (0.0, np.zeros(4))
    share = 1 / len(expected)
    for image in range(2):
        drawn = [int(row) for row in classes[1][image, classes[2][image] > 0, 0]]
        assert sorted(drawn) == sorted(row for i, row in expected if i == image)
        for slot, row in enumerate(drawn):
            label, delta = expected[image, row]
            assert classes[0][image, slot, 0] == label
            np.testing.assert_allclose(deltas[0][image, slot], delta, atol=1e-5)
            np.testing.assert_array_equal(deltas[1][image, slot], [row] * 4)
            np.testing.assert_allclose(classes[2][image, slot], share, rtol=1e-5)
            np.testing.assert_allclose(deltas[2][image, slot], share * label, rtol=1e-5)
    assert np.isfinite(deltas[0]).all()


def test_options_out_of_range_are_named():
    with pytest.raises(ValueError, match="`num_proposals` must be at least 1"):
        RPNOptions(num_proposals=0)
    with pytest.raises(ValueError, match="`positive_fraction` must be in 0"):
        RPNOptions(positive_fraction=1.5)
    options = RPNOptions(num_samples=5)
    config = keras.saving.serialize_keras_object(options)
    assert keras.saving.deserialize_keras_object(config) == options
