"""Runs that are resumed after something has changed, in one process."""

import csv
import hashlib
import os
import shutil
import time

import numpy as np
import pytest
from PIL import Image

import visionkit as vk
from visionkit.training.checkpoint import CheckpointError
from visionkit.training.failures import FolderGoneError
from visionkit.training.recipe_files import RecipeError
from visionkit.training.resume import Checkpointer

pytestmark = pytest.mark.faults


@pytest.fixture
def recipe(tmp_path):
    """A classifier of two classes of pictures; an epoch is 4 batches."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 8), ("validation", 4)):
        for shade, name in enumerate(("dark", "light")):
            folder = tmp_path / "images" / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 128, (32, 32, 3), np.uint8) + 127 * shade
                Image.fromarray(np.uint8(pixels)).save(folder / f"{i}.png")
    return {
        "name": "shades",
        "task": "classification",
        "model": {"backbone": "lenet5", "image_size": [32, 32]},
        "data": {
            "source": "image_folder",
            "root": str(tmp_path / "images"),
            "train": {"split": "train"},
            "validation": {"split": "validation"},
            "batch_size": 4,
        },
        "train": {"epochs": 1, "checkpoint_steps": 2, "tensorboard": False},
    }


def train(recipe, folder, *overrides, **options):
    return vk.run(recipe, out=folder, overrides=overrides, verbose=0, **options)


def rows(folder):
    with (folder / "history.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def contents(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def test_another_recipe_or_other_data_are_refused_and_can_be_insisted_on(
    recipe, tmp_path
):
    run, images = tmp_path / "run", tmp_path / "images"
    train(recipe, run)
    more = "train.epochs=2", "train.learning_rate=0.25"
    before = contents(run)
    with pytest.raises(RecipeError, match=r"(?s)0\.001, now 0\.25.*--force"):
        train(recipe, run, *more, resume=True)
    with pytest.raises(RecipeError, match=r"model\.backbone needs a new run"):
        train(recipe, run, "model.backbone=resnet18", resume=True, force=True)
    assert contents(run) == before
    train(recipe, run, *more, resume=True, force=True)
    assert [float(row["learning_rate"]) for row in rows(run)] == [
        pytest.approx(0.001),
        0.25,
    ]

    (images / "train" / "dark" / "3.png").unlink()
    shutil.copy(images / "train/dark/0.png", images / "validation" / "dark" / "9.png")
    more = "train.epochs=3", more[1]
    with pytest.raises(
        RecipeError, match=r"(?s)dark/3.png. gone.*dark/9.png. new.*--f"
    ):
        train(recipe, run, *more, resume=True)
    (run / "model.keras").write_bytes(b"of other data")
    done = train(recipe, run, *more, resume=True, force=True)
    assert len(rows(run)) == 3 and done.metrics["used"] == 9  # and a best model anew
    train(recipe, run, "train.epochs=4", more[1], resume=True)


def test_corrupt_checkpoints_are_passed_over_and_never_mean_a_fresh_start(
    recipe, tmp_path, capsys
):
    run = tmp_path / "run"
    train(recipe, run)
    newest = max(run.glob("checkpoints/*.npz"))
    newest.write_bytes(newest.read_bytes()[:-50])
    vk.run(run, resume=True, verbose=2)
    said = capsys.readouterr().out
    assert newest.name in said.replace("\n", "") and "in epoch 1, after 2 steps" in said
    for path in run.glob("checkpoints/*.npz"):
        path.write_bytes(b"")
    before = contents(run / "checkpoints")
    with pytest.raises(CheckpointError, match=r"No checkpoint in .* can be used"):
        vk.run(run, resume=True, verbose=0)
    assert contents(run / "checkpoints") == before


def test_a_folder_that_vanishes_in_mid_run_is_named(recipe, tmp_path, monkeypatch):
    save = Checkpointer.save

    def vanish(self):
        if self.progress.global_step == 2:
            shutil.rmtree(tmp_path / "run")
        return save(self)

    monkeypatch.setattr(Checkpointer, "save", vanish)
    with pytest.raises(FolderGoneError, match=r"run folder .*run, .* was removed"):
        train(recipe, tmp_path / "run")


def test_a_clock_that_goes_backwards_changes_nothing(recipe, tmp_path, monkeypatch):
    """A day per look at it, from one checkpoint to the next too."""
    now = [time.time()]

    def backwards():
        now[0] -= 86_400
        return now[0]

    monkeypatch.setattr(time, "time", backwards)
    train(recipe, tmp_path / "run")
    for i, path in enumerate(sorted(tmp_path.glob("run/checkpoints/*"))):
        os.utime(path, (1e9 - i, 1e9 - i))
    train(recipe, tmp_path / "run", "train.epochs=2", resume=True)
    found = rows(tmp_path / "run")
    assert [row["epoch"] for row in found] == ["1", "2"]
    assert all(0 < float(row["seconds"]) < 600 for row in found)
