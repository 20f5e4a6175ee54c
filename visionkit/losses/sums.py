"""Several losses as one."""

from __future__ import annotations

from collections.abc import Sequence

import keras


@keras.saving.register_keras_serializable(package="visionkit")
class LossSum(keras.losses.Loss):
    """Weighted sum of losses of the same truth and answer.

    Call arguments are those of the losses; sample weights go to each.

    Args:
        losses: `keras.losses.Loss` objects, at least one.
        weights: A factor of at least 0 for each; None is 1 for all.
        name: Name in the logs.
    """

    def __init__(
        self,
        losses: Sequence[keras.losses.Loss],
        weights: Sequence[float] | None = None,
        name="sum",
    ):
        super().__init__(name=name)
        self.losses = list(losses)
        if weights is None:
            weights = [1.0] * len(self.losses)
        self.weights = [float(weight) for weight in weights]
        if not self.losses or len(self.weights) != len(self.losses):
            raise ValueError(
                "`losses` must hold at least one, and `weights` one number for each. "
                f"Received: {len(self.losses)} losses, weights={self.weights}"
            )
        if not all(0 <= weight < float("inf") for weight in self.weights):
            raise ValueError(
                "`weights` must be numbers of at least 0. "
                f"Received: weights={self.weights}"
            )

    def __call__(self, y_true, y_pred, sample_weight=None):
        """The loss of a batch, () float32; see the class."""
        with keras.name_scope(self.name):
            return sum(
                weight * loss(y_true, y_pred, sample_weight)
                for weight, loss in zip(self.weights, self.losses, strict=True)
            )

    def get_config(self):
        """The constructor's arguments."""
        return {
            "losses": [keras.saving.serialize_keras_object(x) for x in self.losses],
            "weights": self.weights,
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config):
        """The loss that `get_config` described."""
        losses = map(keras.saving.deserialize_keras_object, config["losses"])
        return cls(**{**config, "losses": list(losses)})
