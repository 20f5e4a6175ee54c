"""A training that is stopped, killed and resumed ends bit for bit as if it never was.

Each process starts anew, as in life. Dropout, data drawn by (epoch, step), moments,
accumulated gradients, averages and the schedule all have to go on.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

TRAINING = """
import hashlib, sys, time
import keras, numpy as np, tensorflow as tf
from visionkit.training import callbacks as vk
from visionkit.training.checkpoint import CheckpointStore
from visionkit.training.optimizers import build_optimizer
from visionkit.training.schedules import build_schedule
from visionkit.training.state import model_state

STEPS, EPOCHS = 5, 4

def build():
    keras.utils.set_random_seed(1)
    layers = keras.layers
    model = keras.Sequential([
        keras.Input((6, 4, 3)), layers.Conv2D(4, 3), layers.BatchNormalization(),
        layers.ReLU(), layers.Flatten(), layers.Dropout(0.3), layers.Dense(3)])
    schedule = build_schedule({"cosine": {"warmup_steps": 3}}, 0.05,
                              steps_per_epoch=STEPS, epochs=EPOCHS)
    optimizer = build_optimizer("adamw", learning_rate=schedule, weight_decay=0.01,
                                clip_norm=1.0, accumulation_steps=2, ema=0.9)
    model.compile(optimizer, "mse")
    return model

def batch(i):  # a pure function of (epoch, step)
    seed = tf.stack([i, tf.constant(7, tf.int64)])
    x = tf.random.stateless_normal((8, 6, 4, 3), seed)
    return x, tf.reduce_mean(x, axis=(1, 2))

def train(folder, pause):
    model = build()
    checkpointer = vk.Checkpointer(CheckpointStore(folder), every_steps=2)
    interrupts = vk.Interrupts(checkpointer)
    slow = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: (
            print("batch", flush=True), time.sleep(pause)))
    callbacks = vk.arrange([checkpointer, interrupts, vk.EmaWeights(), slow,
                            vk.EarlyStopping("val_loss", 99)])
    epoch, step = checkpointer.resume(model)
    print("start", epoch, step, checkpointer.skipped, flush=True)
    data = tf.data.Dataset.range(epoch * STEPS + step, 10**9).map(batch)
    validation = tf.data.Dataset.range(10**9, 10**9 + 2).map(batch)
    with interrupts:
        model.fit(data, initial_epoch=epoch, epochs=EPOCHS, steps_per_epoch=STEPS,
                  validation_data=validation, callbacks=callbacks, verbose=0,
                  shuffle=False)
    state = CheckpointStore(folder).load()
    digest = hashlib.sha256()
    for arrays in (model_state(model), state.arrays):
        for name, array in arrays.items():
            digest.update(name.encode() + array.tobytes())
    digest.update(repr(state.state).encode())
    return digest.hexdigest()

tf.config.experimental.enable_op_determinism()
try:
    print("end", train(sys.argv[1], float(sys.argv[2])), flush=True)
    if len(sys.argv) > 3:
        print("whole", train(sys.argv[3], 0.0), flush=True)
except vk.TrainingInterrupted as stop:
    print(stop)
    sys.exit(128 + stop.signal)
"""


def start(folder, pause, *more):
    return subprocess.Popen(
        [sys.executable, "-c", TRAINING, str(folder), str(pause), *map(str, more)],
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_BACKEND": "tensorflow"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def batches(process, count):
    """Wait for so many more batches; the first line tells where training began."""
    first = process.stdout.readline().split(maxsplit=3)
    for _ in range(count):
        assert process.stdout.readline() == "batch\n", process.stderr.read()
    return int(first[1]), int(first[2]), first[3].strip()


def test_sigterm_then_kill_then_resume_equals_the_uninterrupted_training(tmp_path):
    folder = tmp_path / "run"
    stopped = start(folder, 0.2)
    assert batches(stopped, 7) == (0, 0, "[]")  # within the second epoch
    stopped.send_signal(signal.SIGTERM)
    asked = time.monotonic()
    output, errors = stopped.communicate(timeout=60)
    assert stopped.returncode == 128 + signal.SIGTERM, errors
    assert "Stopped by SIGTERM" in output and time.monotonic() - asked < 10

    killed = start(folder, 0.2)
    epoch, step, skipped = batches(killed, 5)
    assert (epoch, skipped) == (1, "[]") and 2 <= step <= 4
    killed.kill()
    killed.communicate(timeout=60)
    assert killed.returncode == -signal.SIGKILL

    # What a crash in the middle of a save would leave, and a newest one that is broken.
    (folder / ".checkpoint-x.tmp.npz").write_bytes(b"half")
    newest = max(folder.glob("*.npz"))
    newest.write_bytes(newest.read_bytes()[:-100])

    resumed = start(folder, 0.0, tmp_path / "whole")
    output, errors = resumed.communicate(timeout=120)
    assert resumed.returncode == 0, errors
    found = dict(line.split(maxsplit=1) for line in output.splitlines() if " " in line)
    assert newest.name in output.splitlines()[0]
    assert found["end"] == found["whole"]
    assert not list(folder.glob(".*"))
