"""The mask branch of Mask R-CNN: its numbers, what trains it, its answers."""

from __future__ import annotations

import dataclasses

import keras
from keras import ops

from visionkit.ops.gather import gather_rows
from visionkit.ops.masks import masks_in_regions
from visionkit.ops.options import Options
from visionkit.tasks.detection.proposals import check_options
from visionkit.tasks.detection.rois import RoiSample


@keras.saving.register_keras_serializable(package="visionkit")
@dataclasses.dataclass(frozen=True)
class MaskOptions(Options):
    """Numbers of the mask branch; defaults as published with an FPN.

    Args:
        class_agnostic: One mask for whatever class.
        output_size: Bins per side of a region's features; masks have twice as many.
        sampling_ratio: Points per bin and side.
        channels: Of each convolution.
        depth: Number of 3x3 convolutions.
    """

    class_agnostic: bool = False
    output_size: int = 14
    sampling_ratio: int = 2
    channels: int = 256
    depth: int = 4

    def __post_init__(self):
        counts = ("output_size", "sampling_ratio", "channels", "depth")
        check_options(self, counts)


def mask_terms(sample: RoiSample, pyramid: dict, y: dict, head) -> dict:
    """What the loss of the masks reads: each positive region's, of its own class.

    The mean over the positives of the batch and their pixels; nothing else teaches the
    branch (He et al. 2017, section 3).

    Args:
        sample: The `first` rows of `sample_rois`.
        pyramid: As for the head.
        y: "boxes" (B, M, 4), "labels" (B, M) and "masks" (B, M, h, w) framed by them.
        head: A `MaskHead`.

    Returns:
        {"masks": (truth, logits, weights)}, (B, P, pixels) twice and (B, P).
    """
    regions, match = sample
    labels = ops.cast(gather_rows(y["labels"], match.index), "int32")
    labels = ops.where(match.positive, labels, -1)
    logits = head(pyramid, regions, labels)
    size = logits.shape[-1]
    truth = masks_in_regions(y["masks"], y["boxes"], match.index, regions, size)
    flat = (-1, regions.shape[1], size * size)
    positive = ops.cast(match.positive, "float32")
    weights = positive / ops.maximum(ops.sum(positive), 1.0)
    return {"masks": (ops.reshape(truth, flat), ops.reshape(logits, flat), weights)}


class MaskDetections(keras.layers.Layer):
    """The answers of a detector, and the mask of each; see `MaskRCNN`.

    Masks are drawn in the boxes that are answered, as the paper does, and not in the
    proposals that they came from.

    Call arguments:
        outputs: Those that `detections` reads, and the pyramid.

    Args:
        detections: Layer from raw outputs to the answers of a detector.
        head: A `MaskHead`.
        levels: Of the pyramid, those that the head reads.
    """

    def __init__(self, detections, head, levels, **kwargs):
        # The pyramid keeps its type.
        super().__init__(**{"dtype": "float32", "autocast": False, **kwargs})
        self.detections, self.head, self.levels = detections, head, levels

    def call(self, outputs):
        """Detections and masks; see the class."""
        answers = self.detections(outputs)
        pyramid = {level: outputs[level] for level in self.levels}
        logits = self.head(pyramid, answers["boxes"], answers["labels"])
        found = (answers["labels"] >= 0)[..., None, None]
        return {**answers, "masks": ops.where(found, ops.sigmoid(logits), 0.0)}
