"""Callbacks on tiny models: what they write, when they stop, what survives."""

from __future__ import annotations

import csv
import json
import math
import os
import signal
import threading
import time

import keras
import numpy as np
import pytest

from visionkit.training import interrupts as interrupts_module
from visionkit.training.callbacks import (
    BestModel,
    Checkpointer,
    EarlyStopping,
    EmaWeights,
    History,
    Interrupts,
    NonFiniteGuard,
    NonFiniteLossError,
    Progress,
    ReduceOnPlateau,
    TrainingInterrupted,
    arrange,
)
from visionkit.training.checkpoint import CheckpointStore
from visionkit.training.optimizers import build_optimizer
from visionkit.training.state import model_state

NAN = float("nan")
X = np.random.default_rng(0).normal(size=(12, 4)).astype(np.float32)
Y = X[:, :2] * 2


def build(**options):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    options = {"learning_rate": 0.1, **options}
    model.compile(build_optimizer("sgd", {"momentum": 0.9}, **options), "mse")
    return model


def fit(model, callbacks, epochs=3, **options):
    options = {"x": X, "y": Y, "validation_data": (X, Y), **options}
    return model.fit(
        batch_size=4,
        epochs=epochs,
        callbacks=callbacks,
        verbose=0,
        shuffle=False,
        **options,
    )


class Logs(keras.callbacks.Callback):
    """Puts values into the logs, one per epoch, before the others look."""

    order = -9

    def __init__(self, **values):
        super().__init__()
        self.values = values

    def on_epoch_end(self, epoch, logs=None):
        logs.update({name: values[epoch] for name, values in self.values.items()})


class StopAt(keras.callbacks.Callback):
    """Raises in the middle, as a crash would."""

    order = 9

    def __init__(self, progress, global_step):
        super().__init__()
        self.progress, self.global_step = progress, global_step

    def on_train_batch_end(self, batch, logs=None):
        if self.progress.global_step == self.global_step:
            raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("monitor", "values", "saved"),
    [
        ("val_loss", [NAN, 3.0, 4.0, 2.0, -math.inf], [1, 3]),
        ("val_accuracy", [NAN, 0.3, 0.2, 0.4, math.inf], [1, 3]),
        ("val_mean_iou", [0.0, 0.0, NAN, 0.1, 0.1], [0, 3]),
    ],
)
def test_best_model_nan_never_is_an_improvement(tmp_path, monitor, values, saved):
    best, written = BestModel(tmp_path / "model.keras", monitor), []

    class Model:
        def save(self, path):
            written.append(epoch)
            path.write_text("x")

    best.set_model(Model())
    for epoch, value in enumerate(values):
        best.on_epoch_end(epoch, {"loss": 1.0, monitor: value})
    assert written == saved


def test_best_model_keeps_the_best_value_over_a_restart_unless_the_file_is_gone(
    tmp_path,
):
    path = tmp_path / "model.keras"
    best = BestModel(path, "val_loss")
    fit(build(), [Logs(val_loss=[2.0, 1.0]), best], epochs=2)
    assert keras.saving.load_model(path).optimizer.iterations == 6
    state, data = json.loads(json.dumps(best.state())), path.read_bytes()
    again = BestModel(path, "val_loss")
    again.load_state(state)
    fit(build(), [Logs(val_loss=[1.5]), again], epochs=1)
    assert path.read_bytes() == data and os.listdir(tmp_path) == ["model.keras"]
    path.unlink()
    again.load_state(state)
    assert again.best is None


def test_monitor_unknown_lists_what_there_is(tmp_path):
    path = tmp_path / "model.keras"
    with pytest.raises(
        ValueError, match=r"no 'val_map' to monitor\. Available: loss, val"
    ):
        fit(build(), [BestModel(path, "val_map")], epochs=1)
    with pytest.raises(ValueError, match="no epoch was validated"):
        fit(build(), [BestModel(path, "val_loss")], epochs=1, validation_data=None)
    with pytest.raises(ValueError, match="cannot be told from its name"):
        BestModel(path, "val_foo")
    with pytest.raises(ValueError, match="mode='best'"):
        BestModel(path, "val_foo", "best")
    BestModel(path, "val_foo", "max")


def test_best_model_skips_epochs_without_validation(tmp_path):
    best = BestModel(tmp_path / "model.keras", "val_loss")
    fit(build(), [best], epochs=3, validation_freq=3)
    assert best.best is not None


