"""What is set on a backbone once it is built: momentum, dropout, what is frozen."""

from __future__ import annotations

from collections.abc import Sequence

import keras

from visionkit.backbones.names import flat_layers
from visionkit.backbones.stochastic_depth import is_drop

NORM = "norm"
"""What `freeze` calls all batch normalisation of a backbone."""


def set_norm_momentum(backbone: keras.Model, momentum: float) -> None:
    """Gives every batch normalisation this momentum.

    Raises:
        ValueError: It is not in [0, 1).
    """
    if not 0 <= momentum < 1:
        raise ValueError(
            f"`norm_momentum` must be in [0, 1). Received: norm_momentum={momentum}"
        )
    for layer in flat_layers(backbone):
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = momentum


def set_dropout(backbone: keras.Model, rate: float) -> None:
    """Gives every dropout of single features this rate.

    Raises:
        ValueError: It is not in [0, 1), or the backbone has no such layer.
    """
    if not 0 <= rate < 1:
        raise ValueError(
            f"`backbone_dropout` must be in [0, 1). Received: backbone_dropout={rate}"
        )
    layers = [
        layer
        for layer in flat_layers(backbone)
        if isinstance(layer, keras.layers.Dropout) and not is_drop(layer)
    ]
    if not layers:
        raise ValueError(
            f"{backbone.name} has no dropout: leave `backbone_dropout` out. "
            f"Received: backbone_dropout={rate}"
        )
    for layer in layers:
        layer.rate = rate


def freeze_parts(backbone: keras.Model, parts: Sequence[str]) -> None:
    """Fixes every layer up to and including the given levels, in place.

    With "norm" among them also every batch normalisation, whatever its level.

    Raises:
        ValueError: The backbone has no such level, or no batch normalisation that can
            be fixed.
    """
    parts = (parts,) if isinstance(parts, str) else tuple(parts)
    levels = [part for part in parts if part != NORM]
    outputs = backbone.output
    unknown = [level for level in levels if level not in outputs]
    if unknown:
        raise ValueError(
            f"{backbone.name} has no level {unknown[0]!r} to freeze. "
            f"Its levels: {', '.join(outputs)}; {NORM!r} is all batch normalisation. "
            f"Received: freeze={parts}"
        )
    if levels:
        frozen = keras.Model(backbone.input, [outputs[level] for level in levels])
        for layer in frozen.layers:
            layer.trainable = False
    if NORM in parts:
        for layer in _normalizations(backbone):
            layer.trainable = False


def _normalizations(backbone: keras.Model) -> list[keras.layers.Layer]:
    """Every batch normalisation; a `ValueError` where there is none, or a hidden one.

    What is set on a layer inside of a block that is one layer is not saved with it.
    """
    kind = keras.layers.BatchNormalization
    seen = [layer for layer in flat_layers(backbone) if isinstance(layer, kind)]
    every = [x for x in backbone._flatten_layers() if isinstance(x, kind)]
    if not seen or len(seen) < len(every):
        where = "inside of closed layers" if every else "nowhere"
        raise ValueError(
            f"{backbone.name} has batch normalisation {where}, which {NORM!r} cannot "
            "freeze: leave it out, or freeze levels."
        )
    return seen
