"""NMS: a NumPy loop, TensorFlow's ops, and both ways to the same answer."""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from visionkit.ops import nms as module
from visionkit.ops.nms import NMS, separate, suppress

B, N, K = 2, 60, 5


@pytest.fixture(params=["op", "static"])
def path(request, monkeypatch):
    """TensorFlow's op, and what XLA and other backends use."""
    if request.param == "static":
        monkeypatch.setattr(module, "outside_xla", lambda: False)
    return request.param


def scene(seed=0, batch=B, ties=False):
    """Boxes in heaps; with `ties`, whole pixels and scores of few values."""
    rng = np.random.default_rng(seed)
    centre = rng.uniform(20, 180, (batch, 8, 2))[:, rng.integers(0, 8, N)]
    centre = centre + rng.normal(0, 4, (batch, N, 2))
    half = rng.uniform(5, 30, (batch, N, 2))
    boxes = np.concatenate([centre - half, centre + half], -1)
    scores = rng.uniform(0, 1, (batch, N, K)) ** 2
    if ties:
        boxes, scores = np.round(boxes / 8) * 8, np.round(scores * 4) / 4
    return boxes.astype("float32"), scores.astype("float32")


def loop_iou(a, b):
    sides = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    inter = np.prod(np.maximum(sides, 0))
    union = np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - inter
    return inter / union if union > 0 else 0.0


def loop_nms(boxes, scores, nms):
    """Rows (box, class, score) of one image, as the definition says."""
    pairs = [(n, k) for n in range(len(boxes)) for k in range(scores.shape[1])]
    if not nms.multi_label:
        pairs = [(n, int(np.argmax(scores[n]))) for n in range(len(boxes))]
    pairs.sort(key=lambda pair: -scores[pair])  # stable: boxes, then classes
    left = {p: float(scores[p]) for p in pairs[: nms.pre_nms]}
    left = {p: score for p, score in left.items() if score > nms.score_threshold}

    def box(pair):
        return boxes[pair].astype("float64") if boxes.ndim == 3 else boxes[pair[0]]

    kept = []
    while left and len(kept) < nms.max_detections:
        best = max(left, key=left.get)  # the first of the largest
        score = left.pop(best)
        if score <= nms.score_threshold:
            break
        kept.append((best, score))
        for other in list(left):
            if other[1] == best[1] or nms.class_agnostic:
                overlap = loop_iou(box(best), box(other))
                if nms.soft_sigma:
                    left[other] *= np.exp(-(overlap**2) / nms.soft_sigma)
                elif overlap > nms.iou_threshold:
                    del left[other]
    return kept, box


def check(nms, boxes, scores):
    answers = {name: np.asarray(x) for name, x in nms(boxes, scores).items()}
    depth = nms.max_detections
    assert answers["boxes"].shape == (len(boxes), depth, 4)
    assert {name: x.dtype.name for name, x in answers.items()} == {
        "boxes": "float32",
        "scores": "float32",
        "labels": "int32",
        "num_detections": "int32",
    }
    for i in range(len(boxes)):
        kept, box = loop_nms(boxes[i], scores[i], nms)
        count = len(kept)
        assert answers["num_detections"][i] == count
        np.testing.assert_array_equal(
            answers["labels"][i],
            [label for (_, label), _ in kept] + [-1] * (depth - count),
        )
        expected = [score for _, score in kept] + [0] * (depth - count)
        np.testing.assert_allclose(answers["scores"][i], expected, rtol=1e-4)
        if count:
            expected = np.array([box(pair) for pair, _ in kept], "float32")
            np.testing.assert_array_equal(answers["boxes"][i][:count], expected)
        np.testing.assert_array_equal(answers["boxes"][i][count:], 0)
    return answers


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"class_agnostic": True},
        {"multi_label": False},
        {"pre_nms": 20, "max_detections": 15},
        {"pre_nms": 20, "max_detections": 15, "multi_label": False},
        {"soft_sigma": 0.5},
        {"soft_sigma": 0.5, "class_agnostic": True, "max_detections": 50},
        {"iou_threshold": 0.0, "score_threshold": 0.3},
        {"iou_threshold": 1.0, "max_detections": 20},
    ],
    ids=str,
)
@pytest.mark.parametrize("ties", [False, True])
def test_nms_equals_the_definition(path, options, ties):
    answers = check(NMS(**options), *scene(ties=ties))
    assert (answers["num_detections"] > 0).all()
    assert (np.diff(answers["scores"], axis=1) <= 0).all()


