"""From raw outputs to answers, as layers: one graph for predict and for serving."""

from __future__ import annotations

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="visionkit")
class ClassProbabilities(keras.layers.Layer):
    """Softmax and the best class.

    Call arguments:
        logits: (B, num_classes).

    Returns:
        {"probabilities": (B, num_classes) float32, each row sums to 1,
        "labels": (B,) int32, the first of the most probable classes}.
    """

    def __init__(self, **kwargs):
        super().__init__(**{"dtype": "float32", **kwargs})

    def call(self, logits):
        """Answers; see the class."""
        return {
            "probabilities": ops.softmax(logits, axis=-1),
            "labels": ops.cast(ops.argmax(logits, axis=-1), "int32"),
        }
