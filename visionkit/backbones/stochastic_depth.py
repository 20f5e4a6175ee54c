"""Stochastic depth: residual branches that are left out at random in training.

Huang et al., "Deep Networks with Stochastic Depth", ECCV 2016.
"""

from __future__ import annotations

import keras


@keras.saving.register_keras_serializable(package="visionkit")
class StochasticDepth(keras.layers.Dropout):
    """Drops whole images of a residual branch in training; else the identity.

    What is kept is divided by the probability of being kept, which is the paper's
    rule of scaling by it at inference, moved to training. A frozen layer (one with
    `trainable = False`) drops nothing.

    Call arguments:
        inputs: (B, h, w, C). Returns the same shape; in training each of the B is
            zero with probability `rate`.

    Args:
        rate: Share dropped, 0 <= rate < 1.
    """

    def __init__(self, rate: float, **kwargs):
        super().__init__(rate, noise_shape=(None, 1, 1, 1), **kwargs)

    def call(self, inputs, training=False):
        """The branch or zeros; see the class."""
        return super().call(inputs, training=training and self.trainable)

    def get_config(self):
        """The constructor's arguments."""
        config = super().get_config()
        del config["noise_shape"]
        return config


class ResidualDrops:
    """Puts `StochasticDepth` on the residual additions of a network being copied.

    The l-th of L additions, counted from the images, drops its deeper input with
    probability `rate * l / L` (section 3, linear decay). A network that publishes
    drops of its own (EfficientNet) keeps their places and their rule.

    Args:
        reference: The network being copied.
        rate: Share dropped at the last addition; None for what was published.

    Raises:
        ValueError: The rate is not in [0, 1).
    """

    # Rate of the last block in every EfficientNet of keras.applications.
    _PUBLISHED = 0.2

    def __init__(self, layers: list[keras.layers.Layer], rate: float | None):
        if rate is not None and not 0 <= rate < 1:
            raise ValueError(
                "`stochastic_depth` must be in [0, 1), or None for what was published. "
                f"Received: stochastic_depth={rate}"
            )
        self.rate = rate
        self.has_own = any(is_drop(layer) for layer in layers)
        self.layers: list[StochasticDepth] = []

    def own(self, config: dict) -> StochasticDepth:
        """The published drop of this config, at the rate asked for."""
        scale = 1.0 if self.rate is None else self.rate / self._PUBLISHED
        return StochasticDepth(config["rate"] * scale, name=config["name"])

    def drop(self, depths: dict, args, kwargs):
        """The arguments of an addition, its deeper input dropped at random.

        Args:
            depths: Tensors of the copy to the layers with weights before them.
            args: Positional arguments of the addition, which hold two tensors.
            kwargs: Its keyword arguments.
        """
        if self.has_own or not self.rate:
            return args, kwargs
        shortcut, branch = sorted(keras.tree.flatten((args, kwargs)), key=depths.get)
        if depths[shortcut] == depths[branch]:
            return args, kwargs
        layer = StochasticDepth(
            self.rate, name=f"stochastic_depth_{len(self.layers) + 1}"
        )
        self.layers.append(layer)
        dropped = layer(branch)
        return keras.tree.map_structure(
            lambda x: dropped if x is branch else x, (args, kwargs)
        )

    def finish(self, name: str) -> None:
        """Gives each drop its rate, now that their number is known.

        Raises:
            ValueError: There is nothing to drop.
        """
        if self.rate and not self.has_own and not self.layers:
            raise ValueError(
                f"{name} has no residual additions to drop: leave `stochastic_depth` "
                f"out. Received: stochastic_depth={self.rate}"
            )
        for i, layer in enumerate(self.layers, start=1):
            layer.rate = self.rate * i / len(self.layers)


def is_drop(layer: keras.layers.Layer) -> bool:
    """Whether this is a dropout of whole images."""
    noise = getattr(layer, "noise_shape", None)
    return isinstance(layer, keras.layers.Dropout) and noise is not None


def is_addition(layer) -> bool:
    """Whether this layer or operation adds tensors, with or without a factor.

    `x + y` in a functional graph is an operation of the same name as the layer;
    `CustomScaleLayer` is the scaled residual addition of InceptionResNetV2.
    """
    return type(layer).__name__ in ("Add", "CustomScaleLayer")
