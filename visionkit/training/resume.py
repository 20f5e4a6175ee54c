"""Stopping a training at any batch, and going on as if nothing had happened."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import keras
import numpy as np

from visionkit.training.checkpoint import Checkpoint, CheckpointStore
from visionkit.training.state import (
    metric_state,
    model_state,
    restore_metric_state,
    restore_model_state,
)


class TrainingInterrupted(Exception):
    """A signal ended the training, after a checkpoint was saved.

    Attributes:
        signal: Its number.
        exit_status: What a program exits with: 128 + signal.
    """

    def __init__(self, number: int, path: Path):
        self.signal = number
        self.exit_status = 128 + number
        name = signal.Signals(number).name
        super().__init__(f"Stopped by {name}. The training can be resumed from {path}")


class Progress(keras.callbacks.Callback):
    """Where the training is. Always the first of the callbacks.

    It also ends the epoch that a resumed training re-enters in its middle when that
    epoch is full, so that one `fit` with the usual `steps_per_epoch` is all it takes.

    Attributes:
        epoch: Epochs done.
        step: Batches of the present epoch done.
        global_step: Batches of the whole training done.
    """

    def __init__(self):
        super().__init__()
        self.epoch = self.step = self.global_step = 0
        self._offset = 0
        self._resumed = False

    @property
    def epoch_complete(self) -> bool:
        """Whether the present epoch's last batch is done (its validation is not)."""
        return self.step >= (self.params["steps"] or float("inf"))

    def state(self) -> dict[str, int]:
        """The three counts."""
        return {
            "epoch": self.epoch,
            "step": self.step,
            "global_step": self.global_step,
        }

    def load_state(self, state: dict[str, int]) -> None:
        """Go on from `state()`."""
        self.epoch, self.step = state["epoch"], state["step"]
        self.global_step = state["global_step"]
        self._resumed = True

    def on_epoch_begin(self, epoch, logs=None):
        """Count from the batch where the epoch is entered."""
        if self._resumed and epoch != self.epoch:
            raise ValueError(
                f"The training was resumed in epoch {self.epoch}: call `fit` with "
                f"`initial_epoch={self.epoch}`. Received: initial_epoch={epoch}"
            )
        self._offset = self.step if self._resumed else 0
        if self._offset and not self.params["steps"]:
            raise ValueError(
                "A training resumed within an epoch needs `steps_per_epoch` in `fit`."
            )
        self.epoch, self.step, self._resumed = epoch, self._offset, False

    def on_train_batch_end(self, batch, logs=None):
        """Count the batch; leave a re-entered epoch after its last one."""
        step = self._offset + batch + 1
        self.global_step += step - self.step
        self.step = step
        if self._offset and self.epoch_complete:
            self.model.stop_training = True

    def on_epoch_end(self, epoch, logs=None):
        """Count the epoch."""
        if self._offset:  # `stop_training` was meant for the epoch, not for `fit`
            self.model.stop_training = False
        self.epoch, self.step, self._offset = epoch + 1, 0, 0


