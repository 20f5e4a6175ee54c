"""Signals that end a training, after a checkpoint."""

from __future__ import annotations

import _thread
import os
import signal
import threading
from pathlib import Path
from typing import Any

import keras

from visionkit.training.resume import Checkpointer

VALIDATION_SECONDS = 5.0
"""How long a signal lets the validation at hand go on. Who sends one, often kills after
10 seconds."""


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


class Interrupts(keras.callbacks.Callback):
    """SIGINT and SIGTERM save a checkpoint and raise `TrainingInterrupted`.

    Use it around `fit` and as the last of its callbacks:
    `with Interrupts(checkpointer) as interrupts: model.fit(...)`. The handlers only set
    a flag: the batch at hand is finished, and after an epoch's last batch its
    validation, before the checkpoint is saved. A validation that goes on for longer
    than `VALIDATION_SECONDS` is given up, and the epoch's last batch with it. A second
    signal ends the process at once. Outside the main thread, where signals cannot be
    handled, nothing happens.

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
        self._overdue = False
        self._timer: threading.Timer | None = None
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
        if self._timer is not None:
            self._timer.cancel()

    def _handle(self, number, _frame) -> None:
        if self._overdue:
            self._overdue = False
            if self._in_validation():  # a moment ago it was
                path = self.checkpointer.save_before_last()
                raise TrainingInterrupted(self.received, path)
            return
        if self.received is not None:
            os._exit(128 + number)
        self.received = number
        self._timer = threading.Timer(VALIDATION_SECONDS, self._give_up)
        self._timer.daemon = True
        self._timer.start()

    def _give_up(self) -> None:
        """In a thread of its own: have the main one leave the validation."""
        if self._in_validation():
            self._overdue = True
            _thread.interrupt_main(self.received)

    def _in_validation(self) -> bool:
        checkpointer = self.checkpointer
        return checkpointer.progress.epoch_complete and bool(checkpointer.before_last)

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
