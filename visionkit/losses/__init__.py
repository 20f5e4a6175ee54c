"""Losses that Keras does not have, or only for one kind of label.

    model.compile(loss=LossSum([PixelCrossentropy(), Dice()], weights=[1.0, 0.5]))

Names are resolved on use, so importing the package costs nothing.
"""

from __future__ import annotations

import importlib

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    submod_attrs={
        "boundary": ["BoundaryLoss"],
        "boxes": ["IoULoss", "SigmoidFocalLoss", "SmoothL1"],
        "classification": [
            "SigmoidCrossentropy",
            "SigmoidFocal",
            "SoftmaxCrossentropy",
            "SoftmaxFocal",
        ],
        "distribution_focal": ["DistributionFocalLoss"],
        "lovasz": ["LovaszSoftmax"],
        "pixels": ["OHEMCrossentropy", "PixelCrossentropy", "PixelFocal"],
        "regions": ["Dice", "Jaccard", "Tversky"],
        "sums": ["LossSum"],
    },
)

_CLASSIFICATION = "visionkit.losses.classification"

# Task -> name in recipes -> class; for classification (for one label per image, for any
# number of them).
LOSSES = {
    "classification": {
        "crossentropy": (
            f"{_CLASSIFICATION}:SoftmaxCrossentropy",
            f"{_CLASSIFICATION}:SigmoidCrossentropy",
        ),
        "focal": (f"{_CLASSIFICATION}:SoftmaxFocal", f"{_CLASSIFICATION}:SigmoidFocal"),
    },
    "semantic_segmentation": {
        "crossentropy": "visionkit.losses.pixels:PixelCrossentropy",
        "focal": "visionkit.losses.pixels:PixelFocal",
        "ohem": "visionkit.losses.pixels:OHEMCrossentropy",
        "dice": "visionkit.losses.regions:Dice",
        "tversky": "visionkit.losses.regions:Tversky",
        "jaccard": "visionkit.losses.regions:Jaccard",
        "lovasz": "visionkit.losses.lovasz:LovaszSoftmax",
        "boundary": "visionkit.losses.boundary:BoundaryLoss",
        "sum": "visionkit.losses.sums:LossSum",
    },
}


def loss_class(task: str, name: str, multi_label: bool = False):
    """The class of a loss in `LOSSES`; imports Keras."""
    target = LOSSES[task][name]
    if not isinstance(target, str):
        target = target[multi_label]
    module, _, attribute = target.partition(":")
    return getattr(importlib.import_module(module), attribute)
