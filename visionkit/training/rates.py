"""Learning-rate schedules with warm-up, as the published recipes state them.

A schedule counts batches: Keras calls it with the number of batches seen, also where
`gradient_accumulation_steps` makes one update of several. The warm-up is linear and
would reach the peak at step `warmup_steps`. The drops of `step` are counted from the
first batch of the training; the smooth decays begin where the warm-up ends.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence

import keras
from keras import ops
from keras.optimizers.schedules import LearningRateSchedule

WARMUP_START = 1e-3
"""Share of the peak at step 0: small, as detectron2's WARMUP_FACTOR, and not the wasted
batch that 0 would be."""

_register = keras.saving.register_keras_serializable("visionkit")


def check_number(name: str, value, low: float, high: float = math.inf):
    """`value` if it is a number in [low, high], else a `ValueError`."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not (number and low <= value <= high and math.isfinite(value)):
        limit = f"of at least {low}" if high == math.inf else f"in [{low}, {high}]"
        raise ValueError(f"`{name}` must be a number {limit}. Received: {value!r}")
    return value


def check_positive(name: str, value):
    """`value` if it is a number above 0, else a `ValueError`."""
    if check_number(name, value, 0) == 0:
        raise ValueError(f"`{name}` must be above 0. Received: {value!r}")
    return value


@_register
class ConstantSchedule(LearningRateSchedule):
    """The peak rate, after a linear warm-up. Base of the other schedules.

    Args:
        learning_rate: The peak, above 0.
        warmup_steps: Batches of the warm-up; 0 for none.
        warmup_start: Share of the peak at step 0.
    """

    def __init__(self, learning_rate, warmup_steps=0, warmup_start=WARMUP_START):
        self.learning_rate = check_positive("learning_rate", learning_rate)
        self.warmup_steps = check_number("warmup_steps", warmup_steps, 0)
        self.warmup_start = check_number("warmup_start", warmup_start, 0, 1)

    def __call__(self, step):
        """() float32 learning rate after `step` batches, () int."""
        step = ops.cast(step, "float32")
        share = self.share(step)
        if self.warmup_steps:
            slope = (1 - self.warmup_start) / self.warmup_steps
            ramp = self.warmup_start + slope * step
            share = ops.where(step < self.warmup_steps, ramp, share)
        return self.learning_rate * share

    def share(self, step):
        """() float32 share of the peak, were there no warm-up; `step` is () float32."""
        return ops.ones_like(step)

    def get_config(self) -> dict:
        """The constructor's arguments."""
        names = inspect.signature(type(self)).parameters
        return {name: getattr(self, name) for name in names}


@_register
class StepSchedule(ConstantSchedule):
    """The rate is multiplied by `factor` at each of `steps`.

    Args:
        learning_rate: The peak, above 0.
        steps: Batches from which on a further factor holds, ascending.
        factor: Above 0.
        warmup_steps: As for `ConstantSchedule`.
        warmup_start: As for `ConstantSchedule`.
    """

    def __init__(
        self,
        learning_rate,
        steps,
        factor=0.1,
        warmup_steps=0,
        warmup_start=WARMUP_START,
    ):
        super().__init__(learning_rate, warmup_steps, warmup_start)
        steps = steps if isinstance(steps, Sequence) else [steps]
        self.steps = [check_positive("steps", step) for step in steps]
        self.factor = check_positive("factor", factor)
        if not steps or sorted(set(self.steps)) != self.steps:
            raise ValueError(
                f"`steps` (or `epochs`) must be ascending. Received: {self.steps}"
            )

    def share(self, step):
        """`factor` to the power of the drops passed."""
        passed = ops.cast(
            step >= ops.convert_to_tensor(self.steps, "float32"), "float32"
        )
        return ops.power(self.factor, ops.sum(passed))


@_register
class ExponentialSchedule(ConstantSchedule):
    """The rate is multiplied by `factor` every `steps` batches after the warm-up.

    Args:
        learning_rate: The peak, above 0.
        steps: Batches that one factor takes.
        factor: Above 0.
        staircase: In drops instead of smoothly.
        warmup_steps: As for `ConstantSchedule`.
        warmup_start: As for `ConstantSchedule`.
    """

    def __init__(
        self,
        learning_rate,
        steps,
        factor=0.97,
        staircase=False,
        warmup_steps=0,
        warmup_start=WARMUP_START,
    ):
        super().__init__(learning_rate, warmup_steps, warmup_start)
        self.steps = check_positive("steps", steps)
        self.factor = check_positive("factor", factor)
        self.staircase = staircase

    def share(self, step):
        """`factor` to the power of the intervals passed."""
        intervals = ops.maximum(step - self.warmup_steps, 0.0) / self.steps
        return ops.power(
            self.factor, ops.floor(intervals) if self.staircase else intervals
        )


@_register
class PolynomialSchedule(ConstantSchedule):
    """From the peak to `end` times the peak as (1 - progress) ** power.

    Args:
        learning_rate: The peak, above 0.
        total_steps: Batches of the whole training, warm-up included.
        power: Above 0; 1 is a line, 0.9 DeepLab's "poly" (arXiv:1606.00915, 4.1.1).
        end: Share of the peak at `total_steps` and later.
        warmup_steps: As for `ConstantSchedule`.
        warmup_start: As for `ConstantSchedule`.
    """

    def __init__(
        self,
        learning_rate,
        total_steps,
        power=1.0,
        end=0.0,
        warmup_steps=0,
        warmup_start=WARMUP_START,
    ):
        super().__init__(learning_rate, warmup_steps, warmup_start)
        self.total_steps = check_positive("total_steps", total_steps)
        self.power = check_positive("power", power)
        self.end = check_number("end", end, 0, 1)

    def share(self, step):
        """From 1 to `end`."""
        return self.end + (1 - self.end) * self.decay(self.progress(step))

    def progress(self, step):
        """() float32 in [0, 1]: how much of the time after the warm-up is over."""
        length = max(self.total_steps - self.warmup_steps, 1)
        return ops.clip((step - self.warmup_steps) / length, 0.0, 1.0)

    def decay(self, progress):
        """From 1 to 0."""
        return ops.power(1.0 - progress, self.power)


@_register
class CosineSchedule(PolynomialSchedule):
    """From the peak to `end` times the peak on half a cosine (arXiv:1608.03983).

    Args:
        learning_rate: The peak, above 0.
        total_steps: Batches of the whole training, warm-up included.
        end: Share of the peak at `total_steps` and later.
        warmup_steps: As for `ConstantSchedule`.
        warmup_start: As for `ConstantSchedule`.
    """

    def __init__(
        self,
        learning_rate,
        total_steps,
        end=0.0,
        warmup_steps=0,
        warmup_start=WARMUP_START,
    ):
        super().__init__(
            learning_rate,
            total_steps,
            end=end,
            warmup_steps=warmup_steps,
            warmup_start=warmup_start,
        )

    def decay(self, progress):
        """From 1 to 0."""
        return 0.5 * (1.0 + ops.cos(math.pi * progress))
