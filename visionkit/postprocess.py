"""From raw outputs to answers, as layers: one graph for predict and for serving."""

from __future__ import annotations

import keras
import numpy as np
from keras import ops

from visionkit.ops.boxes import box_area, clip_boxes
from visionkit.ops.gather import gather_rows
from visionkit.ops.native import first_largest
from visionkit.ops.nms import top_rows


@keras.saving.register_keras_serializable(package="visionkit")
class ClassProbabilities(keras.layers.Layer):
    """Probabilities and the best class.

    Call arguments:
        logits: (B, num_classes).

    Returns:
        {"probabilities": (B, num_classes) float32, "labels": (B,) int32, the first of
        the most probable classes}.

    Args:
        activation: "softmax", each row sums to 1; or "sigmoid", every class on its own.
    """

    def __init__(self, activation: str = "softmax", **kwargs):
        super().__init__(**{"dtype": "float32", **kwargs})
        self.activation = _check_activation(activation)

    def call(self, logits):
        """Answers; see the class."""
        if self.activation == "softmax":
            probabilities = ops.softmax(logits, axis=-1)
        else:
            probabilities = ops.sigmoid(logits)
        return {
            "probabilities": probabilities,
            "labels": first_largest(logits),
        }

    def get_config(self):
        """The constructor's arguments."""
        return {**super().get_config(), "activation": self.activation}


class DenseDetections(keras.layers.Layer):
    """Detections from one prediction per anchor, as SSD and RetinaNet make them.

    Call arguments:
        outputs: {"classes": (B, A, K) logits, with softmax (B, A, 1 + K), background
            first, "boxes": (B, A, 4) deltas}.

    Returns:
        {"boxes": (B, D, 4) float32 xyxy pixels inside the image, "scores": (B, D)
        float32 descending, "labels": (B, D) int32, "num_detections": (B,) int32}; in
        rows that are not needed box 0, score 0, label -1.

    Args:
        anchors: (A, 4) xyxy pixels.
        coder: A `visionkit.ops.box_coder.BoxCoder`.
        nms: A `visionkit.ops.nms.NMS`.
        image_size: (height, width) of the model's input.
        activation: "sigmoid", every class on its own, or "softmax".
    """

    def __init__(
        self, anchors, coder, nms, image_size, activation: str = "sigmoid", **kwargs
    ):
        super().__init__(**{"dtype": "float32", **kwargs})
        self.anchors = np.asarray(anchors, "float32")
        self.coder = coder
        self.nms = nms
        self.image_size = tuple(image_size)
        self.activation = _check_activation(activation)

    def call(self, outputs):
        """Detections; see the class."""
        classes, deltas = outputs["classes"], outputs["boxes"]
        anchors = ops.convert_to_tensor(self.anchors)
        if self.activation == "softmax":
            classes = ops.softmax(classes, axis=-1)[..., 1:]
        if len(self.anchors) > self.nms.pre_nms:
            # What cannot be among the best is neither decoded nor made a probability.
            rows = top_rows(ops.max(classes, axis=-1), self.nms.pre_nms)
            classes, deltas = gather_rows(classes, rows), gather_rows(deltas, rows)
            anchors = ops.take(anchors, rows, axis=0)
        scores = classes if self.activation == "softmax" else ops.sigmoid(classes)
        boxes = clip_boxes(self.coder.decode(deltas, anchors), self.image_size)
        # Nothing is left of an anchor that was decoded to a place outside the image.
        inside = box_area(boxes) > 0
        return self.nms(boxes, ops.where(inside[..., None], scores, 0.0))


@keras.saving.register_keras_serializable(package="visionkit")
class PixelClasses(keras.layers.Layer):
    """The best class of each pixel, beside the logits that say by how much.

    Call arguments:
        logits: (B, h, w, K), K of at most 255.

    Returns:
        {"logits": (B, h, w, K) float32, "segmentation": (B, h, w) uint8, the first of
        the best classes}.
    """

    def __init__(self, **kwargs):
        super().__init__(**{"dtype": "float32", **kwargs})

    def call(self, logits):
        """Answers; see the class."""
        return {
            "logits": ops.cast(logits, "float32"),
            "segmentation": ops.cast(first_largest(logits), "uint8"),
        }


def _check_activation(activation: str) -> str:
    if activation not in ("softmax", "sigmoid"):
        raise ValueError(
            "`activation` must be 'softmax' or 'sigmoid'. "
            f"Received: activation={activation!r}"
        )
    return activation
