"""Heads that read a region at a time: a pyramid and boxes in, a row per box out.

They hold no batch normalisation: the regions of a batch come from few images, half of
them from the same object, and their statistics say little.
"""

from __future__ import annotations

import math

import keras
from keras import layers, ops

from visionkit.ops.roi_align import multilevel_roi_align


@keras.saving.register_keras_serializable(package="visionkit")
class BoxHead(layers.Layer):
    """Class and deltas of each box, by two dense layers (Lin et al. 2017, section 4.2).

    Call arguments:
        pyramid: {"P2": (B, h, w, C), ...}, see `multilevel_roi_align`.
        boxes: (B, N, 4) xyxy pixels of the input, N static. No gradient goes to them.

    Returns:
        {"classes": (B, N, 1 + num_classes) logits, background first,
        "boxes": (B, N, num_classes, 4) deltas, of each class its own}, both float32.

    Args:
        num_classes: Number of classes, without the background.
        output_size: Bins per side of the features of a box.
        sampling_ratio: Points per bin and side.
        units: Of each dense layer.
        depth: Number of dense layers.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        output_size: int = 7,
        sampling_ratio: int = 2,
        units: int = 1024,
        depth: int = 2,
        **kwargs,
    ):
        # In half precision boxes would be rounded by several pixels; the layers inside
        # cast their own input.
        super().__init__(**{"autocast": False, **kwargs})
        self.num_classes = num_classes
        self.output_size, self.sampling_ratio = output_size, sampling_ratio
        self.units, self.depth = units, depth
        self.hidden = [
            layers.Dense(
                units,
                activation="relu",
                kernel_initializer="lecun_uniform",
                name=f"dense_{i}",
            )
            for i in range(depth)
        ]
        # Small deltas to begin with: the proposals are better than a guess.
        self.classes = self._predictor(1 + num_classes, 0.01, "predict_classes")
        self.boxes = self._predictor(num_classes * 4, 0.001, "predict_boxes")

    def _predictor(self, units: int, stddev: float, name: str):
        return layers.Dense(
            units,
            kernel_initializer=keras.initializers.RandomNormal(stddev=stddev),
            dtype="float32",  # logits and deltas keep their digits in half precision
            name=name,
        )

    def call(self, pyramid, boxes):
        """Logits and deltas; see the class."""
        num_boxes = boxes.shape[1]
        x = multilevel_roi_align(pyramid, boxes, self.output_size, self.sampling_ratio)
        # One matrix: a batch of them would multiply the kernel's gradient by B.
        x = ops.reshape(x, (-1, math.prod(x.shape[2:])))
        for layer in self.hidden:
            x = layer(x)
        deltas = ops.reshape(self.boxes(x), (-1, num_boxes, self.num_classes, 4))
        classes = ops.reshape(self.classes(x), (-1, num_boxes, 1 + self.num_classes))
        return {"classes": classes, "boxes": deltas}

    def get_config(self):
        """The constructor's arguments."""
        return {
            **super().get_config(),
            "num_classes": self.num_classes,
            "output_size": self.output_size,
            "sampling_ratio": self.sampling_ratio,
            "units": self.units,
            "depth": self.depth,
        }
