"""Long trainings and many predictions take no more memory, threads or files."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest

import visionkit as vk

# Tells what the process holds, in MiB and numbers; every child below begins with it.
WATCH = """
import gc, json, os, sys
from memory import read_status

def watch():
    gc.collect()
    files = len(os.listdir("/proc/self/fd"))
    held = (read_status("VmRSS") / 1024, read_status("Threads"), files)
    print(json.dumps(held), flush=True)
"""

TRAIN = """
from visionkit.training.callbacks import History
from visionkit.training.run import run

on_epoch_end = History.on_epoch_end

def watched(self, epoch, logs=None):
    on_epoch_end(self, epoch, logs)
    watch()

History.on_epoch_end = watched
changes = ["train.epochs=60", "model.dropout=0.2", "train.tensorboard=false"]
run("digits_lenet5", overrides=changes, out=sys.argv[1], verbose=0)
"""

PREDICT = """
import keras, numpy as np, visionkit as vk

inputs = keras.Input((32, 32, 3), name="images")
features = keras.layers.Conv2D(8, 3, 2)(inputs)
model = vk.ImageClassifier(keras.Model(inputs, {"P1": features}), 3)
rng = np.random.default_rng(0)
for step in range(200):
    # Sizes change from call to call, within a few.
    size = 30 + step % 4
    images = rng.integers(0, 256, (50, size, size + 5, 3), np.uint8)
    assert len(vk.predict(model, images)) == 50
    if step % 4 == 3:
        watch()
"""

LEAK = """
kept = []
for _ in range(60):
    kept.append(bytearray(os.urandom(2**20)))
    kept.append(open(os.devnull))
    watch()
"""


def samples(code: str, *arguments) -> np.ndarray:
    """(N, 3): MiB, threads and open files as a child process tells them."""
    command = [sys.executable, "-c", textwrap.dedent(WATCH + code), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    lines = [line for line in done.stdout.splitlines() if line.startswith("[")]
    return np.array([json.loads(line) for line in lines])


def slope(values: np.ndarray) -> float:
    """MiB per sample, of a straight line through all."""
    return float(np.polyfit(np.arange(len(values)), values, 1)[0])


def assert_flat(held: np.ndarray, limits: dict[tuple[int, int], float]) -> None:
    """No growth: `limits` has the steepest slope allowed from one sample to another."""
    memory, *counts = held.T
    for (start, stop), limit in limits.items():
        found = slope(memory[start:stop])
        assert found < limit, f"{found:.2f} MiB a sample from {start} to {stop}"
    start, stop = min(limits)
    for name, values in zip(("threads", "open files"), counts, strict=True):
        first, second = np.array_split(values[start:stop], 2)
        # Pools come and go by one or two.
        assert np.median(second) <= np.median(first) + 2, f"more and more {name}"


@pytest.fixture(autouse=True)
def the_childs_environment(monkeypatch):
    """Modules of the tests, and few heaps.

    By default glibc gives each of TensorFlow's threads a heap of its own, which fill
    one after another: steps of 4 MiB for some dozens of epochs, then none.
    """
    monkeypatch.setenv("MALLOC_ARENA_MAX", "2")
    folders = [folder for folder in sys.path if folder]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(folders))
    if not sys.platform.startswith("linux"):
        pytest.skip("memory is read from /proc")


@pytest.mark.faults
def test_sixty_epochs_take_no_more_than_twenty(tmp_path):
    held = samples(TRAIN, str(tmp_path / "run"))
    assert len(held) == 60
    print("MiB:", held[[4, 19, 39, 59], 0], "threads, files:", held[-1, 1:])
    print("slopes:", slope(held[20:, 0]), slope(held[40:, 0]))
    assert_flat(held, {(20, 60): 0.5, (40, 60): 0.2})


@pytest.mark.faults
def test_ten_thousand_predictions_take_no_more_than_the_first(tmp_path):
    held = samples(PREDICT)
    assert len(held) == 50
    print("MiB:", held[[4, 19, 49], 0], "threads, files:", held[-1, 1:])
    print("slope:", slope(held[10:, 0]), "MiB per 200")
    assert_flat(held, {(10, 50): 0.1})


def test_a_prediction_leaves_nothing_behind(classifier):
    images = [np.zeros((9, 12 + i, 3), np.uint8) for i in range(3)]

    def objects(calls: int) -> int:
        for _ in range(calls):
            assert all(result.ok for result in vk.predict(classifier, images))
        gc.collect()
        return len(gc.get_objects())

    before = objects(calls=3)  # what is traced and cached is there now
    assert objects(calls=10) - before < 10


def test_the_detector_sees_a_leak(monkeypatch):
    held = samples(LEAK)
    assert 0.9 < slope(held[20:, 0]) < 1.2
    limits = {(20, 60): 0.5, (40, 60): 0.2}
    with pytest.raises(AssertionError, match="MiB a sample from 20 to 60"):
        assert_flat(held, limits)
    files_alone = np.where([True, False, False], 100.0, held)
    with pytest.raises(AssertionError, match="more and more open files"):
        assert_flat(files_alone, limits)
    assert_flat(np.where([True, True, True], held[:1], held), limits)