@pytest.mark.parametrize("soft_sigma", [0.0, 0.5])
def test_a_box_for_every_class(path, soft_sigma):
    boxes, scores = scene()
    boxes = np.stack([boxes + 3 * k for k in range(K)], axis=2)
    check(NMS(soft_sigma=soft_sigma), boxes, scores)
    check(NMS(pre_nms=20, max_detections=20, multi_label=False), boxes, scores)


@pytest.mark.parametrize("soft_sigma", [0.0, 0.5])
def test_nothing_above_the_threshold_and_boxes_without_area(path, soft_sigma):
    boxes, scores = scene()
    scores[0] = 0.25
    boxes[1, :10] = boxes[1, :10, [0, 1, 0, 1]].T  # points
    boxes[1, 10:20, 2:] = boxes[1, 10:20, :2] + 1  # one pixel
    answers = check(
        NMS(score_threshold=0.25, soft_sigma=soft_sigma, max_detections=150),
        boxes,
        scores,
    )
    assert answers["num_detections"][0] == 0 < answers["num_detections"][1]


@pytest.mark.parametrize("count", [1, 3])
def test_fewer_boxes_than_detections(path, count):
    boxes, scores = scene()
    check(NMS(), boxes[:, :count], scores[:, :count])
    check(NMS(), boxes[:, :count], scores[:, :count, :1])


def test_equals_combined_non_max_suppression_of_tensorflow(path):
    boxes, scores = scene(seed=3)
    answers = NMS(score_threshold=0.1, iou_threshold=0.4, max_detections=80)(
        boxes, scores
    )
    peer = tf.image.combined_non_max_suppression(
        boxes[:, :, None], scores, 80, 80, 0.4, 0.1, clip_boxes=False
    )
    np.testing.assert_array_equal(answers["num_detections"], peer.valid_detections)
    np.testing.assert_array_equal(answers["boxes"], peer.nmsed_boxes)
    np.testing.assert_array_equal(answers["scores"], peer.nmsed_scores)
    np.testing.assert_array_equal(np.maximum(answers["labels"], 0), peer.nmsed_classes)


def test_huge_boxes_in_half_precision(path):
    boxes, scores = scene(seed=4)
    boxes[:, 0] = (-3e4, -3e4, 3e4, 3e4)
    half = tf.cast(boxes * 10, "bfloat16"), tf.cast(scores, "bfloat16")
    exact = [np.asarray(tf.cast(x, "float32")) for x in half]
    got, expected = NMS()(*half), NMS()(*exact)
    for name in expected:
        np.testing.assert_array_equal(got[name], expected[name])
    check(NMS(class_agnostic=True), *exact)


@pytest.mark.parametrize("limit", [5, N, 2 * N])
@pytest.mark.parametrize("ties", [False, True])
def test_suppress_equals_non_max_suppression_of_tensorflow(path, limit, ties):
    boxes, scores = scene(seed=5, ties=ties)
    scores = scores[..., 0] * 10 - 5  # logits
    scores[:, 7:20] = -np.inf
    index, valid = suppress(boxes, scores, 0.5, limit)
    assert index.shape == valid.shape == (B, limit)
    for i in range(B):
        peer = tf.image.non_max_suppression(
            boxes[i], scores[i], limit, 0.5, score_threshold=-1e9
        )
        rows = np.asarray(index[i])[np.asarray(valid[i])]
        if ties:  # TensorFlow does not say which of two equals comes first
            np.testing.assert_array_equal(scores[i][rows], scores[i][peer.numpy()])
        else:
            np.testing.assert_array_equal(rows, peer)
        assert not np.any(np.asarray(index[i])[len(rows) :])


def test_suppress_without_any_box(path):
    boxes, _ = scene()
    index, valid = suppress(boxes, np.full((B, N), -np.inf, "float32"), 0.5, 10)
    assert not np.any(valid) and not np.any(index)


