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
    if faults := _misfits(variables, arrays):
        raise ValueError(
            "The checkpoint is not one of this model and optimizer:\n"
            f"{faults}\nBuild and compile the model as for the run that is resumed."
        )
    for name, variable in variables.items():
        variable.assign(arrays[name])


def carry_weights(source: keras.Model, target: keras.Model) -> None:
    """Give `target` the weights, averaged ones where there are, and random state.

    Args:
        source: A model of the same layers; its image size, what of it trains, and its
            optimizer do not matter.
        target: Built.

    Raises:
        ValueError: The weights of the two are not the same; nothing was changed.
    """
    check_weights_fit(source, target)
    with averaged_weights(source):
        arrays = _arrays(_named("model", source.variables))
    for name, variable in _named("model", target.variables).items():
        variable.assign(arrays[name])


def check_weights_fit(source: keras.Model, target: keras.Model) -> None:
    """Raise a `ValueError` where `carry_weights` would."""
    arrays = _named("model", source.variables)
    if faults := _misfits(_named("model", target.variables), arrays):
        raise ValueError(
            f"The weights of {source.name!r} at image size "
            f"{source.input.shape[1:3]} do not fit it at {target.input.shape[1:3]}:\n"
            f"{faults}\nThis backbone needs one image size throughout."
        )


def _misfits(variables: dict, arrays: dict) -> str:
    """What of `variables` has no equal in `arrays`, and the reverse, a line each."""
    faults = [f"{name}: missing" for name in variables.keys() - arrays]
    faults += [f"{name}: unknown to this model" for name in arrays.keys() - variables]
    for name in variables.keys() & arrays:
        expected, found = variables[name], arrays[name]
        shapes = tuple(found.shape), tuple(expected.shape)
        if shapes[0] != shapes[1]:
            faults.append(f"{name}: {shapes[0]} instead of {shapes[1]}")
        elif _kind(found) != _kind(expected):
            faults.append(f"{name}: {found.dtype} instead of {expected.dtype}")
    lines = sorted(faults)[:_NAMES_SHOWN]
    if len(faults) > _NAMES_SHOWN:
        lines.append(f"and {len(faults) - _NAMES_SHOWN} more")
    return "\n".join(f"  {line}" for line in lines)


def _kind(values) -> str:
    """What sort of numbers an array or a variable holds, of any width."""
    name = str(values.dtype)
    kinds = {"uint": "whole", "int": "whole", "float": "real", "bfloat": "real"}
    return next((kind for word, kind in kinds.items() if name.startswith(word)), name)


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
    if not getattr(optimizer, "use_ema", False) or number(optimizer.iterations) == 0:
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


def number(value) -> float:
    """A scalar variable or tensor, on one device or mirrored on several."""
    return float(keras.ops.convert_to_numpy(value))


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
