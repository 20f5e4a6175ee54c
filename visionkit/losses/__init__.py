"""Losses that Keras does not have, or only for one kind of label."""

from __future__ import annotations

import importlib

_CLASSIFICATION = "visionkit.losses.classification"

# Name in recipes -> (for one label per image, for any number of them).
LOSSES = {
    "crossentropy": (
        f"{_CLASSIFICATION}:SoftmaxCrossentropy",
        f"{_CLASSIFICATION}:SigmoidCrossentropy",
    ),
    "focal": (f"{_CLASSIFICATION}:SoftmaxFocal", f"{_CLASSIFICATION}:SigmoidFocal"),
}


def loss_class(name: str, multi_label: bool):
    """The class of a loss in `LOSSES`; imports Keras."""
    module, _, attribute = LOSSES[name][multi_label].partition(":")
    return getattr(importlib.import_module(module), attribute)
