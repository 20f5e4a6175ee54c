"""Stopping a training at any batch, and going on as if nothing had happened."""

from __future__ import annotations

import copy
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
        before_last: Copies of what was to be saved before the epoch's last batch; None
            before that, and where the number of batches is not known.
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
        self.before_last: tuple[int, dict, dict] | None = None

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
        state = checkpoint.state
        progress, extra, callbacks = (
            state[key] for key in ("progress", "extra", "callbacks")
        )
        arrays = dict(checkpoint.arrays)
        metrics = {k: arrays.pop(k) for k in list(arrays) if k.startswith("metrics/")}
        restore_model_state(model, arrays)
        self._metrics = metrics
        self.skipped = checkpoint.skipped
        self.extra = extra
        self.progress.load_state(progress)
        for key, value in callbacks.items():
            if key in self.stateful:
                self.stateful[key].load_state(value)
        return self.progress.epoch, self.progress.step

    def save(self) -> Path:
        """Save now; the path of the checkpoint, also when it is there already.

        Where the store is another process's, nothing is saved; the path is its folder.
        """
        if not self.store.writable:
            return self.store.folder
        if self._saved == self.progress.state():
            return self.store.latest()
        return self._commit(*self._capture())

    def save_before_last(self) -> Path:
        """Save `before_last`, within the validation; the path of the checkpoint.

        An epoch's end cannot be saved as long as its scores are not known. A training
        that is resumed from here does the last batch again.
        """
        return self._commit(*self.before_last)

    def _keep_before_last(self) -> None:
        if self.store.writable and self.progress.step + 1 == self.params["steps"]:
            self.before_last = self._capture()

    def _capture(self) -> tuple[int, dict[str, np.ndarray], dict[str, Any]]:
        """Copies of everything: the step, the arrays and the rest."""
        progress, arrays = self.progress, model_state(self.model)
        if progress.step:
            arrays |= metric_state(self.model)
        state = {
            "progress": progress.state(),
            "callbacks": {key: c.state() for key, c in self.stateful.items()},
            "extra": self.extra_state(),
        }
        return progress.global_step, arrays, copy.deepcopy(state)

    def _commit(self, step: int, arrays: dict, state: dict) -> Path:
        path = self.store.save(step, arrays, state)
        self._saved = state["progress"]
        return path

    def on_epoch_begin(self, epoch, logs=None):
        """Give back the running metrics, which `fit` has just reset."""
        if self._metrics:
            restore_metric_state(self.model, self._metrics)
            self._metrics = {}
        self._keep_before_last()

    def on_train_batch_end(self, batch, logs=None):
        """Save when `every_steps` batches are done; the epoch's end saves itself."""
        self._keep_before_last()
        if (
            self.every_steps
            and self.progress.global_step % self.every_steps == 0
            and not self.progress.epoch_complete
        ):
            self.save()

    def on_epoch_end(self, epoch, logs=None):
        """Save when `every_epochs` epochs are done, and when it was the last."""
        self.before_last = None
        last = epoch + 1 == self.params["epochs"] or self.model.stop_training
        if last or (epoch + 1) % self.every_epochs == 0:
            self.save()


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
