"""Tasks: one functional Keras model each, with its loss and its answer."""

from __future__ import annotations

import importlib

_DEEPLAB = "visionkit.tasks.semantic_segmentation.deeplab"

# Task -> model name in a recipe -> class.
MODELS = {
    "classification": {
        "classifier": "visionkit.tasks.classification:ImageClassifier",
    },
    "detection": {
        "yolo": "visionkit.tasks.detection.yolo:YOLO",
        "ssd": "visionkit.tasks.detection.ssd:SSD",
        "retinanet": "visionkit.tasks.detection.retinanet:RetinaNet",
        "faster_rcnn": "visionkit.tasks.detection.faster_rcnn:FasterRCNN",
        "fast_rcnn": "visionkit.tasks.detection.fast_rcnn:FastRCNN",
    },
    "semantic_segmentation": {
        "fcn": "visionkit.tasks.semantic_segmentation.fcn:FCN",
        "unet": "visionkit.tasks.semantic_segmentation.unet:UNet",
        "deeplab_v3": f"{_DEEPLAB}:DeepLabV3",
        "deeplab_v3_plus": f"{_DEEPLAB}:DeepLabV3Plus",
    },
    "instance_segmentation": {
        "mask_rcnn": "visionkit.tasks.instance_segmentation.mask_rcnn:MaskRCNN",
    },
}


def model_class(task: str, name: str):
    """The class of a model in `MODELS`; imports Keras."""
    module, _, attribute = MODELS[task][name].partition(":")
    return getattr(importlib.import_module(module), attribute)
