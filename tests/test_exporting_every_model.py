"""A model of every architecture is exported, and passes every rung of the gate."""

import json

import keras
import pytest
from dense_cases import tiny_backbone
from drawn_instances import mask_rcnn
from tiny_detectors import DETECTORS

import visionkit as vk
from visionkit.serving import c_runtime
from visionkit.serving.gate import CHECKS

SIZE = (64, 96)


def classifier(size):
    return vk.ImageClassifier(tiny_backbone(size), 3)


def fcn(size):
    return vk.FCN(tiny_backbone(size), 3)


def unet(size):
    return vk.UNet(vk.build_backbone("unet_16", size), 3, width=4)


def deeplab_v3(size):
    return vk.DeepLabV3(tiny_backbone(size, range(1, 5)), 3, head_channels=16)


def deeplab_v3_plus(size):
    return vk.DeepLabV3Plus(tiny_backbone(size, range(1, 5)), 3, head_channels=16)


BUILDERS = {
    "ImageClassifier": classifier,
    "YOLO": DETECTORS["yolo"],
    "SSD": DETECTORS["ssd"],
    "RetinaNet": DETECTORS["retinanet"],
    "FasterRCNN": DETECTORS["faster_rcnn"],
    "MaskRCNN": mask_rcnn,
    "FCN": fcn,
    "UNet": unet,
    "DeepLabV3": deeplab_v3,
    "DeepLabV3Plus": deeplab_v3_plus,
}
"""Name of the class -> a tiny one."""

# Slow: each starts two processes that load TensorFlow, three minutes of CPU together.
# The gates of a classifier, a RetinaNet, a Mask R-CNN and a segmenter are part of other
# tests that always run; of the ops that are left, YOLO's decoding has most.
ALWAYS = ("YOLO",)


@pytest.mark.skipif(c_runtime.missing() is not None, reason=str(c_runtime.missing()))
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name in ALWAYS else pytest.mark.slow)
        for name in BUILDERS
    ],
)
def test_every_model_passes_every_check_of_the_gate(name, tmp_path):
    keras.utils.set_random_seed(0)
    model = BUILDERS[name](SIZE)
    assert type(model).__name__ == name
    folder = vk.export(model, tmp_path)
    described = json.loads((folder / "model.json").read_text())
    assert described["gate"] == [*CHECKS] and described["unchecked"] == {}


def test_no_model_is_left_out():
    found = {name: getattr(vk, name) for name in vk.__all__}
    tasks = {n for n, c in found.items() if isinstance(c, type)}
    tasks = {n for n in tasks if issubclass(found[n], keras.Model)}
    # The last one takes regions beside the image, and `export` says so.
    assert tasks == {*BUILDERS, "FastRCNN"}
