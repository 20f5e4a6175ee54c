"""Callbacks of a training. Those with `state` and `load_state` survive a restart.

Epochs in what people read (history, reports, messages) are counted from 1.
"""

from __future__ import annotations

import collections
import contextlib
import csv
import io
import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras

from visionkit.training.files import atomic_write_json, atomic_write_text
from visionkit.training.interrupts import Interrupts, TrainingInterrupted
from visionkit.training.monitors import BestModel, EarlyStopping, ReduceOnPlateau
from visionkit.training.resume import Checkpointer, Progress, arrange
from visionkit.training.state import averaged_weights, number

__all__ = [
    "BestModel",
    "Checkpointer",
    "EarlyStopping",
    "EmaWeights",
    "History",
    "Interrupts",
    "NonFiniteGuard",
    "NonFiniteLossError",
    "Progress",
    "ReduceOnPlateau",
    "TrainingInterrupted",
    "arrange",
]

_LOSSES_KEPT = 20


class NonFiniteLossError(RuntimeError):
    """The loss is NaN or infinite.

    Attributes:
        epoch: From 0.
        step: Within the epoch, from 0.
        files: What the batch was made of.
        exit_status: What a program exits with.
    """

    exit_status = 3

    def __init__(self, message: str, epoch: int, step: int, files: list[str]):
        super().__init__(message)
        self.epoch, self.step, self.files = epoch, step, files


class NonFiniteGuard(keras.callbacks.Callback):
    """Stops at the first batch after which the loss is not a number.

    Args:
        describe_batch: (epoch, step), both from 0, to the names of the batch's records.
        report_path: JSON file that says what happened, written before the error; None
            where another process writes it.
        checkpointer: Knows the position and the last checkpoint.
    """

    order = -1

    def __init__(
        self,
        describe_batch: Callable[[int, int], list[str]],
        report_path: str | os.PathLike | None,
        checkpointer: Checkpointer,
    ):
        super().__init__()
        self.describe_batch = describe_batch
        self.report_path = report_path and Path(report_path)
        self.checkpointer = checkpointer
        self._losses: collections.deque = collections.deque(maxlen=_LOSSES_KEPT)

    def on_train_batch_end(self, batch, logs=None):
        """Look at the running mean of the loss, which a bad batch spoils at once.

        Raises:
            NonFiniteLossError: It is NaN or infinite.
        """
        loss = float(logs["loss"])
        self._losses.append(loss)
        if math.isfinite(loss):
            return
        progress, latest = self.checkpointer.progress, self.checkpointer.store.latest()
        epoch, step = progress.epoch, progress.step - 1
        files = list(self.describe_batch(epoch, step))
        report = {
            "epoch": epoch + 1,
            "step": step + 1,
            "global_step": progress.global_step,
            "files": files,
            "mean_losses": [str(value) for value in self._losses],
            "checkpoint": latest and str(latest),
        }
        if self.report_path:
            atomic_write_json(self.report_path, report)
        names = ", ".join(files[:5]) + (", ..." if len(files) > 5 else "")
        raise NonFiniteLossError(
            f"The loss is {loss} after batch {step + 1} of epoch {epoch + 1} "
            f"({names}). The last good checkpoint is {latest}. Lower the learning "
            f"rate, clip the gradients, or look at the files in {self.report_path}.",
            epoch,
            step,
            files,
        )


class History(keras.callbacks.Callback):
    """Writes `history.csv`: a row per epoch, columns as they come up.

    The rows travel in the checkpoints, so a resumed run drops those of the epochs that
    it trains again. The file is whole at every moment.

    Args:
        path: The file; None where another process writes it. An epoch's columns are
            `epoch` (from 1), `phase`, `learning_rate` (of the next batch), `seconds`
            and the logs.

    Attributes:
        phase: The present phase of the training, from 1.
    """

    def __init__(self, path: str | os.PathLike | None):
        super().__init__()
        self.path = path and Path(path)
        self.phase = 1
        self.rows: list[dict[str, float]] = []
        self._start = 0.0

    def on_epoch_begin(self, epoch, logs=None):
        """Start the clock."""
        self._start = time.monotonic()

    def on_epoch_end(self, epoch, logs=None):
        """Add the row."""
        row = {
            "epoch": epoch + 1,
            "phase": self.phase,
            "learning_rate": number(self.model.optimizer.learning_rate),
            "seconds": time.monotonic() - self._start,
        }
        self.rows.append(row | {name: float(value) for name, value in logs.items()})
        if not self.path:
            return
        text = io.StringIO(newline="")
        columns = dict.fromkeys(name for row in self.rows for name in row)
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        # Nine digits give a float32 back exactly.
        writer.writerows({k: f"{v:.9g}" for k, v in row.items()} for row in self.rows)
        atomic_write_text(self.path, text.getvalue())

    def state(self) -> dict[str, Any]:
        """The rows."""
        return {"rows": self.rows}

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from `state()`."""
        self.rows = list(state["rows"])


class EmaWeights(keras.callbacks.Callback):
    """Validation sees the optimizer's averages, training its own weights.

    At the end of `fit` Keras itself makes the averages the model's weights. Checkpoints
    hold both. Without averages in the optimizer this does nothing.
    """

    order = -2
    swaps_weights = True  # what is scored apart from Keras' losses asks for it

    def __init__(self):
        super().__init__()
        self._swapped = contextlib.ExitStack()

    def on_test_begin(self, logs=None):
        """Averages in."""
        self._swapped.enter_context(averaged_weights(self.model))

    def on_test_end(self, logs=None):
        """Averages out."""
        self._swapped.close()