def test_early_stopping_counts_nan_and_remembers_over_a_restart(tmp_path):
    values = [NAN, 2.0, 1.95, NAN, 1.0, 1.0, 1.0, 1.0, 1.0]
    stopping = EarlyStopping("val_loss", 3, min_delta=0.1)
    history = fit(build(), [Logs(val_loss=values), stopping], epochs=9)
    assert len(history.epoch) == 8 and stopping.exhausted
    again = EarlyStopping("val_loss", 4, min_delta=0.1)
    again.load_state(stopping.state())
    assert not again.exhausted
    assert len(fit(build(), [Logs(val_loss=[1.0] * 9), again], epochs=9).epoch) == 1


def test_plateau_lowers_the_rate_and_remembers_over_a_restart(tmp_path):
    def training(folder):
        store = CheckpointStore(folder)
        checkpointer, history = Checkpointer(store), History(folder / "history.csv")
        plateau = ReduceOnPlateau("val_loss", 0.1, patience=2, min_rate=0.0005)
        values = Logs(val_loss=[3.0, 2.0, 2.0, NAN, 2.0, 2.0, 1.0, 1.0, 1.0])
        callbacks = arrange([values, checkpointer, history, plateau])
        return build(), checkpointer, history, callbacks

    model, _, history, callbacks = training(tmp_path / "whole")
    fit(model, callbacks, epochs=9)
    rates = [row["learning_rate"] for row in history.rows]
    expected = [0.1, 0.1, 0.1, 0.01, 0.01, 0.001, 0.001, 0.001, 0.0005]
    np.testing.assert_allclose(rates, expected, rtol=1e-5)

    model, _, _, callbacks = training(tmp_path / "parts")
    fit(model, callbacks, epochs=5)  # in the middle of the patience
    model, checkpointer, history, callbacks = training(tmp_path / "parts")
    epoch, _ = checkpointer.resume(model)
    fit(model, callbacks, epochs=9, initial_epoch=epoch)
    rates = [row["learning_rate"] for row in history.rows]
    np.testing.assert_allclose(rates, expected, rtol=1e-5)


