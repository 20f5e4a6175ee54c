"""Callbacks that follow one value: the best model, when to slow down, when to stop."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import keras

from visionkit._spelling import check_name
from visionkit.tasks.first_device import on_first_device
from visionkit.training.files import atomic_replace
from visionkit.training.state import averaged_weights, number

_LOWER_IS_BETTER = ("loss", "error", "crossentropy", "divergence", "mae", "mse")
_HIGHER_IS_BETTER = (
    *("acc", "auc", "precision", "recall", "f1", "iou", "dice", "map", "top_"),
    *("average_precision", "sensitivity", "specificity"),
)


def check_monitor(monitor: str, model: keras.Model) -> None:
    """Refuse, before anything is trained, a value that the logs will not have.

    Args:
        monitor: Name of the value.
        model: Compiled.

    Raises:
        ValueError: Naming the nearest spelling and the legal names.
    """
    compiled = model.get_compile_config()
    names = ["loss", *(m["config"]["name"] for m in compiled["metrics"] or ())]
    losses = compiled["loss"]
    if isinstance(losses, dict) and "class_name" not in losses:  # by output
        names += [f"{name}_loss" for name in losses]
    logged = getattr(model, "logged_scores", ())
    scores = [f"val_{name}" for name in (*names, *logged)]
    check_name("value to monitor", monitor, scores + names)


class Monitor(keras.callbacks.Callback):
    """Base of the callbacks that follow one value and know its best.

    Args:
        monitor: Name of the value in the logs, e.g. "val_loss".
        mode: "min", "max", or "auto" to tell by the name.
        min_delta: What a better value must differ by.
    """

    def __init__(self, monitor: str, mode: str = "auto", min_delta: float = 0.0):
        super().__init__()
        self.monitor = monitor
        self.sign = {"min": -1, "max": 1}.get(mode) or _sign(monitor, mode)
        self.min_delta = min_delta
        self.best: float | None = None
        self._seen = False

    def improved(self, logs: dict[str, Any] | None) -> bool | None:
        """Whether `best` has just been beaten; None in an epoch without validation.

        NaN and infinity never are an improvement, any number is one on nothing.
        """
        logs = logs or {}
        if self.monitor not in logs:
            validated = any(name.startswith("val_") for name in logs)
            if self.monitor.startswith("val_") and not validated:
                return None
            raise ValueError(
                f"There is no {self.monitor!r} to monitor. Available: {', '.join(logs)}"
            )
        self._seen = True
        value = float(logs[self.monitor])
        if not math.isfinite(value):
            return False
        gain = math.inf if self.best is None else self.sign * (value - self.best)
        if gain <= self.min_delta:
            return False
        self.best = value
        return True

    def on_train_end(self, logs=None):
        """Complain where no epoch ever had the value."""
        if not self._seen and logs:
            raise ValueError(
                f"{self.monitor!r} was to be monitored, and no epoch was validated. "
                f"Available: {', '.join(logs)}"
            )

    def restart(self) -> None:
        """Forget the best value: what comes now is not comparable with it."""
        self.best = None

    def state(self) -> dict[str, Any]:
        """The best value."""
        return {"best": self.best}

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from `state()`."""
        self.best = state["best"]


def restart_monitors(callbacks) -> None:
    """`Monitor.restart` of all those among `callbacks`."""
    for callback in callbacks:
        if isinstance(callback, Monitor):
            callback.restart()


def _sign(monitor: str, mode: str) -> int:
    if mode != "auto":
        raise ValueError(f"`mode` must be auto, min or max. Received: mode={mode!r}")
    for words, sign in ((_LOWER_IS_BETTER, -1), (_HIGHER_IS_BETTER, 1)):
        if any(word in monitor.lower() for word in words):
            return sign
    raise ValueError(
        f"Whether {monitor!r} should fall or rise cannot be told from its name. Pass "
        "`mode='min'` or `mode='max'`."
    )