def test_long_chains_of_suppressions(path):
    """Each box overlaps the next: every second stays, found only one after another."""
    left = np.arange(N, dtype="float32") * 3
    boxes = np.stack([left, left * 0, left + 10, left * 0 + 10], -1)[None]
    index, valid = suppress(boxes, -np.arange(N, dtype="float32")[None], 0.5, N)
    np.testing.assert_array_equal(index[0][: N // 2], np.arange(0, N, 2))
    assert np.sum(valid) == N // 2


def test_separate_keeps_groups_apart_and_sizes():
    boxes, _ = scene()
    groups = np.arange(N, dtype="int32")[None].repeat(B, 0) % 7
    moved = np.asarray(separate(tf.constant(boxes), groups))
    np.testing.assert_allclose(
        moved[..., 2:] - moved[..., :2], boxes[..., 2:] - boxes[..., :2], atol=1e-3
    )
    for a in range(N):
        for b in range(a):
            if groups[0, a] != groups[0, b]:
                assert loop_iou(moved[0, a], moved[0, b]) == 0


def operations(function):
    graph = function.get_concrete_function().graph
    return {operation.type for operation in graph.get_operations()}


def test_the_fast_op_is_used_outside_xla_only():
    boxes, scores = scene()
    used = {
        jit: operations(tf.function(lambda: NMS()(boxes, scores), jit_compile=jit))
        for jit in (False, True)
    }
    assert "CombinedNonMaxSuppression" in used[False]
    assert "CombinedNonMaxSuppression" not in used[True]


@pytest.mark.parametrize("soft_sigma", [0.0, 0.5])
def test_a_compiled_model_of_any_batch_equals_the_plain_one(soft_sigma):
    boxes, scores = scene()
    nms = NMS(soft_sigma=soft_sigma, max_detections=30)

    class Layer(keras.layers.Layer):
        def call(self, inputs):
            return nms(inputs["boxes"], inputs["scores"])

    inputs = {
        "boxes": keras.Input((N, 4), name="boxes"),
        "scores": keras.Input((N, K), name="scores"),
    }
    model = keras.Model(inputs, Layer()(inputs))
    assert model.output["boxes"].shape == (None, 30, 4)
    data = {"boxes": boxes, "scores": scores}
    model.compile(jit_compile=False)
    plain = model.predict(data, verbose=0)
    model.compile(jit_compile=True)
    compiled = model.predict(data, verbose=0)
    for name in plain:
        np.testing.assert_allclose(compiled[name], plain[name], rtol=1e-5)


JAX = """
import sys
sys.modules["tensorflow"] = None
import jax, numpy as np
from visionkit.ops.box_coder import BoxCoder
from visionkit.ops.matching import match_by_iou
from visionkit.ops.nms import NMS
from visionkit.ops.targets import anchor_targets
data = dict(np.load(sys.argv[1]))
answers = {}
for sigma in (0.0, 0.5):
    found = jax.jit(NMS(soft_sigma=sigma))(data["boxes"], data["scores"])
    answers.update({f"{name}{sigma}": np.asarray(x) for name, x in found.items()})
anchors, truth, labels = data["anchors"], data["truth"], data["labels"]
def targets(truth, labels):
    match = match_by_iou(
        anchors, truth, labels, positive=0.5, negative=0.4, force_best=True
    )
    return anchor_targets(match, anchors, truth, labels, BoxCoder())
answers.update(jax.jit(targets)(truth, labels))
np.savez(sys.argv[2], **answers)
"""


def test_jax_without_tensorflow_gives_the_same(tmp_path):
    pytest.importorskip("jax")
    from visionkit.ops.box_coder import BoxCoder
    from visionkit.ops.matching import match_by_iou
    from visionkit.ops.targets import anchor_targets

    boxes, scores = scene(ties=True)
    anchors, truth = scene(seed=1)[0][0], scene(seed=2)[0][:, :6]
    labels = np.array([[0, 3, 1, 2, -1, -1], [-1] * 6], "int32")
    truth[0, 4:] = np.nan
    np.savez(
        tmp_path / "in.npz",
        boxes=boxes,
        scores=scores,
        anchors=anchors,
        truth=truth,
        labels=labels,
    )
    done = subprocess.run(
        [sys.executable, "-c", JAX, str(tmp_path / "in.npz"), str(tmp_path / "out")],
        env={**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    match = match_by_iou(
        anchors, truth, labels, positive=0.5, negative=0.4, force_best=True
    )
    expected = anchor_targets(match, anchors, truth, labels, BoxCoder())
    for sigma in (0.0, 0.5):
        found = NMS(soft_sigma=sigma)(boxes, scores)
        expected.update({f"{name}{sigma}": x for name, x in found.items()})
    with np.load(tmp_path / "out.npz") as got:
        assert set(got) == set(expected)
        for name in expected:
            np.testing.assert_allclose(got[name], expected[name], atol=1e-5)


def test_a_config_gives_the_same_nms_and_wrong_options_are_refused():
    nms = NMS(0.01, 0.45, 200, 400, soft_sigma=0.5)
    config = keras.saving.serialize_keras_object(nms)
    assert keras.saving.deserialize_keras_object(config) == nms
    for options, name in (
        ({"iou_threshold": 1.5}, "`iou_threshold`"),
        ({"score_threshold": -0.1}, "`score_threshold`"),
        ({"max_detections": 2000}, "max_detections=2000"),
        ({"soft_sigma": -1.0}, "`soft_sigma`"),
    ):
        with pytest.raises(ValueError, match=name):
            NMS(**options)
