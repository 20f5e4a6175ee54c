"""From raw outputs to answers, as layers: one graph for predict and for serving."""

from __future__ import annotations

import keras
from keras import ops


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
        if activation not in ("softmax", "sigmoid"):
            raise ValueError(
                "`activation` must be 'softmax' or 'sigmoid'. "
                f"Received: activation={activation!r}"
            )
        self.activation = activation

    def call(self, logits):
        """Answers; see the class."""
        if self.activation == "softmax":
            probabilities = ops.softmax(logits, axis=-1)
        else:
            probabilities = ops.sigmoid(logits)
        return {
            "probabilities": probabilities,
            "labels": ops.cast(ops.argmax(logits, axis=-1), "int32"),
        }

    def get_config(self):
        """The constructor's arguments."""
        return {**super().get_config(), "activation": self.activation}
