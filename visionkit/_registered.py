"""The modules whose classes Keras finds by name when it loads a model."""

from __future__ import annotations

import importlib

MODULES = (
    "backbones.channels",
    "backbones.keras_cv",
    "backbones.normalization",
    "backbones.resnet_cifar",
    "backbones.stochastic_depth",
    "backbones.unet",
    "blocks",
    "heads.deeplab",
    "heads.dense",
    "heads.fcn",
    "heads.mask",
    "heads.roi",
    "heads.tops",
    "heads.unet",
    "heads.yolo",
    "losses.boundary",
    "losses.boxes",
    "losses.classification",
    "losses.distribution_focal",
    "losses.lovasz",
    "losses.pixels",
    "losses.regions",
    "losses.sums",
    "metrics.accuracy",
    "metrics.pixels",
    "necks.fpn",
    "necks.pan",
    "necks.ssd_extra",
    "ops.anchors",
    "ops.box_coder",
    "ops.nms",
    "ops.resize",
    "postprocess",
    "tasks.classification",
    "tasks.detection.fast_rcnn",
    "tasks.detection.faster_rcnn",
    "tasks.detection.proposals",
    "tasks.detection.retinanet",
    "tasks.detection.rois",
    "tasks.detection.ssd",
    "tasks.detection.yolo",
    "tasks.instance_segmentation.mask_rcnn",
    "tasks.instance_segmentation.masks",
    "tasks.semantic_segmentation.deeplab",
    "tasks.semantic_segmentation.fcn",
    "tasks.semantic_segmentation.unet",
    "training.cycles",
    "training.optimizers",
    "training.rates",
)


def register() -> None:
    """Import them all, so that plain `keras.saving.load_model` reads every model."""
    for module in MODULES:
        importlib.import_module(f"visionkit.{module}")
