"""Learning rates that rise again: warm restarts and the one cycle."""

from __future__ import annotations

import math

import keras
from keras import ops

from visionkit.training.rates import (
    WARMUP_START,
    ConstantSchedule,
    check_number,
    check_positive,
)

_register = keras.saving.register_keras_serializable("visionkit")


def _half_cosine(progress):
    """From 1 to 0 while `progress` goes from 0 to 1; constant outside."""
    return 0.5 * (1.0 + ops.cos(math.pi * ops.clip(progress, 0.0, 1.0)))


@_register
class CosineRestartsSchedule(ConstantSchedule):
    """Half cosines from the peak, one after another: SGDR (arXiv:1608.03983, eq. 5).

    Args:
        learning_rate: The peak, above 0.
        total_steps: Batches of the whole training, warm-up included.
        period_steps: Batches until the first restart, counted from the warm-up's end.
        period_factor: How much longer each period is than the one before, at least 1.
        end: Share of the peak at the end of a period.
        warmup_steps: As for `ConstantSchedule`.
        warmup_start: As for `ConstantSchedule`.
    """

    def __init__(
        self,
        learning_rate,
        total_steps,
        period_steps,
        period_factor=1.0,
        end=0.0,
        warmup_steps=0,
        warmup_start=WARMUP_START,
    ):
        super().__init__(learning_rate, warmup_steps, warmup_start)
        self.total_steps = check_positive("total_steps", total_steps)
        self.period_steps = check_positive("period_steps", period_steps)
        self.period_factor = check_number("period_factor", period_factor, 1)
        self.end = check_number("end", end, 0, 1)
        # Listed, because the logarithm that would count them misses the restarts.
        self._starts, self._lengths = [0.0], [float(period_steps)]
        while self._starts[-1] + self._lengths[-1] <= total_steps:
            self._starts.append(self._starts[-1] + self._lengths[-1])
            self._lengths.append(self._lengths[-1] * period_factor)

    def share(self, step):
        """From 1 to `end` in every period."""
        step = ops.maximum(step - self.warmup_steps, 0.0)
        starts = ops.convert_to_tensor(self._starts, "float32")
        lengths = ops.convert_to_tensor(self._lengths, "float32")
        period = ops.sum(ops.cast(step >= starts, "int32")) - 1
        progress = (step - ops.take(starts, period)) / ops.take(lengths, period)
        return self.end + (1 - self.end) * _half_cosine(progress)


@_register
class OneCycleSchedule(ConstantSchedule):
    """Up to the peak and down again, once (Smith 2018, arXiv:1803.09820).

    Half cosines, and the shares of fastai and PyTorch. The momentum stays as it is.

    Args:
        learning_rate: The peak, above 0.
        total_steps: Batches of the whole training.
        rise: Share of them that goes up, in (0, 1).
        div_factor: The peak over the rate at step 0.
        final_div_factor: The rate at step 0 over the one at `total_steps` and later.
    """

    def __init__(
        self,
        learning_rate,
        total_steps,
        rise=0.3,
        div_factor=25.0,
        final_div_factor=1e4,
    ):
        super().__init__(learning_rate)
        self.total_steps = check_positive("total_steps", total_steps)
        self.rise = check_positive("rise", check_number("rise", rise, 0, 1))
        self.div_factor = check_number("div_factor", div_factor, 1)
        self.final_div_factor = check_number("final_div_factor", final_div_factor, 1)

    def share(self, step):
        """From 1 / div_factor to 1, then to 1 / (div_factor * final_div_factor)."""
        start = 1 / self.div_factor
        end = start / self.final_div_factor
        top = self.rise * self.total_steps
        up = 1 - (1 - start) * _half_cosine(step / top)
        fall = max(self.total_steps - top, 1)
        down = end + (1 - end) * _half_cosine((step - top) / fall)
        return ops.where(step < top, up, down)
