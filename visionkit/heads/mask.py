"""The head that draws the object of a region (He et al., "Mask R-CNN", ICCV 2017).

It holds no batch normalisation, as the other heads that read regions.
"""

from __future__ import annotations

import keras
from keras import layers, ops

from visionkit.ops.roi_align import multilevel_roi_align


@keras.saving.register_keras_serializable(package="visionkit")
class MaskHead(layers.Layer):
    """Mask of each region as an object of its class (figure 4, right, of the paper).

    RoIAlign, 3x3 convolutions with ReLU, a 2x2 transposed convolution that doubles the
    size, with ReLU, and a 1x1 convolution with a channel for each class. Only the
    channel of the region's own class is computed: neither the loss nor an answer reads
    another one.

    Call arguments:
        pyramid: {"P2": (B, h, w, C), ...}, see `multilevel_roi_align`.
        boxes: (B, N, 4) xyxy pixels of the input, N static. No gradient goes to them.
        labels: (B, N) integers, the class of each; -1 gives logits of 0.

    Returns:
        (B, N, 2 * output_size, 2 * output_size) float32 logits, framed by the box.

    Args:
        num_classes: Number of classes, without the background.
        class_agnostic: One mask for whatever class.
        output_size: Bins per side of the features of a region.
        sampling_ratio: Points per bin and side.
        channels: Of each convolution.
        depth: Number of 3x3 convolutions.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        class_agnostic: bool = False,
        output_size: int = 14,
        sampling_ratio: int = 2,
        channels: int = 256,
        depth: int = 4,
        **kwargs,
    ):
        # In half precision boxes would be rounded by several pixels; the layers inside
        # cast their own input.
        super().__init__(**{"autocast": False, **kwargs})
        self.num_classes, self.class_agnostic = num_classes, class_agnostic
        self.output_size, self.sampling_ratio = output_size, sampling_ratio
        self.channels, self.depth = channels, depth
        options = {"activation": "relu", "kernel_initializer": "he_normal"}
        self.tower = [
            layers.Conv2D(channels, 3, padding="same", name=f"conv_{i}", **options)
            for i in range(depth)
        ]
        self.double = layers.Conv2DTranspose(
            channels, 2, strides=2, name="double", **options
        )
        self.masks = OwnChannel(
            1 if class_agnostic else num_classes, name="predict_masks"
        )

    def call(self, pyramid, boxes, labels):
        """Logits; see the class."""
        num_boxes, size = boxes.shape[1], 2 * self.output_size
        x = multilevel_roi_align(pyramid, boxes, self.output_size, self.sampling_ratio)
        x = ops.reshape(x, (-1, *x.shape[2:]))
        for layer in (*self.tower, self.double):
            x = layer(x)
        labels = ops.reshape(labels, (-1,))
        if self.class_agnostic:
            labels = ops.minimum(labels, 0)
        return ops.reshape(self.masks(x, labels), (-1, num_boxes, size, size))

    def get_config(self):
        """The constructor's arguments."""
        return {
            **super().get_config(),
            "num_classes": self.num_classes,
            "class_agnostic": self.class_agnostic,
            "output_size": self.output_size,
            "sampling_ratio": self.sampling_ratio,
            "channels": self.channels,
            "depth": self.depth,
        }


@keras.saving.register_keras_serializable(package="visionkit")
class OwnChannel(layers.Layer):
    """One channel, each example's own, of a 1x1 convolution; in float32.

    All channels of all regions would be the largest tensor of the head, only to be
    dropped.

    Call arguments:
        features: (N, h, w, C).
        index: (N,) integers, the channel of each; -1 gives zeros.

    Returns:
        (N, h, w) float32.

    Args:
        channels: Of the convolution.
    """

    def __init__(self, channels: int, **kwargs):
        # Logits keep their digits in half precision.
        super().__init__(**{"dtype": "float32", **kwargs})
        self.channels = channels

    def build(self, features_shape, index_shape):
        """The kernel and the bias."""
        shape = (features_shape[-1], self.channels)
        initializer = keras.initializers.RandomNormal(stddev=0.001)
        self.kernel = self.add_weight(shape, initializer, name="kernel")
        self.bias = self.add_weight((self.channels,), "zeros", name="bias")

    def call(self, features, index):
        """The channel of each; see the class."""
        height, width, depth = features.shape[1:]
        own = ops.one_hot(ops.cast(index, "int32"), self.channels, dtype="float32")
        kernel = ops.matmul(own, ops.transpose(self.kernel))
        features = ops.reshape(features, (-1, height * width, depth))
        values = ops.matmul(features, kernel[..., None])[..., 0]
        values = values + ops.matmul(own, self.bias[:, None])
        return ops.reshape(values, (-1, height, width))

    def get_config(self):
        """The constructor's arguments."""
        return {**super().get_config(), "channels": self.channels}
