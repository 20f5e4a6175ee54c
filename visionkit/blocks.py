"""Blocks of layers that necks and heads share."""

from __future__ import annotations

import keras
from keras import layers


def conv_block(
    filters: int, kernel_size: int, strides: int = 1, *, name: str, dtype=None
) -> keras.Sequential:
    """Convolution without bias, batch normalisation (1e-3, 0.97) and SiLU.

    Strided convolutions are padded by half their kernel on every side, so that a level
    of ceil(size / 2**n) becomes one of ceil(size / 2**(n + 1)) and even and odd sizes
    see the same neighbours.

    Args:
        filters: Output channels.
        kernel_size: Side of the kernel, odd.
        strides: Stride.
        name: Name.
        dtype: Dtype policy; None for the global one.
    """
    steps = []
    if strides > 1:
        steps += [layers.ZeroPadding2D(kernel_size // 2, dtype=dtype, name="pad")]
    steps += [
        layers.Conv2D(
            filters,
            kernel_size,
            strides,
            padding="valid" if strides > 1 else "same",
            use_bias=False,
            dtype=dtype,
            name="conv",
        ),
        layers.BatchNormalization(
            momentum=0.97, epsilon=1e-3, dtype=dtype, name="norm"
        ),
        layers.Activation("silu", dtype=dtype, name="silu"),
    ]
    return keras.Sequential(steps, name=name)
