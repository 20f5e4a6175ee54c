"""Learning-rate schedules by name."""

from __future__ import annotations

import inspect

from keras.optimizers.schedules import LearningRateSchedule

from visionkit._spelling import check_name
from visionkit.training.cycles import CosineRestartsSchedule, OneCycleSchedule
from visionkit.training.monitors import ReduceOnPlateau
from visionkit.training.rates import (
    ConstantSchedule,
    CosineSchedule,
    ExponentialSchedule,
    PolynomialSchedule,
    StepSchedule,
    check_number,
    check_positive,
)

SCHEDULES: dict[str, type[ConstantSchedule]] = {
    "constant": ConstantSchedule,
    "step": StepSchedule,
    "exponential": ExponentialSchedule,
    "polynomial": PolynomialSchedule,
    "cosine": CosineSchedule,
    "cosine_restarts": CosineRestartsSchedule,
    "one_cycle": OneCycleSchedule,
}
"""Name in recipes -> class. `PLATEAU` is a further name."""

PLATEAU = "plateau"
"""No function of the step: a constant rate that `callbacks.ReduceOnPlateau` lowers."""


def build_schedule(
    spec: str | dict[str, dict | None],
    learning_rate: float,
    *,
    steps_per_epoch: int,
    epochs: int,
) -> float | LearningRateSchedule:
    """The schedule that a recipe names.

    Its options are the constructor's, except `total_steps`, which is known. What counts
    steps may count epochs instead, fractions allowed: `{"step": {"epochs": [30, 60],
    "warmup_epochs": 0.5}}`. Steps behind the end of the training never come and are no
    error, so that a recipe can be tried for one epoch.

    Args:
        spec: A key of `SCHEDULES`, or `{name: options}`. "plateau" has the options of
            `ReduceOnPlateau`, which are only checked here: see `build_plateau`.
        learning_rate: The peak, above 0.
        steps_per_epoch: Batches.
        epochs: Epochs of the whole training.

    Returns:
        A schedule that Keras can save; a float for "plateau" and for a constant
        rate without warm-up, which may be set from outside.

    Raises:
        ValueError: Unknown name or option (the legal ones are listed), steps and epochs
            both given, or a value out of range.
    """
    name, options = _named_options(spec)
    check_name("schedule", name, [*SCHEDULES, PLATEAU])
    if name == PLATEAU:
        build_plateau(spec, "loss")
        return float(check_positive("learning_rate", learning_rate))
    schedule = SCHEDULES[name]
    parameters = inspect.signature(schedule).parameters
    known = {"learning_rate": learning_rate}
    if "total_steps" in parameters:
        known["total_steps"] = steps_per_epoch * epochs
    counted = [k for k in parameters if k.endswith("steps") and k not in known]
    in_epochs = {key.replace("steps", "epochs"): key for key in counted}
    legal = [*in_epochs, *(key for key in parameters if key not in known)]
    arguments = {}
    for key, value in options.items():
        check_name(f"option of the schedule {name!r}", key, legal)
        argument = in_epochs.get(key, key)
        if argument in arguments:
            raise ValueError(
                f"The schedule {name!r} takes {argument!r} in steps or in epochs, "
                f"not both. Received: {options}"
            )
        arguments[argument] = (
            _to_steps(key, value, steps_per_epoch) if key in in_epochs else value
        )
    for by_epochs, by_steps in in_epochs.items():
        required = parameters[by_steps].default is inspect.Parameter.empty
        if required and by_steps not in arguments:
            raise ValueError(
                f"The schedule {name!r} needs `{by_epochs}` or `{by_steps}`."
            )
    if name == "constant" and not arguments.get("warmup_steps"):
        return float(check_positive("learning_rate", learning_rate))
    return schedule(**known, **arguments)


def build_plateau(spec: str | dict[str, dict | None], monitor: str):
    """The `ReduceOnPlateau` that a recipe's schedule asks for, None for the others.

    Raises:
        ValueError: Unknown option (the legal ones are listed), or a value out of range.
    """
    name, options = _named_options(spec)
    if name != PLATEAU:
        return None
    legal = [key for key in inspect.signature(ReduceOnPlateau).parameters][1:]
    for key in options:
        check_name(f"option of the schedule {name!r}", key, legal)
    return ReduceOnPlateau(monitor, **options)


def _named_options(spec) -> tuple[str, dict]:
    name, options = (spec, {}) if isinstance(spec, str) else next(iter(spec.items()))
    return name, options or {}


def _to_steps(key: str, value, steps_per_epoch: int):
    if isinstance(value, (list, tuple)):
        return [_to_steps(key, epochs, steps_per_epoch) for epochs in value]
    return round(check_number(key, value, 0) * steps_per_epoch)