class BestModel(Monitor):
    """Writes the model whenever the monitored value is the best so far.

    The file holds the averaged weights where the optimizer keeps averages. At every
    moment it is the old one or the whole new one.

    Args:
        path: A `.keras` file.
        monitor: Name of the value in the logs.
        mode: "min", "max", or "auto" to tell by the name.
        writes: Whether this process does; of several one does.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        monitor: str,
        mode: str = "auto",
        *,
        writes: bool = True,
    ):
        super().__init__(monitor, mode)
        self.path = Path(path)
        self.writes = writes

    def on_epoch_end(self, epoch, logs=None):
        """Write on improvement."""
        if self.improved(logs) and self.writes:
            with (
                on_first_device(self.model),
                averaged_weights(self.model),
                atomic_replace(self.path) as temporary,
            ):
                self.model.save(temporary)

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from `state()`; a best value whose file is gone does not count."""
        self.best = state["best"] if self.path.is_file() else None


class EarlyStopping(Monitor):
    """Ends the training when the monitored value no longer improves.

    Args:
        monitor: Name of the value in the logs.
        patience: Epochs without improvement after which to stop.
        min_delta: What a better value must differ by.
        mode: "min", "max", or "auto" to tell by the name.
        restore_best: The `.keras` file that `BestModel` writes: its weights are loaded
            when the training ends, however it went on. None leaves the last ones.

    Attributes:
        wait: Epochs since the best one.
    """

    def __init__(
        self,
        monitor: str,
        patience: int = 10,
        *,
        min_delta: float = 0.0,
        mode: str = "auto",
        restore_best: str | os.PathLike | None = None,
    ):
        super().__init__(monitor, mode, min_delta)
        self.patience = patience
        self.restore_best = restore_best
        self.wait = 0

    @property
    def exhausted(self) -> bool:
        """Whether the patience is at its end, so that no epoch is left to train."""
        return self.wait >= self.patience

    def on_epoch_end(self, epoch, logs=None):
        """Count, and stop."""
        improved = self.improved(logs)
        if improved is not None:
            self.wait = 0 if improved else self.wait + 1
        if self.exhausted:
            self.model.stop_training = True

    def on_train_end(self, logs=None):
        """Load the best weights."""
        super().on_train_end(logs)
        if self.restore_best is not None and Path(self.restore_best).is_file():
            self.model.load_weights(self.restore_best)

    def state(self) -> dict[str, Any]:
        """The best value and the epochs since."""
        return {**super().state(), "wait": self.wait}

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from `state()`."""
        super().load_state(state)
        self.wait = state["wait"]


class ReduceOnPlateau(Monitor):
    """Lowers the learning rate when the monitored value no longer improves.

    Unlike Keras' it can be resumed: its own state is saved, and the rate is one of the
    optimizer's variables. It needs an optimizer with a rate that is a number.

    Args:
        monitor: Name of the value in the logs.
        factor: The rate is multiplied by it, in (0, 1).
        patience: Epochs without improvement after which it is.
        min_rate: What the rate never falls below.
        min_delta: What a better value must differ by.
        mode: "min", "max", or "auto" to tell by the name.

    Attributes:
        wait: Epochs since the best one, or since the rate was lowered.
    """

    order = -1  # the history says the rate of the next batch

    def __init__(
        self,
        monitor: str,
        factor: float = 0.1,
        patience: int = 5,
        min_rate: float = 0.0,
        min_delta: float = 0.0,
        mode: str = "auto",
    ):
        super().__init__(monitor, mode, min_delta)
        if not 0 < factor < 1:
            raise ValueError(f"`factor` must be in (0, 1). Received: factor={factor}")
        if patience < 1:
            raise ValueError(
                f"`patience` must be at least 1. Received: patience={patience}"
            )
        self.factor, self.patience, self.min_rate = factor, patience, min_rate
        self.wait = 0

    def on_epoch_end(self, epoch, logs=None):
        """Count, and lower the rate."""
        improved = self.improved(logs)
        if improved is None:
            return
        self.wait = 0 if improved else self.wait + 1
        if self.wait >= self.patience:
            rate = number(self.model.optimizer.learning_rate)
            lower = max(rate * self.factor, self.min_rate)
            self.model.optimizer.learning_rate = min(rate, lower)
            self.wait = 0

    def state(self) -> dict[str, Any]:
        """The best value and the epochs since."""
        return {**super().state(), "wait": self.wait}

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from `state()`."""
        super().load_state(state)
        self.wait = state["wait"]
