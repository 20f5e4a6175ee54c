"""visionkit: vision tasks on Keras 3, from image files to TF Serving.

    import visionkit as vk

    run = vk.run("digits_lenet5")                       # train a recipe
    results = vk.predict(run.model, ["a.jpg", "b.png"])  # answers on files
    vk.export(run.model, "saved_models/digits")          # a SavedModel

Importing the package is cheap: TensorFlow and Keras are imported by the first name
that needs them. Once Keras is there, `keras.saving.load_model` reads what a model
`save`d, as `vk.load` does.
"""

from __future__ import annotations

import os
import sys

import lazy_loader as lazy

from visionkit._quiet import quiet_start
from visionkit._registered import register
from visionkit._version import __version__

# albumentations asks the network for a newer version when imported; never do that.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
if "tensorflow" not in sys.modules:
    # TensorFlow reads this once, when it is imported. What goes wrong still shows, as
    # Python's exceptions; what is left out is its C++ chatter about absent GPUs.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

_attribute, __dir__, _names = lazy.attach(
    __name__,
    submod_attrs={
        "backbones": ["BACKBONES", "build_backbone"],
        "data": ["SOURCES", "build_source", "make_dataset", "split_source", "Order"],
        "data.transforms": ["build_transforms"],
        "explaining": ["explain"],
        "exporting": ["export"],
        "inference": ["predict"],
        "tasks.classification": ["ImageClassifier"],
        "tasks.detection.fast_rcnn": ["FastRCNN"],
        "tasks.detection.faster_rcnn": ["FasterRCNN"],
        "tasks.detection.retinanet": ["RetinaNet"],
        "tasks.detection.ssd": ["SSD"],
        "tasks.detection.yolo": ["YOLO"],
        "tasks.instance_segmentation.mask_rcnn": ["MaskRCNN"],
        "tasks.loading": ["load"],
        "tasks.semantic_segmentation.deeplab": ["DeepLabV3", "DeepLabV3Plus"],
        "tasks.semantic_segmentation.fcn": ["FCN"],
        "tasks.semantic_segmentation.unet": ["UNet"],
        "training.evaluation": ["evaluate"],
        "training.run": ["run"],
        "types": ["Preprocessing", "Results"],
    },
)

__all__ = ["__version__", *_names]


def __getattr__(name: str):
    if name not in _names:
        return _attribute(name)  # its error
    with quiet_start():
        value = _attribute(name)
    if sys.modules.get("keras"):
        register()
    globals()[name] = value  # the next use starts nothing
    return value


if sys.modules.get("keras"):
    register()
