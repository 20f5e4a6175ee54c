"""What heads predict as answers: detections under every activation, pixels."""

import keras
import numpy as np
import pytest

from visionkit.ops.anchors import AnchorGenerator
from visionkit.ops.box_coder import BoxCoder
from visionkit.ops.nms import NMS
from visionkit.postprocess import ClassProbabilities, DenseDetections, PixelClasses

SIZE, K = (64, 96), 3
ANCHORS = AnchorGenerator(("P3", "P4"), (16, 32), (1.0,))(
    {"P3": (8, 12), "P4": (4, 6)}, SIZE
)
CODER = BoxCoder((10, 10, 5, 5))


def raw(truth, activation):
    """Outputs of a perfect head, of {anchor: (box, label, logit)}."""
    first = 1 if activation == "softmax" else 0
    classes = np.full((1, len(ANCHORS), first + K), -9.0, "float32")
    classes[..., :first] = 9.0
    deltas = np.zeros((1, len(ANCHORS), 4), "float32")
    for anchor, (box, label, logit) in truth.items():
        classes[0, anchor] = -9.0
        classes[0, anchor, first + label] = logit
        deltas[0, anchor] = CODER.encode(np.array(box, "float32"), ANCHORS[anchor])
    return {"classes": classes, "boxes": deltas}


TRUTH = {
    30: ((10, 12, 30, 40), 2, 5.0),
    31: ((11, 12, 31, 40), 2, 3.0),  # the same once more
    32: ((10, 12, 30, 40), 0, 2.0),  # of another class
    300: ((-20, 50, 40, 90), 1, 4.0),  # over the edge
    301: ((200, 200, 220, 220), 1, 6.0),  # outside
}


@pytest.mark.parametrize("pre_nms", [1000, 10])
@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
def test_known_boxes_come_back(activation, pre_nms):
    nms = NMS(0.3, max_detections=5, pre_nms=pre_nms)
    layer = DenseDetections(ANCHORS, CODER, nms, SIZE, activation)
    answers = layer(raw(TRUTH, activation))
    np.testing.assert_array_equal(answers["num_detections"], [3])
    np.testing.assert_array_equal(answers["labels"], [[2, 1, 0, -1, -1]])
    expected = [[10, 12, 30, 40], [0, 50, 40, 64], [10, 12, 30, 40], [0] * 4, [0] * 4]
    np.testing.assert_allclose(answers["boxes"][0], expected, atol=1e-3)
    logits = np.array([5.0, 4.0, 2.0])
    rest = 3 * np.exp(-9.0) if activation == "softmax" else 1.0
    p = np.exp(logits) / (np.exp(logits) + rest)
    np.testing.assert_allclose(answers["scores"][0], [*p, 0, 0], rtol=1e-5)


@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
def test_a_preselection_changes_nothing(activation):
    rng = np.random.default_rng(0)
    classes = rng.normal(size=(2, len(ANCHORS), K + (activation == "softmax")))
    classes = np.round(classes * 2).astype("float32")  # many equal scores
    deltas = rng.normal(size=(2, len(ANCHORS), 4)).astype("float32")
    outputs = {"classes": classes, "boxes": deltas}
    nms = NMS(0.05, max_detections=40, pre_nms=60)
    layer = DenseDetections(ANCHORS, CODER, nms, SIZE, activation)
    got = layer(outputs)
    decoded = np.asarray(CODER.decode(deltas, ANCHORS))
    decoded = np.clip(decoded, 0, [SIZE[1], SIZE[0]] * 2)
    scores = np.asarray(keras.ops.sigmoid(classes))
    if activation == "softmax":
        scores = np.asarray(keras.ops.softmax(classes))[..., 1:]
    assert (decoded[..., 2:] > decoded[..., :2]).all()
    expected = nms(decoded, scores)
    for name in expected:
        np.testing.assert_allclose(got[name], expected[name], atol=1e-4)


@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
def test_nothing_found_is_no_detection(activation):
    layer = DenseDetections(ANCHORS, CODER, NMS(), SIZE, activation)
    answers = layer(raw({}, activation))
    assert not np.any(answers["num_detections"]) and not np.any(answers["boxes"])
    assert np.all(np.asarray(answers["labels"]) == -1)


def test_in_a_model_of_mixed_precision_all_is_float32():
    inputs = {
        "classes": keras.Input((len(ANCHORS), K), dtype="bfloat16", name="classes"),
        "boxes": keras.Input((len(ANCHORS), 4), dtype="bfloat16", name="boxes"),
    }
    layer = DenseDetections(ANCHORS, CODER, NMS(max_detections=7), SIZE)
    model = keras.Model(inputs, layer(inputs))
    shapes = {name: tuple(x.shape) for name, x in model.output.items()}
    assert shapes == {
        "boxes": (None, 7, 4),
        "scores": (None, 7),
        "labels": (None, 7),
        "num_detections": (None,),
    }
    answers = model.predict(raw(TRUTH, "sigmoid"), verbose=0)
    assert answers["boxes"].dtype == answers["scores"].dtype == "float32"
    assert answers["num_detections"] == 3


def test_an_unknown_activation_is_refused():
    with pytest.raises(ValueError, match="`activation`"):
        DenseDetections(ANCHORS, CODER, NMS(), SIZE, "tanh")
    with pytest.raises(ValueError, match="`activation`"):
        ClassProbabilities("tanh")


def test_pixels_get_the_first_of_their_best_classes():
    logits = np.random.default_rng(0).normal(size=(2, 3, 5, 255)).astype("float32")
    logits[0, 0, 0, [7, 254]] = 9.0
    logits[1, 2, 4, 254] = 9.0
    answers = PixelClasses()(logits)
    assert answers["segmentation"].dtype == "uint8"
    assert int(answers["segmentation"][0, 0, 0]) == 7
    assert int(answers["segmentation"][1, 2, 4]) == 254
    np.testing.assert_array_equal(answers["segmentation"], logits.argmax(-1))
    np.testing.assert_array_equal(answers["logits"], logits)