@pytest.mark.parametrize("options", [{"factor": 1.0}, {"patience": 0}])
def test_plateau_refuses_what_it_cannot_mean(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        ReduceOnPlateau("val_loss", **options)


def test_a_restarted_best_model_takes_the_next_value(tmp_path):
    path = tmp_path / "model.keras"
    best = BestModel(path, "val_loss")
    fit(build(), [Logs(val_loss=[1.0]), best], epochs=1)
    best.restart()
    fit(build(), [Logs(val_loss=[5.0]), best], epochs=1)
    assert best.best == 5.0


def test_early_stopping_restores_the_weights_that_best_model_wrote(tmp_path):
    path = tmp_path / "model.keras"
    callbacks = [
        Logs(val_loss=[1.0, 2.0, 2.0]),
        BestModel(path, "val_loss"),
        EarlyStopping("val_loss", 2, restore_best=path),
    ]
    model = build(ema=0.5)
    fit(model, callbacks, epochs=3)
    best = keras.saving.load_model(path)
    np.testing.assert_array_equal(model.get_weights()[0], best.get_weights()[0])


def test_guard_reports_the_batch_and_stops_before_anything_is_saved(tmp_path):
    store = CheckpointStore(tmp_path / "checkpoints")
    checkpointer = Checkpointer(store, every_steps=1)
    report = tmp_path / "report.json"
    guard = NonFiniteGuard(
        lambda epoch, step: [f"{epoch}-{step}.jpg"], report, checkpointer
    )
    targets = np.tile(Y, (2, 1))
    targets[16] = np.nan
    options = {"x": np.tile(X, (2, 1)), "y": targets, "steps_per_epoch": 6}
    with pytest.raises(
        NonFiniteLossError, match=r"batch 5 of epoch 1 \(0-4.jpg\)"
    ) as e:
        fit(build(), arrange([checkpointer, guard]), **options)
    assert (e.value.epoch, e.value.step, e.value.files) == (0, 4, ["0-4.jpg"])
    found = json.loads(report.read_text())
    assert found["files"] == ["0-4.jpg"] and found["mean_losses"][-1] == "nan"
    assert found["checkpoint"] == str(store.latest()) and str(store.latest()) in str(
        e.value
    )
    assert store.load().step == 4


def test_history_rows_of_repeated_epochs_are_dropped_and_columns_may_come(tmp_path):
    path = tmp_path / "history.csv"
    history = History(path)
    fit(build(), [Logs(val_map=[0.1, 0.2]), history], epochs=2)
    state = json.loads(json.dumps(history.state()))
    fit(build(), [history], epochs=1)  # epochs after the checkpoint
    again = History(path)
    again.load_state(state)
    fit(build(), [Logs(val_new=[NAN] * 3), again], epochs=3, initial_epoch=2)
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert [row["val_map"] for row in rows] == ["0.1", "0.2", ""]
    assert rows[2]["val_new"] == "nan" and rows[0]["learning_rate"] == "0.100000001"
    assert list(rows[0])[:4] == ["epoch", "phase", "learning_rate", "seconds"]


def test_averages_are_validated_and_saved_while_training_keeps_its_weights(tmp_path):
    store, path = CheckpointStore(tmp_path / "checkpoints"), tmp_path / "model.keras"
    callbacks = [Checkpointer(store), EmaWeights(), BestModel(path, "val_loss")]
    model = build(ema=0.9)
    history = fit(model, arrange(callbacks), epochs=1)
    plain = build()
    fit(plain, [], epochs=1)

    saved = store.load().arrays  # the weights of training, and the averages
    for name, array in model_state(plain).items():
        if name.startswith("model/"):
            np.testing.assert_array_equal(saved[name], array)
    averages = [array for name, array in saved.items() if name.endswith("/average")]
    assert np.abs(averages[0] - plain.get_weights()[0]).max() > 1e-3
    best = keras.saving.load_model(path)
    for found, wanted in zip(best.get_weights(), averages, strict=True):
        np.testing.assert_array_equal(found, wanted)
    score = best.evaluate(X, Y, batch_size=4, verbose=0)
    assert history.history["val_loss"][0] == pytest.approx(score, rel=1e-6)
    # At the end of `fit` Keras puts the averages in, and the model can be used on.
    np.testing.assert_array_equal(model.get_weights()[0], averages[0])
    model.evaluate(X, Y, verbose=0)
    fit(model, arrange([Checkpointer(store)]), epochs=1)


def test_arrange_puts_everything_where_it_belongs(tmp_path):
    checkpointer = Checkpointer(CheckpointStore(tmp_path))
    guard = NonFiniteGuard(lambda *_: [], tmp_path / "r.json", checkpointer)
    own = keras.callbacks.LambdaCallback()
    first, second = BestModel(tmp_path / "a.keras", "loss"), EarlyStopping("loss")
    third = BestModel(tmp_path / "b.keras", "loss")
    ends = [Interrupts(checkpointer), EmaWeights()]
    callbacks = arrange([*ends, checkpointer, first, own, guard, second, third])
    assert [type(c) for c in callbacks] == [
        Progress,
        EmaWeights,
        NonFiniteGuard,
        BestModel,
        keras.callbacks.LambdaCallback,
        EarlyStopping,
        BestModel,
        Checkpointer,
        Interrupts,
    ]
    assert checkpointer.stateful == {
        "BestModel/0": first,
        "EarlyStopping/0": second,
        "BestModel/1": third,
    }
    with pytest.raises(ValueError, match="must have one `Checkpointer`"):
        arrange([own])


@pytest.mark.parametrize("stop", [1, 2, 3, 5, 6, 8])
def test_resume_in_an_epoch_gives_the_same_weights_logs_and_states(tmp_path, stop):
    """Without randomness; with it, in a process of its own, in test_resume.py."""

    def training(folder):
        checkpointer = Checkpointer(CheckpointStore(folder), every_steps=1)
        history = History(tmp_path / "history.csv")
        stopping = EarlyStopping("val_loss", 7)
        best = BestModel(folder / "model.keras", "val_loss")
        callbacks = arrange([checkpointer, history, stopping, best, EmaWeights()])
        return build(ema=0.9), checkpointer, history, callbacks

    def run(model, callbacks, epoch, step):
        order = np.arange(epoch * 3 + step, 9) % 3
        data = {"x": X.reshape(3, 4, 4)[order], "y": Y.reshape(3, 4, 2)[order]}
        data = {
            name: array.reshape(-1, array.shape[-1]) for name, array in data.items()
        }
        fit(model, callbacks, initial_epoch=epoch, steps_per_epoch=3, **data)

    expected, _, history, callbacks = training(tmp_path / "a")
    run(expected, callbacks, 0, 0)
    model, checkpointer, _, callbacks = training(tmp_path / "b")
    with pytest.raises(KeyboardInterrupt):
        run(model, [*callbacks, StopAt(checkpointer.progress, stop)], 0, 0)

    model, checkpointer, resumed, callbacks = training(tmp_path / "b")
    # The last batch of an epoch is saved with the epoch, and a crash comes before that.
    done = stop if stop % 3 else stop - 1
    assert checkpointer.resume(model) == divmod(done, 3)
    run(model, callbacks, *divmod(done, 3))
    for name, array in model_state(expected).items():
        np.testing.assert_array_equal(model_state(model)[name], array)
    drop = lambda rows: [  # noqa: E731
        {k: v for k, v in row.items() if k != "seconds"} for row in rows
    ]
    assert drop(resumed.rows) == drop(history.rows)
    first, second = (CheckpointStore(tmp_path / name).load() for name in "ab")
    assert first.step == second.step == 9
    del first.state["callbacks"]["History/0"], second.state["callbacks"]["History/0"]
    assert first.state == second.state


def test_checkpointer_saves_what_it_is_told_to_and_hands_it_back(tmp_path):
    checkpointer = Checkpointer(
        CheckpointStore(tmp_path, keep=9),
        every_epochs=2,
        extra_state=lambda: {"recipe": "abc"},
    )
    assert checkpointer.resume(build()) == (0, 0)
    fit(build(), arrange([checkpointer]), epochs=5)
    steps = sorted(int(path.name[11:21]) for path in tmp_path.glob("*.npz"))
    assert steps == [6, 12, 15]
    again = Checkpointer(CheckpointStore(tmp_path, keep=9))
    model = build()
    assert again.resume(model) == (5, 0)
    assert again.extra == {"recipe": "abc"} and again.skipped == []
    with pytest.raises(ValueError, match="`initial_epoch=5`"):
        fit(model, arrange([again]), epochs=6)


def test_interrupt_between_batches_saves_and_gives_the_handlers_back(tmp_path):
    checkpointer = Checkpointer(CheckpointStore(tmp_path))
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    kill = keras.callbacks.LambdaCallback(
        on_train_batch_begin=lambda batch, logs: (
            batch == 1 and os.kill(os.getpid(), signal.SIGTERM)
        )
    )
    with (
        pytest.raises(TrainingInterrupted, match=r"SIGTERM.*0002-0.npz") as caught,
        Interrupts(checkpointer) as interrupts,
    ):
        fit(build(), arrange([checkpointer, kill, interrupts]))
    assert caught.value.signal == signal.SIGTERM
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
    assert checkpointer.store.load().state["progress"] == {
        "epoch": 0,
        "step": 2,
        "global_step": 2,
    }


def test_interrupt_in_the_last_batch_waits_for_the_validation(tmp_path):
    checkpointer = Checkpointer(CheckpointStore(tmp_path), every_epochs=7)
    history = History(tmp_path / "history.csv")
    interrupts = Interrupts(checkpointer)
    kill = keras.callbacks.LambdaCallback(
        on_train_batch_begin=lambda batch, logs: (
            batch == 2 and os.kill(os.getpid(), signal.SIGINT)
        )
    )
    with pytest.raises(TrainingInterrupted), interrupts:
        fit(build(), arrange([checkpointer, kill, interrupts, history]))
    assert "val_loss" in history.rows[0]
    assert checkpointer.store.load().state["progress"]["epoch"] == 1


@pytest.mark.parametrize("batches", [1, 3])
def test_interrupt_in_a_long_validation_costs_the_last_batch(
    tmp_path, monkeypatch, batches
):
    monkeypatch.setattr(interrupts_module, "VALIDATION_SECONDS", 0.1)
    checkpointer = Checkpointer(CheckpointStore(tmp_path))
    interrupts, expected = Interrupts(checkpointer), []

    def validate(logs):
        expected.extend((model_state(model), time.monotonic()))
        os.kill(os.getpid(), signal.SIGTERM)
        for _ in range(6000):
            time.sleep(0.01)

    def before(batch, logs):
        if batch == batches - 1:
            expected.append(model_state(model))

    spy = keras.callbacks.LambdaCallback(on_train_batch_begin=before)
    spy.on_test_begin = validate
    model, callbacks = build(), arrange([checkpointer, interrupts, spy])
    with pytest.raises(TrainingInterrupted, match="SIGTERM"), interrupts:
        fit(model, callbacks, x=X[: 4 * batches], y=Y[: 4 * batches])
    before_last, after, asked = expected
    assert time.monotonic() - asked < 10
    saved = checkpointer.store.load()
    assert saved.step == saved.state["progress"]["step"] == batches - 1
    for name, array in before_last.items():
        np.testing.assert_array_equal(saved.arrays[name], array)
    assert any((saved.arrays[name] != array).any() for name, array in after.items())


def test_interrupts_outside_the_main_thread_do_nothing(tmp_path):
    before, errors = signal.getsignal(signal.SIGTERM), []

    def work():
        try:
            with Interrupts(Checkpointer(CheckpointStore(tmp_path))):
                assert signal.getsignal(signal.SIGTERM) is before
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert not errors
