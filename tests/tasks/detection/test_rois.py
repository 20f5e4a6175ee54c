"""The regions of the second stage, their targets and their answers."""

import numpy as np
import pytest
from keras import ops

from visionkit.ops.box_coder import BoxCoder
from visionkit.ops.nms import NMS
from visionkit.tasks.detection.rois import (
    RoiDetections,
    RoiOptions,
    box_terms,
    sample_rois,
)

CODER = BoxCoder((10, 10, 5, 5))
TRUTH = np.array(
    [[[10, 10, 50, 40], [60, 5, 90, 55], [0, 0, 0, 0]], [[np.nan] * 4] * 3], "float32"
)
LABELS = np.array([[2, 0, -1], [-1, -1, -1]])
PROPOSALS = np.array(
    [
        [12, 10, 50, 42],  # IoU with the first truth above 0.5
        [62, 0, 90, 50],  # with the second
        [10, 10, 30, 30],  # with the first, below 0.5
        [0, 0, 5, 5],  # with none
        [0, 0, 0, 0],  # padding
    ],
    "float32",
)


def numpy(tensor):
    return ops.convert_to_numpy(tensor)


def terms(num_samples=20, fraction=0.5, num_classes=3, seed=0):
    proposals = np.stack([PROPOSALS, PROPOSALS])
    options = RoiOptions(num_samples=num_samples, positive_fraction=fraction)
    sample = sample_rois(proposals, TRUTH, LABELS, options, seed)
    shape = sample.boxes.shape[:2]
    # Of class k the prediction is k.
    deltas = np.arange(num_classes, dtype="float32")[:, None] * np.ones(
        (1, 4), "float32"
    )
    outputs = {
        "classes": np.zeros((*shape, 1 + num_classes), "float32"),
        "boxes": np.broadcast_to(deltas, (*shape, num_classes, 4)),
    }
    result = box_terms(sample, outputs, TRUTH, LABELS, CODER)
    return numpy(sample.boxes), {
        name: [numpy(x) for x in term] for name, term in result.items()
    }


def test_every_region_is_the_class_and_the_box_it_overlaps():
    boxes, result = terms()
    labels, _, share = result["classes"]
    deltas, predicted, weights = result["boxes"]
    # Box -> label as the loss reads it, and row of the truth.
    expected = [
        {
            tuple(PROPOSALS[0]): (3, 0),
            tuple(PROPOSALS[1]): (1, 1),
            tuple(TRUTH[0, 0]): (3, 0),
            tuple(TRUTH[0, 1]): (1, 1),
            tuple(PROPOSALS[2]): (0, None),
            tuple(PROPOSALS[3]): (0, None),
        },
        {tuple(PROPOSALS[i]): (0, None) for i in range(4)},
    ]
    for image in range(2):
        drawn = share[image] > 0
        assert {tuple(box) for box in boxes[image, drawn]} == expected[image].keys()
        assert drawn.sum() == len(expected[image])
        np.testing.assert_allclose(share[image, drawn], 1 / 10)
        for slot in np.flatnonzero(drawn):
            label, row = expected[image][tuple(boxes[image, slot])]
            assert labels[image, slot] == label
            if row is None:
                assert weights[image, slot] == 0
            else:
                encoded = numpy(CODER.encode(TRUTH[0, row], boxes[image, slot]))
                np.testing.assert_allclose(deltas[image, slot], encoded, atol=1e-5)
                np.testing.assert_array_equal(predicted[image, slot], [label - 1] * 4)
                np.testing.assert_allclose(weights[image, slot], 1 / 10)
    assert (labels >= 0).all() and np.isfinite(deltas).all()


def test_positives_come_first_and_are_a_share_at_most():
    _, result = terms(num_samples=4, fraction=0.25)
    assert (result["classes"][0][0] > 0).tolist() == [True, False, False, False]
    _, result = terms(num_samples=4, fraction=1.0)
    assert (result["classes"][0][0] > 0).all()


def test_nothing_at_all_is_a_sample_of_weight_zero():
    options = RoiOptions(num_samples=4)
    nothing = np.zeros((1, 6, 4), "float32")
    sample = sample_rois(nothing, TRUTH[1:], LABELS[1:], options, 0)
    outputs = {
        "classes": np.zeros((1, 4, 4), "float32"),
        "boxes": np.zeros((1, 4, 3, 4), "float32"),
    }
    result = box_terms(sample, outputs, TRUTH[1:], LABELS[1:], CODER)
    for truth, _, weight in result.values():
        np.testing.assert_array_equal(numpy(weight), 0)
        assert np.isfinite(numpy(truth)).all()


def detect(logits, deltas, proposals):
    nms = NMS(score_threshold=0.05, iou_threshold=0.5, max_detections=5)
    outputs = {"proposals": proposals, "classes": logits, "boxes": deltas}
    layer = RoiDetections(CODER, nms, (60, 100))
    return {name: numpy(value) for name, value in layer(outputs).items()}


def test_detections_use_the_deltas_of_their_class():
    proposals = np.array([[[20, 10, 60, 40], [22, 10, 60, 40]]], "float32")
    targets = np.array([[15, 8, 70, 45], [90, 30, 130, 80]], "float32")
    deltas = np.stack(
        [numpy(CODER.encode(target, proposals)) for target in targets], axis=2
    )
    logits = np.array([[[0, 3, 2], [0, 2, 1]]], "float32")
    answers = detect(logits, deltas, proposals)
    # Of each class the second box is the first again, and the last sticks out.
    assert answers["num_detections"].tolist() == [2]
    assert answers["labels"][0, :2].tolist() == [0, 1]
    np.testing.assert_allclose(
        answers["boxes"][0, :2], [targets[0], [90, 30, 100, 60]], atol=1e-3
    )
    scores = np.exp([3, 2]) / np.exp([0, 3, 2]).sum()
    np.testing.assert_allclose(answers["scores"][0, :2], scores, rtol=1e-5)


@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_no_proposal_and_nothing_in_the_image_is_no_detection(offset):
    proposals = np.zeros((1, 3, 4), "float32")
    deltas = np.full((1, 3, 2, 4), offset, "float32")
    proposals[:, 0] = [20, 10, 60, 40] if offset else 0
    answers = detect(np.full((1, 3, 3), 2, "float32"), deltas, proposals)
    assert answers["num_detections"].tolist() == [0]
    assert (answers["labels"] == -1).all() and (answers["boxes"] == 0).all()
