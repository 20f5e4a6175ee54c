"""Training on several devices: those of one machine on TensorFlow, any on JAX."""

from __future__ import annotations

import contextlib

import keras

from visionkit.training.recipe_files import RecipeError


def device_scope(distribute: str, batch_size: int):
    """Context in which a model is built and compiled for the devices it trains on.

    Args:
        distribute: "none"; "mirrored": a copy of the model on each GPU (without
            any, on each logical CPU), the batch divided among them, gradients summed.
            Batch normalisation then normalises each share by itself. Validation is
            the first device's alone. Or "data_parallel", for which nothing is to be
            done here: within `cluster.joined` Keras itself divides all batches.
        batch_size: Images per step, all devices together.

    Returns:
        A context manager. The optimizer's variables must be made within it as well.

    Raises:
        RecipeError: The backend is not TensorFlow, or the devices are more than the
            images of a batch.
    """
    if distribute != "mirrored":
        return contextlib.nullcontext()
    if keras.backend.backend() != "tensorflow":
        raise RecipeError(
            f"train.distribute: {distribute} needs Keras' TensorFlow backend; the "
            f"active one is {keras.backend.backend()!r}. Use distribute: none, or "
            "start the process with KERAS_BACKEND=tensorflow."
        )
    from visionkit.data.devices import mirrored_strategy

    strategy = mirrored_strategy()
    count = strategy.num_replicas_in_sync
    if batch_size % count:
        raise RecipeError(
            f"data.batch_size: found {batch_size}; with train.distribute: {distribute} "
            f"it must be a multiple of the {count} devices, each of which takes an "
            "equal share."
        )
    return strategy.scope()
