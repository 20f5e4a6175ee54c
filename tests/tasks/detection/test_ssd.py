"""SSD: the published counts and boxes, and the loss against NumPy loops."""

import keras
import numpy as np
import pytest
from dense_cases import (
    assign,
    drawn_batch,
    encode,
    loss_parts,
    random_outputs,
    tiny_backbone,
)

import visionkit as vk
from visionkit.tasks.detection.ssd import SSD


@pytest.fixture
def without_values():
    with keras.StatelessScope(initialize_variables=False):
        yield
    keras.utils.clear_session()


def trainable(model):
    return sum(int(np.prod(w.shape)) for w in model.trainable_weights)


@pytest.mark.parametrize(
    ("side", "num_classes", "boxes", "expected"),
    [
        (300, 20, 8_732, 26_285_486),
        (300, 80, 8_732, 34_305_206),
        (512, 20, 24_564, 27_188_676),
        (512, 80, 24_564, 36_038_196),
    ],
)
def test_vgg16_gives_the_published_counts_and_boxes(
    side, num_classes, boxes, expected, without_values
):
    model = SSD(vk.build_backbone("vgg16_atrous", (side, side)), num_classes)
    assert trainable(model) == expected
    assert model.output["classes"].shape == (None, boxes, 1 + num_classes)
    assert model.output["boxes"].shape == (None, boxes, 4)
    assert model.preprocessing.resize == "stretch"
    nms = model.nms
    assert (nms.score_threshold, nms.iou_threshold) == (0.01, 0.45)
    assert nms.max_detections == 200


def test_ssdlite_on_mobilenet_v2_has_the_published_size(without_values):
    """Sandler et al. 2018, table 6: 4.3 M parameters with 80 classes.

    Their first level has three boxes at each place, ours six as the others: 3 x 85
    filters more on 576 channels, with their biases."""
    backbone = vk.build_backbone("mobilenet_v2", (320, 320))
    model = SSD(backbone, 80, lite=True)
    assert model.anchor_boxes.shape == (6 * (400 + 100 + 25 + 9 + 4 + 1), 4)
    assert round((trainable(model) - 3 * 85 * 577) / 1e6, 1) == 4.3

    def separable(inside, filters, bias):
        """Depthwise, its normalisation, 1x1."""
        return 11 * inside + inside * filters + (filters if bias else 2 * filters)

    count, inside = 2_223_872, 1280  # MobileNetV2 without its top
    for filters in (512, 256, 256, 128):
        half = filters // 2
        count += inside * half + 2 * half + separable(half, filters, bias=False)
        inside = filters
    for channels in (576, 1280, 512, 256, 256, 128):
        count += separable(channels, 6 * 81, True) + separable(channels, 6 * 4, True)
    assert trainable(model) == count


@pytest.mark.parametrize(
    ("name", "levels"),
    [
        ("resnet18", "P3 P4 P5 P6 P7 P8"),
        ("vgg16_atrous", "P3 P4 P5 P6 P7 P8"),
        (None, "P4 P5 P6 P7 P8 P9"),
    ],
)
def test_any_backbone_gets_six_levels(name, levels, without_values):
    backbone = tiny_backbone((256, 320), levels=(4, 5))
    if name:
        backbone = vk.build_backbone(name, (256, 320))
    present = [x for x in ("P3", "P4", "P5") if x in backbone.output]
    model = SSD(backbone, 2)
    neck = model.get_layer("neck")
    assert [*neck.levels, *neck.added] == levels.split()
    assert list(neck.levels) == present
    assert (neck.normalization is not None) == backbone.name.startswith("vgg")
    assert model.anchor_boxes.shape[0] == model.output["boxes"].shape[1]


@pytest.mark.slow
@pytest.mark.parametrize("side", [300, 512])
def test_a_training_step_of_the_published_sizes(side):
    model = SSD(vk.build_backbone("vgg16_atrous", (side, side)), 20)
    model.compile(keras.optimizers.SGD(1e-3))
    images = np.random.default_rng(0).integers(0, 256, (1, side, side, 3), "uint8")
    target = {
        "boxes": np.array([[[30.0, 40.0, 130.0, 200.0]]], "float32"),
        "labels": np.array([[7]], "int32"),
    }
    before = model.get_layer("vgg16_atrous").get_layer("fc6").get_weights()[0]
    logs = model.train_on_batch(images, target, return_dict=True)
    assert np.isfinite(logs["loss"])
    after = model.get_layer("vgg16_atrous").get_layer("fc6").get_weights()[0]
    assert (before != after).any()


def test_loss_equals_numpy_loops():
    model = SSD(tiny_backbone(), 2)
    _, target = drawn_batch()
    outputs = random_outputs(model, 4)
    classes = boxes = positives = 0.0
    for i in range(4):
        truth = target["boxes"][i][target["labels"][i] >= 0]
        rows = assign(model.anchor_boxes, truth, 0.5, 0.5)
        logits = outputs["classes"][i].astype("float64")
        losses = np.log(np.exp(logits).sum(-1, keepdims=True)) - logits  # (A, 1 + K)
        count = 0
        for a in np.flatnonzero(rows >= 0):
            count += 1
            classes += losses[a, 1 + target["labels"][i][rows[a]]]
            deltas = encode(truth[rows[a]], model.anchor_boxes[a], (10, 10, 5, 5))
            error = np.abs(outputs["boxes"][i, a] - deltas)
            boxes += np.where(error < 1, error**2 / 2, error - 0.5).sum()
        hardest = np.sort(losses[rows == -1, 0])[::-1][: 3 * count]
        classes += hardest.sum()
        positives += count
    total, parts = loss_parts(model, target, outputs)
    assert parts["classes"] == pytest.approx(classes / positives, rel=1e-4)
    assert parts["boxes"] == pytest.approx(boxes / positives, rel=1e-4)
    assert total == pytest.approx((classes + boxes) / positives, rel=1e-4)


def test_images_without_objects_cost_nothing():
    """As published: no positive, hence no negative."""
    model = SSD(tiny_backbone(), 2)
    _, target = drawn_batch()
    target["labels"][:] = -1
    total, _ = loss_parts(model, target, random_outputs(model, 4))
    assert total == 0


@pytest.mark.parametrize(
    ("backbone", "options", "message"),
    [
        ((3,), {}, "lacks P4"),
        ((3, 4), {"lite": True}, "lacks P5"),
        ((3, 4, 5), {"neck": {"levels": ["P3"]}}, "no published default boxes.*P3, P4"),
        ((3, 4, 5), {"neck": {"filters": 3}}, "filters"),
        ((3, 4, 5), {"num_classes": 0}, "at least 1"),
    ],
)
def test_wrong_options_name_themselves(backbone, options, message):
    with pytest.raises((TypeError, ValueError), match=message):
        SSD(tiny_backbone(levels=backbone), **{"num_classes": 2, **options})


def test_components_survive_their_config():
    model = SSD(
        tiny_backbone(),
        3,
        neck={"normalize": True},
        anchors={"min_sizes": [10, 20, 40, 80, 120, 160]},
        nms={"max_detections": 7},
    )
    again = SSD.from_config(model.get_config())
    assert again.get_config() == model.get_config()
    np.testing.assert_array_equal(again.anchor_boxes, model.anchor_boxes)
    assert again.get_layer("neck").normalization is not None
    assert again.nms == model.nms
