"""A model that is trained on many devices, used on one of them."""

from __future__ import annotations

import contextlib

import keras


@contextlib.contextmanager
def on_first_device(model: keras.Model):
    """Within the block, what the model does is done on this process's first device.

    Under `keras.distribution` (JAX) a model's variables lie on all devices of all
    processes, and whatever touches them must be done by all at once. In the block they
    are copies on one device: one process alone may save, evaluate and predict, with
    batches of any size. Afterwards all variables are what they were. Without a
    distribution nothing happens.

    Args:
        model: Built; replicated, as `keras.distribution.DataParallel` has it.
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
