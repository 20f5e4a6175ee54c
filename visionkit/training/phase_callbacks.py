"""The callbacks of one phase of a training."""

from __future__ import annotations

import keras

from visionkit.training.callbacks import (
    EarlyStopping,
    EmaWeights,
    NonFiniteGuard,
    arrange,
)
from visionkit.training.cluster import Agreement
from visionkit.training.schedules import build_plateau


def phase_callbacks(session) -> list:
    """The callbacks of the present phase, arranged.

    Those that follow the whole training are the same in every phase. In a cluster every
    process has the same ones, because what one computes all must; those of one process
    write.

    Args:
        session: A `TrainingSession` whose model is built.
    """
    options = session.phases[session.phase].train
    writes = session.cluster.writes
    session.history.phase = session.phase + 1
    report = session.folder / "non_finite.json" if writes else None
    callbacks = [
        session.checkpointer,
        session.interrupts,
        session.history,
        EmaWeights(),
        session.best,
        NonFiniteGuard(session.batch_names, report, session.checkpointer),
    ]
    if session.cluster.processes > 1:
        callbacks.append(Agreement(session.cluster, session.reports))
    if plateau := build_plateau(options.schedule, options.monitor):
        callbacks.append(plateau)
    if stopping := options.early_stopping:
        callbacks.append(
            EarlyStopping(
                options.monitor, stopping.patience, min_delta=stopping.min_delta
            )
        )
    if options.tensorboard and writes:
        folder = str(session.folder / "tensorboard")
        callbacks.append(keras.callbacks.TensorBoard(folder, write_graph=False))
    return arrange(callbacks)
