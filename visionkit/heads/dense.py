"""The dense head: a class and a box for every anchor of a pyramid.

One head for RetinaNet (towers, shared by the levels), SSD (a predictor per level and
no tower) and the RPN (one tower for both outputs, one class).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import keras
from keras import layers, ops

NORMALIZATIONS = (None, "batch")
_NORM = {"momentum": 0.97, "epsilon": 1e-3}


@keras.saving.register_keras_serializable(package="visionkit")
class DenseHead(layers.Layer):
    """Class logits and box deltas of every anchor of every level.

        DenseHead(80, anchors.num_anchors, depth=4, prior=0.01)           # RetinaNet
        DenseHead(1 + 20, boxes.num_anchors, shared_levels=False)         # SSD
        DenseHead(1, anchors.num_anchors, depth=1, shared_tower=True,
                  kernel_size=1)                                          # RPN

    Call arguments:
        pyramid: {"P3": (B, h, w, C), ...} with every level of `num_anchors`; the same
            C on all of them where they share weights.

    Returns:
        {"classes": (B, A, num_classes), "boxes": (B, A, 4)}, both float32. A runs over
        the levels (finest first), their rows, columns and anchors.

    Args:
        num_classes: Numbers per anchor; one more than classes where one of them is the
            background.
        num_anchors: Level -> anchors per location.
        depth: 3x3 convolutions with a ReLU before the predictors.
        channels: Their filters.
        shared_tower: Whether classes and boxes share them.
        shared_levels: Whether levels share all weights. The predictors then begin with
            N(0, 0.01), as in RetinaNet and RPN, else as Glorot and Bengio's, as in SSD;
            towers always as by He et al. 2015.
        kernel_size: Of the predictors.
        separable: Predictors are a depthwise convolution, batch normalisation and
            ReLU6, then a 1x1 convolution (SSDLite).
        prior: Probability that a class is present, to begin with; None: zero logits.
        normalization: None (as published) or `"batch"`: towers without biases, with
            batch normalisation of each level's own statistics.
    """

    def __init__(
        self,
        num_classes: int,
        num_anchors: Mapping[str, int],
        *,
        depth: int = 0,
        channels: int = 256,
        shared_tower: bool = False,
        shared_levels: bool = True,
        kernel_size: int = 3,
        separable: bool = False,
        prior: float | None = None,
        normalization: str | None = None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if prior is not None and not 0 < prior < 1:
            raise ValueError(f"`prior` must be in (0, 1). Received: prior={prior}")
        if normalization not in NORMALIZATIONS:
            raise ValueError(
                f"`normalization` must be one of {NORMALIZATIONS}. "
                f"Received: normalization={normalization!r}"
            )
        self.num_classes = num_classes
        self.num_anchors = dict(sorted(num_anchors.items(), key=_level_number))
        self.depth, self.channels = depth, channels
        self.shared_tower, self.shared_levels = shared_tower, shared_levels
        self.kernel_size, self.separable = kernel_size, separable
        self.prior, self.normalization = prior, normalization
        if shared_levels and len(set(self.num_anchors.values())) > 1:
            raise ValueError(
                "Levels that share their weights must have equally many anchors per "
                f"location. Received: num_anchors={self.num_anchors}"
            )
        parts = list(self.num_anchors)[:1] if shared_levels else list(self.num_anchors)
        names = ("shared",) if shared_tower else ("classes", "boxes")
        self.towers = {
            part: {name: self._tower(f"{name}{self._suffix(part)}") for name in names}
            for part in parts
        }
        self.norms = self._norms(names) if normalization else {}
        self.predictors = {
            part: {
                "classes": self._predictor(part, "classes", num_classes),
                "boxes": self._predictor(part, "boxes", 4),
            }
            for part in parts
        }

    def _suffix(self, part: str) -> str:
        return "" if self.shared_levels else f"_{part}"

    def _tower(self, name: str) -> list:
        # Published with N(0, 0.01), under which each layer passes on a third of its
        # signal at most: on small sets the classes then stay at their prior for long.
        return [
            layers.Conv2D(
                self.channels,
                3,
                padding="same",
                use_bias=self.normalization is None,
                kernel_initializer="he_normal",
                name=f"{name}_{i}",
            )
            for i in range(self.depth)
        ]

    def _norms(self, names) -> dict:
        """Level -> tower -> a normalisation after each convolution."""
        return {
            level: {
                name: [
                    layers.BatchNormalization(**_NORM, name=f"{name}_{i}_{level}_bn")
                    for i in range(self.depth)
                ]
                for name in names
            }
            for level in self.num_anchors
        }

    def _predictor(self, part: str, name: str, size: int) -> list:
        """The layers from a tower to `size` numbers for each anchor."""
        name = f"predict_{name}{self._suffix(part)}"
        bias = keras.initializers.Zeros()
        if self.prior is not None and "classes" in name:
            bias = keras.initializers.Constant(-math.log(1 / self.prior - 1))
        kernel = "glorot_uniform"
        if self.shared_levels:
            kernel = keras.initializers.RandomNormal(stddev=0.01)
        predict = layers.Conv2D(
            self.num_anchors[part] * size,
            1 if self.separable else self.kernel_size,
            padding="same",
            kernel_initializer=kernel,
            bias_initializer=bias,
            dtype="float32",  # logits and deltas keep their digits in half precision
            name=name,
        )
        if not self.separable:
            return [predict]
        return [
            layers.DepthwiseConv2D(
                self.kernel_size,
                padding="same",
                use_bias=False,
                name=f"{name}_depthwise",
            ),
            layers.BatchNormalization(**_NORM, name=f"{name}_bn"),
            layers.ReLU(6.0, name=f"{name}_relu"),
            predict,
        ]

    def call(self, pyramid, training=None):
        """Logits and deltas; see the class."""
        outputs = {"classes": [], "boxes": []}
        for level, anchors in self.num_anchors.items():
            part = next(iter(self.towers)) if self.shared_levels else level
            features = {
                name: self._run_tower(level, name, convs, pyramid[level], training)
                for name, convs in self.towers[part].items()
            }
            for name, steps in self.predictors[part].items():
                x = features["shared" if self.shared_tower else name]
                for layer in steps:
                    x = _apply(layer, x, training)
                height, width, channels = ops.shape(x)[1:]
                x = ops.reshape(x, (-1, height * width * anchors, channels // anchors))
                outputs[name].append(x)
        return {name: ops.concatenate(parts, 1) for name, parts in outputs.items()}

    def _run_tower(self, level: str, name: str, convs: list, x, training):
        for i, conv in enumerate(convs):
            x = conv(x)
            if self.norms:
                x = self.norms[level][name][i](x, training=training)
            x = ops.relu(x)
        return x

    def build_from_config(self, config):
        """Nothing: the first call builds the layers inside."""

    def get_config(self):
        """The constructor's arguments."""
        return {
            **super().get_config(),
            "num_classes": self.num_classes,
            "num_anchors": dict(self.num_anchors),
            "depth": self.depth,
            "channels": self.channels,
            "shared_tower": self.shared_tower,
            "shared_levels": self.shared_levels,
            "kernel_size": self.kernel_size,
            "separable": self.separable,
            "prior": self.prior,
            "normalization": self.normalization,
        }


def _level_number(item) -> int:
    return int(item[0][1:])


def _apply(layer, x, training):
    if isinstance(layer, layers.BatchNormalization):
        return layer(x, training=training)
    return layer(x)
