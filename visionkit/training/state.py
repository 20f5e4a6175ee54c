"""A model's whole state as named arrays: weights, random state, optimizer, averages."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator

import keras
import numpy as np

_NAMES_SHOWN = 10


def model_state(model: keras.Model) -> dict[str, np.ndarray]:
    """Copies of every variable that training changes.

    Args:
        model: Built; its optimizer, when it is compiled, is built if need be.

    Returns:
        Name -> array: `model.variables` (weights, statistics, seed generators) and the
        optimizer's variables. The names are the same in every process that builds the
        same model.
    """
    return _arrays(_variables(model))


def restore_model_state(model: keras.Model, arrays: dict[str, np.ndarray]) -> None:
    """Give `model` the state that `model_state` returned.

    Args:
        model: Built as the one saved, and compiled with the same kind of optimizer.
        arrays: All of them, and no others.

    Raises:
        ValueError: Names or shapes differ; they are listed, and nothing was changed.
    """
    variables = _variables(model)
    faults = [
        f"{name}: missing in the checkpoint" for name in variables.keys() - arrays
    ]
    faults += [f"{name}: unknown to this model" for name in arrays.keys() - variables]
    faults += [
        f"{name}: {arrays[name].shape} in the checkpoint, {tuple(v.shape)} in the model"
        for name, v in variables.items()
        if name in arrays and arrays[name].shape != tuple(v.shape)
    ]
    if faults:
        more = len(faults) - _NAMES_SHOWN
        raise ValueError(
            "The checkpoint is not one of this model and optimizer:\n  "
            + "\n  ".join(sorted(faults)[:_NAMES_SHOWN])
            + (f"\n  and {more} more" if more > 0 else "")
            + "\nBuild and compile the model as for the run that is resumed."
        )
    for name, variable in variables.items():
        variable.assign(arrays[name])


def metric_state(model: keras.Model) -> dict[str, np.ndarray]:
    """Copies of the running metrics, which `fit` otherwise resets at each epoch."""
    return _arrays(_named("metrics", model.metrics_variables))


def restore_metric_state(model: keras.Model, arrays: dict[str, np.ndarray]) -> None:
    """Give the metrics what `metric_state` returned, where they are the same ones."""
    variables = _named("metrics", model.metrics_variables)
    shapes = {name: tuple(variable.shape) for name, variable in variables.items()}
    if shapes == {name: array.shape for name, array in arrays.items()}:
        for name, variable in variables.items():
            variable.assign(arrays[name])


@contextlib.contextmanager
def averaged_weights(model: keras.Model) -> Iterator[None]:
    """Within the block, `model` has the optimizer's averages as its weights.

    Afterwards it has its own back, bit for bit, and the optimizer is as it was. Blocks
    may be nested. Without averages (no `use_ema`, or no update yet) nothing happens.
    """
    optimizer = getattr(model, "optimizer", None)
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)  # of loss scaling
    if not getattr(optimizer, "use_ema", False) or int(optimizer.iterations) == 0:
        yield
        return
    pairs = zip(
        optimizer._trainable_variables,
        optimizer._model_variables_moving_average,
        strict=True,
    )
    pairs = [(variable, average) for variable, average in pairs if average is not None]
    own = [_copy(variable) for variable, _ in pairs]
    try:
        for variable, average in pairs:
            # A copy: JAX would share the array, and a step that takes over the one
            # variable's would delete the other's.
            variable.assign(keras.ops.copy(average))
        yield
    finally:
        for (variable, _), value in zip(pairs, own, strict=True):
            variable.assign(value)


def _variables(model: keras.Model) -> dict[str, keras.Variable]:
    if not model.built:
        raise ValueError(
            f"The model {model.name!r} has no variables yet. Call `model.build` or "
            "call it on a batch first."
        )
    if hasattr(model, "jax_state_sync"):  # within `fit`, JAX keeps the state elsewhere
        model.jax_state_sync()
    variables = _named("model", model.variables)
    optimizer = getattr(model, "optimizer", None)
    if optimizer is not None:
        if not optimizer.built:
            optimizer.build(model.trainable_variables)
        variables |= _named("optimizer", optimizer.variables)
    return variables


def _named(group: str, variables: Iterable) -> dict[str, keras.Variable]:
    """Variables by place and by what in their paths does not depend on the process.

    A path begins with the models around a layer, or not, depending on who built it; an
    optimizer's variable has the whole path of its weight between its own two words.
    """
    names = {}
    for i, variable in enumerate(variables):
        words = re.sub(r"_[0-9]+(?=/|$)", "", variable.path).split("/")[-2:]
        if group == "optimizer":
            words[-1] = words[-1].rpartition("_")[2]
        names[f"{group}/{i:04d}/{'/'.join(words)}"] = variable
    return names


def _arrays(variables: dict[str, keras.Variable]) -> dict[str, np.ndarray]:
    return {name: _copy(variable) for name, variable in variables.items()}


def _copy(variable) -> np.ndarray:
    # On JAX the array is a view of a buffer that the next step takes over.
    return np.array(keras.ops.convert_to_numpy(variable))
