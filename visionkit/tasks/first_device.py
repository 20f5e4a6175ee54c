"""A model that is trained on many devices, used on one of them."""

from __future__ import annotations

import contextlib

import keras


@contextlib.contextmanager
def on_first_device(model: keras.Model):
    """Within the block, what the model does is done on this process's first device.

    One process alone may then save, evaluate and predict, with batches of any size.
    Afterwards the model is divided as it was. One that is not divided stays as it is.

    Args:
        model: Built; under a `tf.distribute` strategy, or replicated, as
            `keras.distribution.DataParallel` has it (JAX).
    """
    with _without_strategy(model), _without_distribution(model):
        yield


@contextlib.contextmanager
def _without_strategy(model: keras.Model):
    """TensorFlow: Keras asks the model for the strategy that it was built under."""
    strategy = getattr(model, "_distribute_strategy", None)
    if strategy is None:
        yield
        return
    model._distribute_strategy = None
    try:
        yield
    finally:
        model._distribute_strategy = strategy


@contextlib.contextmanager
def _without_distribution(model: keras.Model):
    """JAX: variables lie on all devices of all processes; here they are copies on one.

    Whatever touches those on all devices must be done by all processes at once.
    """
    distribution = keras.distribution.distribution()
    if distribution is None:
        yield
        return
    model.jax_state_sync()  # within `fit`, JAX keeps the state elsewhere
    optimizer = getattr(model, "optimizer", None)
    variables = [
        *model.variables,
        *model.metrics_variables,
        *(optimizer.variables if optimizer is not None else ()),
    ]
    variables = list({id(variable): variable for variable in variables}.values())
    saved = [(variable, variable._value, variable._layout) for variable in variables]
    keras.distribution.set_distribution(None)
    try:
        for variable, value, _ in saved:
            variable._layout = None
            # A copy: what a jitted step is given, it may take over.
            variable._value = keras.ops.copy(value.addressable_data(0))
        yield
    finally:
        for variable, value, layout in saved:
            variable._value, variable._layout = value, layout
        keras.distribution.set_distribution(distribution)
