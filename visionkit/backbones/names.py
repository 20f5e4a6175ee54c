"""Names of layers that do not depend on what else the process has built."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator

import keras


def flat_layers(model: keras.Model) -> Iterator[keras.layers.Layer]:
    """The layers of a model in order, those of nested `Sequential` models in place."""
    for layer in model.layers:
        if isinstance(layer, keras.Sequential):
            yield from flat_layers(layer)
        else:
            yield layer


def stable_names(model: keras.Model) -> dict[str, str]:
    """Each layer's name and the one it has when its model is built first of all.

    Keras numbers layers without a name (`conv2d_4`) per process; numbering those of
    one model from 0 makes weights match by name.
    """
    names = {}
    numbered = defaultdict(list)
    for layer in flat_layers(model):
        names[layer.name] = layer.name
        base, number = re.fullmatch(r"(.+?)(?:_(\d+))?", layer.name).groups()
        if base.replace("_", "") == type(layer).__name__.lower():
            numbered[base].append((int(number or 0), layer.name))
    # Operations such as `x * y` cannot be renamed, and Keras wants names to differ.
    taken = {x.name for x in model.operations if not isinstance(x, keras.Layer)}
    for base, layers in numbered.items():
        for i, (_, name) in enumerate(sorted(layers)):
            stable = f"{base}_{i}" if i else base
            names[name] = f"{stable}_layer" if stable in taken else stable
    return names
