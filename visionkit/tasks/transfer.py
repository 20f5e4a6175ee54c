"""A model takes over what another one has learnt."""

from __future__ import annotations

import re
from collections import defaultdict
from typing import NamedTuple

import keras

_KERAS_NAMES = {name.lower() for name in dir(keras.layers)}


class Transfer(NamedTuple):
    """What `take_weights` did.

    Attributes:
        taken: How many weights (kernels, offsets, statistics) came from the other.
        total: How many the model has.
        fresh: The layers that kept their own, in the model's order.
    """

    taken: int
    total: int
    fresh: list[str]


def take_weights(model: keras.Model, trained: keras.Model) -> Transfer:
    """Give every layer the weights of the layer at the same place in a trained model.

    A layer whose place is new, or of which one weight has another shape, keeps all of
    its own: the offsets of classes mean nothing without their kernels. Neither random
    state nor an optimizer is taken.

    Args:
        model: Built.
        trained: Built; it stays as it is.
    """
    own, theirs = _weights_by_layer(model), _weights_by_layer(trained)
    fitting = {
        layer: zip(weights, theirs[layer], strict=True)
        for layer, weights in own.items()
        if _shapes(weights) == _shapes(theirs.get(layer, ()))
    }
    taken = 0
    for pairs in fitting.values():
        for weight, value in pairs:
            weight.assign(keras.ops.convert_to_numpy(value))
            taken += 1
    fresh = [layer for layer in own if layer not in fitting]
    return Transfer(taken, len(model.weights), fresh)


def _weights_by_layer(model: keras.Model) -> dict[str, list[keras.Variable]]:
    """The weights of each layer that has some, by its path.

    Keras numbers layers without a name (`conv2d_35`) per process: such a one has its
    place among those beside it for a number.
    """
    layers, numbered = defaultdict(list), defaultdict(list)
    for weight in model.weights:
        layers[weight.path.rpartition("/")[0]].append(weight)
    for path in layers:
        base, number = re.fullmatch(r"(.*?)(?:_(\d+))?", path).groups()
        if base.rpartition("/")[2].replace("_", "") in _KERAS_NAMES:
            numbered[base].append((int(number or 0), path))
    names = {
        path: f"{base}_{place}"
        for base, paths in numbered.items()
        for place, (_, path) in enumerate(sorted(paths))
    }
    return {names.get(path, path): weights for path, weights in layers.items()}


def _shapes(weights) -> list[tuple]:
    return [tuple(weight.shape) for weight in weights]
