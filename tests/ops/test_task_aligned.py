"""Task-aligned assignment is that of the paper, whatever the batch looks like."""

import keras
import numpy as np
import pytest

from visionkit.ops.anchors import anchor_points
from visionkit.ops.boxes import iou
from visionkit.ops.task_aligned import assign_task_aligned

SIZE = (96, 128)
POINTS, STRIDES = anchor_points({"P3": (12, 16), "P4": (6, 8), "P5": (3, 4)})


def ciou(a, b):
    """Of two boxes, from the definition (Zheng et al. 2020)."""
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    overlap = width * height / (sum(areas) - width * height)
    centres = np.subtract(a[:2] + a[2:], b[:2] + b[2:]) / 2
    around = np.maximum(a[2:], b[2:]) - np.minimum(a[:2], b[:2])
    angles = [np.arctan((box[2] - box[0]) / (box[3] - box[1])) for box in (a, b)]
    v = 4 / np.pi**2 * (angles[0] - angles[1]) ** 2
    return overlap - (centres @ centres) / (around @ around) - v * v / (1 - overlap + v)


def assign_by_loops(logits, boxes, true_boxes, labels, top_k=10, alpha=0.5, beta=6.0):
    """Index and score of every location of one image."""
    claims = {}  # location -> [(overlap, row, agreement)]
    for row, (box, label) in enumerate(zip(true_boxes, labels, strict=True)):
        if label < 0:
            continue
        wanted = []
        for i, (x, y) in enumerate(POINTS):
            if box[0] < x < box[2] and box[1] < y < box[3]:
                overlap = max(0.0, ciou(boxes[i].astype(float), box.astype(float)))
                score = 1 / (1 + np.exp(-float(logits[i, label])))
                wanted.append((score**alpha * overlap**beta, overlap, i))
        for agreement, overlap, i in sorted(wanted, reverse=True)[:top_k]:
            if agreement > 0:
                claims.setdefault(i, []).append((overlap, -row, agreement))
    won = {i: max(several) for i, several in claims.items()}
    index, score = np.zeros(len(POINTS), int), np.zeros(len(POINTS))
    for row in range(len(labels)):
        own = {i: claim for i, claim in won.items() if claim[1] == -row}
        for i, (_, _, agreement) in own.items():
            most = max(claim[2] for claim in own.values())
            index[i] = row
            score[i] = agreement / most * max(claim[0] for claim in own.values())
    return index, score


def scene(seed, num_rows=11, num_classes=5, batch=3):
    """Truth that overlaps itself, with padding in between, and a network's guesses."""
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, 70, (batch, num_rows, 2))
    true_boxes = np.concatenate(
        [corner, corner + rng.uniform(4, 60, (batch, num_rows, 2))], -1
    )
    labels = rng.integers(0, num_classes, (batch, num_rows))
    padded = rng.random((batch, num_rows)) < 0.3
    labels[padded], true_boxes[padded] = -1, np.nan
    distances = rng.uniform(0, 4, (batch, len(POINTS), 4)) * STRIDES[:, None]
    boxes = np.concatenate(
        [POINTS - distances[..., :2], POINTS + distances[..., 2:]], -1
    )
    logits = rng.normal(-3, 2, (batch, len(POINTS), num_classes))
    return (
        logits.astype("float32"),
        boxes.astype("float32"),
        true_boxes.astype("float32"),
        labels.astype("int32"),
    )


def assign(logits, boxes, true_boxes, labels, **options):
    found = assign_task_aligned(logits, boxes, POINTS, true_boxes, labels, **options)
    return [keras.ops.convert_to_numpy(value) for value in found]


@pytest.mark.parametrize("options", [{}, {"top_k": 3, "alpha": 1.0, "beta": 2.0}])
@pytest.mark.parametrize("num_rows", [1, 4, 11])
def test_assignment_equals_loops(num_rows, options):
    truth = scene(num_rows, num_rows)
    index, score = assign(*truth, **options)
    assert index.dtype == "int32" and score.dtype == "float32"
    for image in range(len(index)):
        expected = assign_by_loops(*(part[image] for part in truth), **options)
        np.testing.assert_array_equal(index[image], expected[0])
        np.testing.assert_allclose(score[image], expected[1], rtol=1e-4, atol=1e-6)
    assert num_rows == 1 or (score > 0).sum() > 20


def test_of_equal_objects_the_first_gets_the_locations():
    logits, boxes, true_boxes, labels = scene(0, 6)
    true_boxes[:] = [20, 10, 90, 70]
    labels[:] = [-1, 3, 3, -1, 3, 3]
    index, score = assign(logits, boxes, true_boxes, labels)
    assert (score > 0).sum() == 10 * len(index)
    assert (index[score > 0] == 1).all()


@pytest.mark.parametrize("num_rows", [0, 3])
def test_without_objects_nothing_is_assigned(num_rows):
    logits, boxes, true_boxes, labels = scene(0, num_rows)
    labels[:], true_boxes[:] = -1, np.inf
    index, score = assign(logits, boxes, true_boxes, labels)
    assert not index.any() and not score.any()


def test_objects_without_area_or_without_a_location_get_nothing():
    logits, boxes, true_boxes, labels = scene(0, 2)
    labels[:] = 1
    true_boxes[:] = [[20, 20, 20, 60], [21, 21, 26, 26]]
    _, score = assign(logits, boxes, true_boxes, labels)
    assert not score.any()


def test_hopeless_predictions_do_not_vanish():
    """Agreements far below the smallest float32 still have an order and a best one."""
    logits, boxes, true_boxes, labels = scene(0, 1)
    labels[:] = 0
    true_boxes[:] = [10, 10, 110, 90]
    logits[:] = -60.0
    boxes[:] = np.concatenate([POINTS - 1.0, POINTS + 1.0], -1)
    _, score = assign(logits, boxes, true_boxes, labels)
    assert 0 < score.max() < 1e-3


def test_the_overlap_is_the_ciou_of_the_losses():
    rng = np.random.default_rng(0)
    boxes = rng.uniform(0, 50, (2, 200, 4)).astype("float32")
    boxes[..., 2:] += boxes[..., :2]
    expected = [
        ciou(a.astype(float), b.astype(float)) for a, b in zip(*boxes, strict=True)
    ]
    actual = keras.ops.convert_to_numpy(iou(boxes[0], boxes[1], "ciou"))
    np.testing.assert_allclose(actual, expected, atol=1e-5)


def test_compiled_and_with_unknown_sizes_it_is_the_same():
    tf = pytest.importorskip("tensorflow")
    if keras.backend.backend() != "tensorflow":
        pytest.skip("TensorFlow's compiler")
    truth = scene(5)
    expected = assign(*truth)
    count = len(POINTS)
    signature = [
        tf.TensorSpec((None, count, 5)),
        tf.TensorSpec((None, count, 4)),
        tf.TensorSpec((None, None, 4)),
        tf.TensorSpec((None, None), tf.int32),
    ]

    def function(logits, boxes, true_boxes, labels):
        return assign_task_aligned(logits, boxes, POINTS, true_boxes, labels)

    for jit_compile in (False, True):
        compiled = tf.function(function, signature, jit_compile=jit_compile)
        index, score = compiled(*truth)
        np.testing.assert_array_equal(index, expected[0])
        np.testing.assert_allclose(score, expected[1], rtol=1e-4, atol=1e-6)
