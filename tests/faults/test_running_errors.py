"""Errors in the data, in a worker or in a callback: an end in mid-run, never a hang."""

import json
import time

import numpy as np
import pytest
from PIL import Image
from programs import finish, start_program

pytestmark = pytest.mark.faults

PROGRAM = """
import os, signal, sys
from visionkit.tasks.__main__ import main
from visionkit.training.resume import Progress
done = Progress.on_train_batch_end
def on_train_batch_end(self, batch, logs=None):
    done(self, batch, logs)
    os.write(1, b"step\\n")
    at(self.global_step)
Progress.on_train_batch_end = on_train_batch_end
{probe}
sys.exit(main(sys.argv[1:]))
"""
NOTHING = "def at(step): pass"
KILL_WORKERS = """
from pathlib import Path
def at(step):
    if step != 3:
        return
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(bytes(1))
            parent = (folder / "stat").read_text().rsplit(") ", 1)[1].split()[1]
        except OSError:
            continue
        if b"visionkit.data.worker" in words and int(parent) == os.getpid():
            os.kill(int(folder.name), signal.SIGKILL)
"""
RAISE = """
def at(step):
    if step == 3:
        raise KeyError("a mistake in a callback")
"""


@pytest.fixture
def recipe(tmp_path):
    """A function that writes a recipe for noise of two classes, 8 batches an epoch."""
    rng = np.random.default_rng(0)
    for shade, name in enumerate(("dark", "light")):
        (tmp_path / "images" / name).mkdir(parents=True)
        for i in range(40):
            pixels = rng.integers(0, 128, (40, 40, 3), np.uint8) + 127 * shade
            Image.fromarray(np.uint8(pixels)).save(
                tmp_path / "images" / name / f"{i}.png"
            )

    def write(augment=(), epochs=3):
        data = {"source": "image_folder", "root": "images", "batch_size": 8}
        train = {"epochs": epochs, "checkpoint_steps": 2, "tensorboard": False}
        text = {
            "task": "classification",
            "model": {"backbone": "lenet5", "image_size": [32, 32]},
            "data": data,
            "augment": list(augment),
            "train": train,
        }
        (tmp_path / "recipe.json").write_text(json.dumps(text))

    return write


def train(folder, probe=NOTHING):
    code = PROGRAM.format(probe=probe)
    return start_program(folder, code, "train", "recipe.json", "--out", "run")


def seconds_to_the_end(process, step, status):
    """Seconds from a step to the end, and what was said on stderr."""
    for _ in range(step):
        while process.stdout.readline() not in ("step\n", ""):
            pass
    start = time.monotonic()
    _, errors = process.communicate(timeout=120)
    assert process.returncode == status, errors
    return time.monotonic() - start, errors


def test_a_transform_that_fails_names_itself_and_the_file(recipe, tmp_path):
    recipe([{"RandomCrop": {"height": 30, "width": 30, "p": 1.0}}, "flip"])
    small = Image.new("RGB", (20, 20))
    for i in range(3):
        small.save(tmp_path / f"images/dark/small{i}.png")
    _, errors = finish(train(tmp_path), 1)
    assert "albumentations' RandomCrop failed on " in errors
    assert "dark/small" in errors and len(errors) < 2000


def test_too_many_broken_files_name_them(recipe, tmp_path):
    """Broken where only decoding notices."""
    recipe()
    for i in range(20):
        path = tmp_path / f"images/dark/{i}.png"
        data = bytearray(path.read_bytes())
        data[300:400] = bytes(100)
        path.write_bytes(data)
    _, errors = finish(train(tmp_path), 1)
    assert "max_bad" in errors and "dark/" in errors and "image.corrupt" in errors
    assert "{{" not in errors and "Op:" not in errors


def test_killed_workers_are_replaced_and_told(recipe, tmp_path):
    # Long enough that not all samples lie ready when the workers die.
    recipe([{"GaussNoise": {"p": 1.0}}, "flip"], epochs=15)
    _, errors = finish(train(tmp_path, KILL_WORKERS))
    assert "was ended by signal 9; it is replaced" in errors
    assert (tmp_path / "run" / "metrics.json").is_file()


def test_an_error_in_a_callback_ends_the_run_at_once(recipe, tmp_path):
    recipe([{"GaussNoise": {"p": 1.0}}, "flip"])  # with workers and threads to end
    seconds, errors = seconds_to_the_end(train(tmp_path, RAISE), step=3, status=1)
    assert seconds < 60 and "a mistake in a callback" in errors
    assert 'File "<string>"' in errors  # where it was raised
    assert (tmp_path / "run" / ".lock").read_text() == ""
    resumed = start_program(
        tmp_path, PROGRAM.format(probe=NOTHING), "train", "run", "--resume"
    )
    output, _ = finish(resumed)
    assert "in epoch 1, after 2 steps" in output
