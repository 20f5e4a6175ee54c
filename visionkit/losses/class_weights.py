"""What losses over classes share."""

from __future__ import annotations

from collections.abc import Sequence

import keras
from keras import ops


class ClassWeightedLoss(keras.losses.Loss):
    """Base of losses that can weight the classes.

    Args:
        class_weights: A weight of at least 0 per class; None weights all by 1.

    Raises:
        ValueError: A weight that is negative or no finite number.
    """

    def __init__(
        self,
        class_weights: Sequence[float] | None = None,
        name: str | None = None,
        **kwargs,
    ):
        super().__init__(name=name, **kwargs)
        if class_weights is not None:
            class_weights = [float(weight) for weight in class_weights]
            if not all(0 <= weight < float("inf") for weight in class_weights):
                raise ValueError(
                    "`class_weights` must be numbers of at least 0. "
                    f"Received: class_weights={class_weights}"
                )
        self.class_weights = class_weights

    def weights(self, num_classes: int):
        """(num_classes,) float32.

        Raises:
            ValueError: There are not as many weights as classes.
        """
        if self.class_weights is None:
            return ops.ones((num_classes,), "float32")
        if len(self.class_weights) != num_classes:
            raise ValueError(
                "`class_weights` must hold one weight per class. Received: "
                f"{len(self.class_weights)} weights for {num_classes} classes"
            )
        return ops.convert_to_tensor(self.class_weights, "float32")

    def get_config(self):
        """The constructor's arguments."""
        return {**super().get_config(), "class_weights": self.class_weights}
