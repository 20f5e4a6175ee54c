"""What backbones cannot be, said before anything is built.

Nothing here imports Keras or TensorFlow.
"""

from __future__ import annotations

import numbers
from collections.abc import Sequence

CLASSIFICATION_ONLY = frozenset({"lenet5", "alexnet", "alexnet_ungrouped"})
"""Backbones that keep their valid padding, so that their levels are no pyramid."""

OUTPUT_STRIDES = (8, 16, 32)

# Beginnings of the names of backbones whose dilated features would not be the
# undilated ones on a finer grid, and why. (VGG and DenseNet, which pool late, refuse
# a stride of 8 while they are rebuilt.)
_NEVER_DILATED = {
    "csp_darknet": "its pooling over 5x5 at the end cannot be dilated",
    "efficientnet": "its squeeze-and-excitation would average over other positions",
    "ghostnet": "its squeeze-and-excitation would average over other positions",
    "googlenet": "its modules pool, which cannot be dilated",
    "inception_v3": "its modules pool, which cannot be dilated",
    "keras_cv.": "its blocks are closed layers of keras-cv",
    "mobilenet_v3": "its squeeze-and-excitation would average over other positions",
    "nasnet": "its cells pool, which cannot be dilated",
    "xception": "its pooling of 3x3 and its shortcut of 1x1 have grids one pixel apart",
}

LAST_STAGE_BLOCKS = {
    "resnet18": 2,
    "resnet34": 3,
    "resnet50": 3,
    "resnet101": 3,
    "resnet152": 3,
    "resnet50_v2": 3,
    "resnet101_v2": 3,
    "resnet152_v2": 3,
}
"""Residual blocks of the last stage, in the backbones that take a `multi_grid`."""


def check_shape(image_size, channels) -> tuple[int | None, int | None, int]:
    """(height, width, channels) of the input, or a `ValueError`."""
    sides = tuple(image_size) if isinstance(image_size, Sequence) else ()
    if len(sides) != 2 or not all(side is None or _positive(side) for side in sides):
        raise ValueError(
            "`image_size` must be (height, width), positive integers or None for a "
            f"dynamic side. Received: image_size={image_size!r}"
        )
    if not _positive(channels):
        raise ValueError(
            f"`channels` must be a positive integer. Received: channels={channels!r}"
        )
    return (*sides, channels)


def check_output_stride(name: str, output_stride: int) -> None:
    """Refuses an output stride that no backbone, or not this one, can have."""
    if output_stride not in OUTPUT_STRIDES:
        raise ValueError(
            f"`output_stride` must be one of {OUTPUT_STRIDES}. "
            f"Received: output_stride={output_stride!r}"
        )
    if name in CLASSIFICATION_ONLY and output_stride != max(OUTPUT_STRIDES):
        raise ValueError(
            f"{name} serves classification only and cannot be dilated: leave "
            f"`output_stride` at its default. Received: output_stride={output_stride}"
        )
    for family, reason in _NEVER_DILATED.items():
        if name.startswith(family) and output_stride != max(OUTPUT_STRIDES):
            raise ValueError(
                f"{name} cannot be dilated exactly: {reason}. Leave `output_stride` at "
                f"its default. Received: output_stride={output_stride}"
            )


def check_multi_grid(name: str, multi_grid: Sequence[int] | None) -> None:
    """Refuses a multi-grid where there is none, or not one rate for each block."""
    if multi_grid is None:
        return
    blocks = LAST_STAGE_BLOCKS.get(name)
    if blocks is None:
        raise ValueError(
            "`multi_grid` is for backbones whose last stage is a few residual blocks: "
            f"{', '.join(LAST_STAGE_BLOCKS)}. Leave it out, or take one of those. "
            f"Received: multi_grid={multi_grid!r} for {name}"
        )
    rates = tuple(multi_grid) if isinstance(multi_grid, Sequence) else ()
    if len(rates) != blocks or not all(_positive(rate) for rate in rates):
        raise ValueError(
            f"`multi_grid` of {name} must be {blocks} positive integers, one for each "
            f"block of its last stage, such as {(1, 2, 4)[:blocks]}. "
            f"Received: multi_grid={multi_grid!r}"
        )


def check_options(name: str, weights, stochastic_depth: float | None) -> None:
    """Refuses what the networks of some families would take and do wrongly."""
    if name.startswith("keras_cv.") and weights not in (None, "imagenet"):
        raise ValueError(
            f"The layers of {name} cannot be matched with a file by name. Use "
            "`weights=None`, then `backbone.load_weights(PATH)` of a file saved by "
            f"this backbone. Received: weights={weights!r}"
        )
    if stochastic_depth and name.startswith(("nasnet", "keras_cv.")):
        reason = "has cells in place of residual branches"
        if name.startswith("keras_cv."):
            reason = "has closed layers of keras-cv for blocks"
        raise ValueError(
            f"{name} {reason}, which `stochastic_depth` cannot drop: leave it out. "
            f"Received: stochastic_depth={stochastic_depth}"
        )


def _positive(value) -> bool:
    return isinstance(value, numbers.Integral) and value > 0
