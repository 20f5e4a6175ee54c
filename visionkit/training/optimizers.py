"""Keras' optimizers with the weight decay of the papers, by name.

Keras decays every variable and forgets on loading which ones were excluded. Here what
decays is a rule of the class, so saving, loading and resuming cannot change it:
variables of rank 0 and 1 (biases, scales and offsets of norms) never do.
"""

from __future__ import annotations

import inspect
from typing import Any

import keras
from keras import ops

from visionkit._spelling import check_name


class _DecoupledDecay:
    """Before the update, w -= rate * decay * w (Loshchilov & Hutter 2019, AdamW)."""

    def _use_weight_decay(self, variable) -> bool:
        return len(variable.shape) > 1 and super()._use_weight_decay(variable)

    def _apply_weight_decay(self, variables) -> None:
        if self.weight_decay:
            super()._apply_weight_decay(variables)

    def _update_model_variables_moving_average(self, trainable_variables) -> None:
        """Average once per update, with a momentum that grows into `ema_momentum`.

        With n updates done the momentum is at most n / (n + 9), the ramp of
        `tf.train.ExponentialMovingAverage(num_updates=n - 1)`: otherwise .9999 would
        keep the random weights of the start for tens of thousands of steps. Keras
        averages at every batch, also where an update takes several
        (`gradient_accumulation_steps`).
        """
        if not self.use_ema:
            return
        updates = ops.cast(self.iterations, "float32")
        momentum = ops.minimum(self.ema_momentum, updates / (updates + 9.0))
        if self.gradient_accumulation_steps:
            batches = self._iterations + 1
            is_update = ops.equal(batches % self.gradient_accumulation_steps, 0)
            momentum = ops.where(is_update, momentum, 1.0)
        averages = self._model_variables_moving_average
        for variable, average in zip(trainable_variables, averages, strict=True):
            if average is not None:
                keep = ops.cast(momentum, average.dtype)
                average.assign(keep * average + (1 - keep) * variable)

    def finalize_variable_values(self, var_list) -> None:
        """Make the averages the weights, as `fit` wants at its end."""
        super().finalize_variable_values(var_list)
        if self.use_ema:
            for variable in var_list:  # on JAX each still is one array with its average
                variable.assign(ops.copy(variable))


class _CoupledDecay(_DecoupledDecay):
    """L2 regularisation: decay * w is added to the gradient, after clipping."""

    def _apply_weight_decay(self, variables) -> None:
        """Nothing: `update_step` does it."""

    def update_step(self, gradient, variable, learning_rate) -> None:
        if self.weight_decay and self._use_weight_decay(variable):
            gradient = ops.cast(gradient, variable.dtype)
            decay = ops.cast(self.weight_decay, variable.dtype)
            gradient = ops.add(gradient, ops.multiply(decay, variable))
        super().update_step(gradient, variable, learning_rate)


def _with_decay(base: type, decay: type) -> type:
    """`base` with the rules of `decay`, saved and loaded as "visionkit>{its name}"."""
    text = f"`keras.optimizers.{base.__name__}`. {decay.__doc__}"
    body = {"__doc__": text, "__module__": __name__}
    subclass = type(base)(base.__name__, (decay, base), body)
    return keras.saving.register_keras_serializable("visionkit")(subclass)


OPTIMIZERS: dict[str, type[keras.optimizers.Optimizer]] = {
    "sgd": _with_decay(keras.optimizers.SGD, _CoupledDecay),
    "rmsprop": _with_decay(keras.optimizers.RMSprop, _CoupledDecay),
    "adam": _with_decay(keras.optimizers.Adam, _DecoupledDecay),
    "adamw": _with_decay(keras.optimizers.AdamW, _DecoupledDecay),
    "nadam": _with_decay(keras.optimizers.Nadam, _DecoupledDecay),
    "adamax": _with_decay(keras.optimizers.Adamax, _DecoupledDecay),
    "adagrad": _with_decay(keras.optimizers.Adagrad, _DecoupledDecay),
    "adadelta": _with_decay(keras.optimizers.Adadelta, _DecoupledDecay),
    "adafactor": _with_decay(keras.optimizers.Adafactor, _DecoupledDecay),
    "ftrl": _with_decay(keras.optimizers.Ftrl, _DecoupledDecay),
    "lamb": _with_decay(keras.optimizers.Lamb, _DecoupledDecay),
    "lion": _with_decay(keras.optimizers.Lion, _DecoupledDecay),
}
"""Name in recipes -> class. Decay is decoupled except in `sgd` and `rmsprop`, whose
published recipes mean L2 regularisation. Muon is not among them: Keras' applies it to
matrices alone, which in a convolutional network is the classifier, where its authors
advise against it."""

# Every optimizer's arguments that `build_optimizer` spells in its own words.
_COMMON = inspect.signature(keras.optimizers.SGD).parameters.keys() - {
    "momentum",
    "nesterov",
}


def build_optimizer(
    name: str,
    options: dict[str, Any] | None = None,
    *,
    learning_rate: float | keras.optimizers.schedules.LearningRateSchedule,
    weight_decay: float = 0.0,
    clip_norm: float | None = None,
    accumulation_steps: int = 1,
    ema: float | None = None,
) -> keras.optimizers.Optimizer:
    """An optimizer by its name.

    Args:
        name: A key of `OPTIMIZERS`, in any case.
        options: The optimizer's own arguments, e.g. `{"momentum": 0.9}`.
        learning_rate: Number or schedule. A schedule counts batches, also where an
            update takes several.
        weight_decay: Not below 0; on variables of rank 2 and more.
        clip_norm: Largest norm of all gradients together, above 0; None does not clip.
        accumulation_steps: Batches whose gradients are averaged into one update.
        ema: Momentum of the moving average of the weights, in (0, 1); None for no
            average. See `callbacks.EmaWeights`.

    Raises:
        ValueError: Unknown name or option (the legal ones are listed), or a value out
            of range.
    """
    name = str(name).lower()
    check_name("optimizer", name, OPTIMIZERS)
    _require(weight_decay >= 0, "weight_decay", "at least 0", weight_decay)
    _require(clip_norm is None or clip_norm > 0, "clip_norm", "above 0", clip_norm)
    _require(ema is None or 0 < ema < 1, "ema", "in (0, 1)", ema)
    steps = accumulation_steps
    _require(steps >= 1, "accumulation_steps", "at least 1", steps)
    optimizer = OPTIMIZERS[name]
    average = {} if ema is None else {"use_ema": True, "ema_momentum": ema}
    return optimizer(
        float(learning_rate) if isinstance(learning_rate, int) else learning_rate,
        weight_decay=float(weight_decay),
        global_clipnorm=clip_norm,
        gradient_accumulation_steps=steps if steps > 1 else None,
        **average,
        **_check_options(name, optimizer, options or {}),
    )


def _check_options(name: str, optimizer: type, options: dict) -> dict:
    """`options`, known to `optimizer`, with 1 as 1.0 where a float belongs."""
    parameters = inspect.signature(optimizer).parameters
    legal = [key for key in parameters if key not in _COMMON]
    for key in options:
        check_name(f"option of the optimizer {name!r}", key, legal)
    return {
        key: float(value)
        if type(value) is int and type(parameters[key].default) is float
        else value
        for key, value in options.items()
    }


def _require(valid: bool, name: str, meaning: str, value) -> None:
    if not valid:
        raise ValueError(f"`{name}` must be {meaning}. Received: {value}")
