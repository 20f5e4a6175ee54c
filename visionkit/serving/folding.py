"""Batch normalisation, folded into the convolutions before it while a graph is traced.

In inference it is an affine map of each channel, which a convolution with a bias does
on its way: `w * (k * s) + b` for `s * (w * k) + b`, with the s and b of
"Batch Normalization" (Ioffe & Szegedy 2015), algorithm 2. What follows, a bias and an
activation, TensorFlow then fuses with the convolution, as it never does across the
normalisation's own operations.
"""

from __future__ import annotations

import collections
import contextlib
import threading
from collections.abc import Iterator

import keras
import numpy as np
import tensorflow as tf
from keras import layers

# Not their subclasses, whose `call` may be another.
_FOLDABLE = {
    layers.Conv2D,
    layers.Conv2DTranspose,
    layers.Dense,
    layers.DepthwiseConv2D,
    layers.SeparableConv2D,
}

_LOCK = threading.RLock()


@contextlib.contextmanager
def folded_norms(model) -> Iterator[None]:
    """Within it, `model` computes without the batch normalisations that can be folded.

    Those are they that read what one convolution (or dense layer) gives to nobody else,
    however deep inside other layers, in float32: in half precision the folded kernels
    would be rounded, and the answers be others. The model's own weights are not
    touched: the convolutions read others, made here. They live as long as who traces a
    function keeps its variables, which a function itself does not.

    One thread at a time: what another one traces meanwhile is folded as well.

    Args:
        model: A functional `keras.Model`, on the TensorFlow backend.
    """
    with _LOCK, contextlib.ExitStack() as stack:
        for convolution, norm in find_pairs(model):
            stack.enter_context(_calling(convolution, fold(convolution, norm).call))
            stack.enter_context(_calling(norm, lambda inputs, **_: inputs))
        yield


def find_pairs(model) -> list[tuple]:
    """The (convolution, normalisation) pairs of a model that fold into one layer."""
    made, read = {}, {}

    def notes_made(layer):
        def call(*args, **kwargs):
            output = type(layer).call(layer, *args, **kwargs)
            made[id(output)] = output, layer
            return output

        return call

    def notes_read(layer):
        def call(inputs, **kwargs):
            read[id(inputs)] = inputs, layer
            return type(layer).call(layer, inputs, **kwargs)

        return call

    with contextlib.ExitStack() as stack:
        for layer in model._flatten_layers():
            if _is_foldable(layer):
                stack.enter_context(_calling(layer, notes_made(layer)))
            elif type(layer) is layers.BatchNormalization and _is_by_channel(layer):
                stack.enter_context(_calling(layer, notes_read(layer)))
        traced = tf.function(lambda x: model(x, training=False), autograph=False)
        specs = [tf.TensorSpec(x.shape, x.dtype) for x in model.inputs]
        traced.get_concrete_function(keras.tree.pack_sequence_as(model.input, specs))

    # A layer that is called several times must be paired with the same one in each.
    norms, convolutions = collections.defaultdict(set), collections.defaultdict(set)
    for key, (output, convolution) in made.items():
        _, norm = read.get(key, (None, None))
        norms[convolution].add(norm if len(output.consumers()) == 1 else None)
    for key, (_, norm) in read.items():
        _, convolution = made.get(key, (None, None))
        convolutions[norm].add(convolution)
    return [
        (convolution, norm)
        for convolution, (norm, *others) in norms.items()
        if not others and convolutions.get(norm) == {convolution}
    ]


def fold(convolution, norm) -> keras.layers.Layer:
    """A new layer, which answers what `norm` makes of `convolution`'s outputs."""
    scale = 1 / np.sqrt(np.asarray(norm.moving_variance, "float64") + norm.epsilon)
    if norm.scale:
        scale *= np.asarray(norm.gamma)
    bias = -np.asarray(norm.moving_mean) * scale
    if norm.center:
        bias += np.asarray(norm.beta)
    *others, kernel = convolution.get_weights()
    if convolution.use_bias:
        bias += kernel * scale
        *others, kernel = others
    if isinstance(convolution, layers.DepthwiseConv2D):
        scale = scale.reshape(kernel.shape[2:])
    elif isinstance(convolution, layers.Conv2DTranspose):
        scale = scale[:, None]
    config = {**convolution.get_config(), "use_bias": True}
    for key in config:  # nothing is to be drawn, and functions cannot be read back
        if key.endswith("_initializer"):
            config[key] = "zeros"
        elif key.endswith(("_regularizer", "_constraint")):
            config[key] = None
    folded = type(convolution).from_config(config)
    folded.build_from_config(convolution.get_build_config())
    folded.set_weights([*others, kernel * scale, bias])
    return folded


def _is_foldable(layer) -> bool:
    return (
        type(layer) in _FOLDABLE
        and layer.activation is keras.activations.linear
        and layer.compute_dtype == "float32"
        and getattr(layer, "data_format", "channels_last") == "channels_last"
        and not getattr(layer, "lora_enabled", False)
    )


def _is_by_channel(norm) -> bool:
    if not norm.built:  # there, but not used
        return False
    return norm.axis % norm.input_spec.ndim == norm.input_spec.ndim - 1


@contextlib.contextmanager
def _calling(layer, call):
    """The layer with another `call` of its own."""
    layer.call = call
    try:
        yield
    finally:
        del layer.call