class Checkpointer(keras.callbacks.Callback):
    """Saves and restores everything that the rest of a training depends on.

    That is the model's state (see `model_state`), the running metrics, the position,
    and the `state()` of every callback that has one.

    Args:
        store: Where to.
        every_epochs: Save after this many epochs, and after the last one.
        every_steps: Save also after this many batches; None for epochs only.
        extra_state: Called at every save for JSON types to save; what it had returned
            is `extra` after `resume`.

    Attributes:
        progress: `Progress`; `arrange` puts it in front.
        extra: What `extra_state` had returned when the resumed checkpoint was saved.
        skipped: Checkpoints that `resume` could not use, with the reasons.
    """

    order = 1

    def __init__(
        self,
        store: CheckpointStore,
        *,
        every_epochs: int = 1,
        every_steps: int | None = None,
        extra_state: Callable[[], dict[str, Any]] = dict,
    ):
        super().__init__()
        self.store = store
        self.every_epochs = every_epochs
        self.every_steps = every_steps
        self.extra_state = extra_state
        self.progress = Progress()
        self.extra: dict[str, Any] = {}
        self.skipped: list[str] = []
        self.stateful: dict[str, keras.callbacks.Callback] = {}
        self._metrics: dict[str, np.ndarray] = {}
        self._saved: dict[str, int] | None = None

    def resume(
        self, model: keras.Model, checkpoint: Checkpoint | None = None
    ) -> tuple[int, int]:
        """Bring `model`, the arranged callbacks and the position to the checkpoint.

        Args:
            model: Built and compiled as for the run that is resumed.
            checkpoint: What `store.load()` has given; loaded when omitted.

        Returns:
            (epoch, step): epochs done, the `initial_epoch` of `fit`, and batches done
            of the next one, after which the data must begin. (0, 0) without any
            checkpoint.

        Raises:
            CheckpointError: No checkpoint is usable.
            ValueError: The checkpoint is of another model; nothing was changed.
        """
        checkpoint = checkpoint or self.store.load()
        if checkpoint is None:
            return 0, 0
        arrays = dict(checkpoint.arrays)
        metrics = {k: arrays.pop(k) for k in list(arrays) if k.startswith("metrics/")}
        restore_model_state(model, arrays)
        self._metrics = metrics
        self.skipped = checkpoint.skipped
        self.extra = checkpoint.state["extra"]
        self.progress.load_state(checkpoint.state["progress"])
        for key, state in checkpoint.state["callbacks"].items():
            if key in self.stateful:
                self.stateful[key].load_state(state)
        return self.progress.epoch, self.progress.step

    def save(self) -> Path:
        """Save now; the path of the checkpoint, also when it is there already."""
        progress, model = self.progress, self.model
        if self._saved == progress.state():
            return self.store.latest()
        arrays = model_state(model)
        if progress.step:
            arrays |= metric_state(model)
        state = {
            "progress": progress.state(),
            "callbacks": {key: c.state() for key, c in self.stateful.items()},
            "extra": self.extra_state(),
        }
        path = self.store.save(progress.global_step, arrays, state)
        self._saved = progress.state()
        return path

    def on_epoch_begin(self, epoch, logs=None):
        """Give back the running metrics, which `fit` has just reset."""
        if self._metrics:
            restore_metric_state(self.model, self._metrics)
            self._metrics = {}

    def on_train_batch_end(self, batch, logs=None):
        """Save when `every_steps` batches are done; the epoch's end saves itself."""
        if (
            self.every_steps
            and self.progress.global_step % self.every_steps == 0
            and not self.progress.epoch_complete
        ):
            self.save()

    def on_epoch_end(self, epoch, logs=None):
        """Save when `every_epochs` epochs are done, and when it was the last."""
        last = epoch + 1 == self.params["epochs"] or self.model.stop_training
        if last or (epoch + 1) % self.every_epochs == 0:
            self.save()


class Interrupts(keras.callbacks.Callback):
    """SIGINT and SIGTERM save a checkpoint and raise `TrainingInterrupted`.

    Use it around `fit` and as the last of its callbacks:
    `with Interrupts(checkpointer) as interrupts: model.fit(...)`. The handlers only set
    a flag: the batch at hand is finished, and after an epoch's last batch its
    validation, before the checkpoint is saved. A second signal ends the process at
    once. Outside the main thread, where signals cannot be handled, nothing happens.

    Args:
        checkpointer: Saves.
        signals: Their numbers.
    """

    order = 2

    def __init__(
        self,
        checkpointer: Checkpointer,
        signals: tuple[int, ...] = (signal.SIGINT, signal.SIGTERM),
    ):
        super().__init__()
        self.checkpointer = checkpointer
        self.signals = signals
        self.received: int | None = None
        self._handlers: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        self.received = None
        if threading.current_thread() is threading.main_thread():
            self._handlers = {n: signal.signal(n, self._handle) for n in self.signals}
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers = {}

    def _handle(self, number, _frame) -> None:
        if self.received is not None:
            os._exit(128 + number)
        self.received = number

    def on_train_batch_end(self, batch, logs=None):
        """Stop, unless the epoch's end is next."""
        if self.received and not self.checkpointer.progress.epoch_complete:
            self._stop()

    def on_epoch_end(self, epoch, logs=None):
        """Stop."""
        if self.received:
            self._stop()

    def _stop(self) -> None:
        raise TrainingInterrupted(self.received, self.checkpointer.save())


def arrange(callbacks: Iterable[keras.callbacks.Callback]) -> list:
    """The callbacks in the one order that is right, the `Progress` added in front.

    A callback's class says its place by `order`, 0 where it does not: what changes the
    weights comes before what saves them, what has a state before the `Checkpointer`.

    Args:
        callbacks: With one `Checkpointer`, which is told of those with a `state()`,
            and forgets those of an earlier arrangement.

    Returns:
        The list for `fit`.

    Raises:
        ValueError: There is no `Checkpointer`, or more than one.
    """
    callbacks = sorted(callbacks, key=lambda callback: getattr(callback, "order", 0))
    checkpointers = [c for c in callbacks if isinstance(c, Checkpointer)]
    if len(checkpointers) != 1:
        raise ValueError(
            "The callbacks must have one `Checkpointer`. "
            f"Received: {[type(c).__name__ for c in callbacks]}"
        )
    checkpointers[0].stateful = {}
    for callback in callbacks:
        if hasattr(callback, "load_state"):
            name = type(callback).__name__
            same = sum(key.startswith(f"{name}/") for key in checkpointers[0].stateful)
            checkpointers[0].stateful[f"{name}/{same}"] = callback
    return [checkpointers[0].progress, *callbacks]
