"""visionkit: vision tasks on Keras 3, from image files to TF Serving.

    import visionkit as vk

    run = vk.run("digits_lenet5")                       # train a recipe
    results = vk.predict(run.model, ["a.jpg", "b.png"])  # answers on files
    vk.export(run.model, "saved_models/digits")          # a SavedModel

Importing the package is cheap: TensorFlow and Keras are imported by the first name
that needs them.
"""

from __future__ import annotations

import importlib
import os
import sys

from visionkit._quiet import quiet_start
from visionkit._version import __version__

# albumentations asks the network for a newer version when imported; never do that.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
if "tensorflow" not in sys.modules:
    # TensorFlow reads this once, when it is imported. What goes wrong still shows, as
    # Python's exceptions; what is left out is its C++ chatter about absent GPUs.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

_PUBLIC = {
    "BACKBONES": "visionkit.backbones",
    "build_backbone": "visionkit.backbones",
    "SOURCES": "visionkit.data",
    "build_source": "visionkit.data",
    "make_dataset": "visionkit.data",
    "split_source": "visionkit.data",
    "build_transforms": "visionkit.data.transforms",
    "Order": "visionkit.data",
    "Preprocessing": "visionkit.types",
    "Results": "visionkit.types",
    "ImageClassifier": "visionkit.tasks.classification",
    "YOLO": "visionkit.tasks.detection.yolo",
    "SSD": "visionkit.tasks.detection.ssd",
    "RetinaNet": "visionkit.tasks.detection.retinanet",
    "FasterRCNN": "visionkit.tasks.detection.faster_rcnn",
    "FastRCNN": "visionkit.tasks.detection.fast_rcnn",
    "FCN": "visionkit.tasks.semantic_segmentation.fcn",
    "UNet": "visionkit.tasks.semantic_segmentation.unet",
    "DeepLabV3": "visionkit.tasks.semantic_segmentation.deeplab",
    "DeepLabV3Plus": "visionkit.tasks.semantic_segmentation.deeplab",
    "MaskRCNN": "visionkit.tasks.instance_segmentation.mask_rcnn",
    "load": "visionkit.tasks.loading",
    "predict": "visionkit.inference",
    "export": "visionkit.exporting",
    "run": "visionkit.training.run",
    "evaluate": "visionkit.training.evaluation",
    "explain": "visionkit.explaining",
}

__all__ = ["__version__", *sorted(_PUBLIC)]


def __getattr__(name: str):
    if name not in _PUBLIC:
        raise AttributeError(f"module 'visionkit' has no attribute {name!r}")
    with quiet_start():
        value = getattr(importlib.import_module(_PUBLIC[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
