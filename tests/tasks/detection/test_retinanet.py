"""RetinaNet: the published counts, and the loss against NumPy loops."""

import keras
import numpy as np
import pytest
from dense_cases import (
    SIZE,
    assign,
    drawn_batch,
    encode,
    loss_parts,
    random_outputs,
    tiny_backbone,
)

import visionkit as vk
from visionkit.necks import FPN
from visionkit.tasks.detection.retinanet import RetinaNet

SMALL = {"neck": {"channels": 16}, "anchors": {"sizes": [12, 24, 48, 96, 192]}}


@pytest.fixture
def without_values():
    with keras.StatelessScope(initialize_variables=False):
        yield
    keras.utils.clear_session()


def trainable(model):
    return sum(int(np.prod(w.shape)) for w in model.trainable_weights)


@pytest.mark.parametrize(
    ("num_classes", "coarse", "published"),
    [
        (80, "input", 37_915_572),  # Detectron2's test of its model
        (91, "output", 34_014_999),  # torchvision's
    ],
)
def test_counts_of_resnet50_are_the_published_ones(
    num_classes, coarse, published, without_values
):
    """Both leave out the scales and offsets of batch normalisation (26,560 channels,
    two each), which they freeze; and Keras' ResNet-50 has as many biases."""
    backbone = vk.build_backbone("resnet50", (320, 352))
    model = RetinaNet(backbone, num_classes, neck={"coarse": coarse})
    assert trainable(model) == published + 2 * 26_560 + 26_560
    places = 40 * 44 + 20 * 22 + 10 * 11 + 5 * 6 + 3 * 3
    assert model.output["classes"].shape == (None, 9 * places, num_classes)
    assert model.output["boxes"].shape == (None, 9 * places, 4)
    assert model.preprocessing.resize == "shortest_edge"


def test_loss_equals_numpy_loops():
    model = RetinaNet(tiny_backbone(), 2, **SMALL)
    _, target = drawn_batch()
    outputs = random_outputs(model, 4)
    classes = boxes = positives = 0.0
    kinds = set()
    for i in range(4):
        truth = target["boxes"][i][target["labels"][i] >= 0]
        rows = assign(model.anchor_boxes, truth, 0.5, 0.4)
        kinds |= set(np.minimum(rows, 0))
        for a, row in enumerate(rows):
            if row == -2:
                continue
            label = target["labels"][i][row] if row >= 0 else -1
            for k, logit in enumerate(outputs["classes"][i, a].astype("float64")):
                p = 1 / (1 + np.exp(-logit))
                present = -0.25 * (1 - p) ** 2 * np.log(p)
                absent = -0.75 * p**2 * np.log(1 - p)
                classes += present if k == label else absent
            if row >= 0:
                positives += 1
                deltas = encode(truth[row], model.anchor_boxes[a], (1, 1, 1, 1))
                boxes += np.abs(outputs["boxes"][i, a] - deltas).sum()
    assert kinds == {-2, -1, 0}
    total, parts = loss_parts(model, target, outputs)
    assert parts["classes"] == pytest.approx(classes / positives, rel=1e-4)
    assert parts["boxes"] == pytest.approx(boxes / positives, rel=1e-4)
    assert total == pytest.approx((classes + boxes) / positives, rel=1e-4)


def test_the_first_loss_of_an_image_without_objects_is_small():
    """What the prior is for: all anchors are negative, and p = 0.01."""
    model = RetinaNet(tiny_backbone(), 2, **SMALL)
    images, target = drawn_batch()
    model.compile("sgd")
    empty = {"boxes": target["boxes"], "labels": np.full_like(target["labels"], -1)}
    logs = model.train_on_batch(images, empty, return_dict=True)
    anchors = 4 * len(model.anchor_boxes)
    expected = anchors * 2 * 0.75 * 0.01**2 * -np.log(0.99)
    assert logs["classes_loss"] == pytest.approx(expected, rel=0.2)
    assert logs["boxes_loss"] == 0


def test_components_are_options_or_objects():
    neck = FPN(("P4", "P5"), num_coarse=1, channels=8)
    anchors = {"levels": ["P4", "P5", "P6"], "sizes": [24, 48, 96]}
    model = RetinaNet(
        tiny_backbone(),
        3,
        neck=neck,
        head={"depth": 1, "normalization": "batch", "prior": 0.1},
        anchors=anchors,
        nms={"score_threshold": 0.2},
    )
    assert model.get_layer("head").channels == 8
    assert model.get_layer("head").depth == 1
    assert model.nms.score_threshold == 0.2 and model.nms.max_detections == 100
    again = RetinaNet.from_config(model.get_config())
    assert again.get_layer("head").get_config() == model.get_layer("head").get_config()
    assert again.get_layer(neck.name).coarse_levels == ("P6",)
    np.testing.assert_array_equal(again.anchor_boxes, model.anchor_boxes)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"neck": {"chanels": 8}}, "chanels"),
        ({"anchors": {"size": [1]}}, "size"),
        ({"nms": {"threshold": 0.5}}, "threshold"),
        ({"neck": {"levels": ["P2", "P3"]}}, "lacks P2"),
        ({"num_classes": 0}, "at least 1"),
    ],
)
def test_wrong_options_name_themselves(options, message):
    with pytest.raises((TypeError, ValueError), match=message):
        RetinaNet(tiny_backbone(), **{"num_classes": 2, **options})


def test_level_sizes_follow_the_image():
    assert SIZE[0] != SIZE[1]
    model = RetinaNet(tiny_backbone((75, 101)), 2, **SMALL)
    places = 10 * 13 + 5 * 7 + 3 * 4 + 2 * 2 + 1
    assert model.anchor_boxes.shape == (9 * places, 4)
