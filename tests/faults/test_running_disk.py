"""A disk that fills up in mid-run, or under an export: a real one, of a few MB."""

import shutil
import subprocess

import pytest
from programs import finish, start_program

pytestmark = pytest.mark.faults

MAIN = """
import sys
from visionkit.tasks.__main__ import main
sys.exit(main(sys.argv[1:]))
"""
# After the first epoch, and its best model, nothing fits any more.
FILLED = """
import os, sys
from visionkit.tasks.__main__ import main
from visionkit.training.resume import Progress
done = Progress.on_train_batch_end
def on_train_batch_end(self, batch, logs=None):
    done(self, batch, logs)
    if self.global_step == 8:
        fill()
def fill():
    with open("fill", "wb", buffering=0) as file:
        for size in (65536, 1):
            try:
                while file.write(bytes(size)):
                    pass
            except OSError:
                continue
Progress.on_train_batch_end = on_train_batch_end
if sys.argv[1] == "export":
    fill()
sys.exit(main(sys.argv[1:]))
"""
RECIPE = ["digits_lenet5", "train.epochs=3", "data.batch_size=256"]  # 5 steps an epoch


@pytest.fixture
def disk(tmp_path):
    """A file system of 12 MB; mounting one needs to be root."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=12m", "none", str(folder)]
    if shutil.which("mount") is None or subprocess.run(command).returncode:
        pytest.skip("no file system can be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("tensorboard", ["false", "true"])
def test_a_full_disk_stops_the_run_and_leaves_what_was_there(disk, tensorboard):
    arguments = [*RECIPE, f"train.tensorboard={tensorboard}", "--out", "run"]
    process = start_program(disk, FILLED, "train", *arguments)
    _, errors = finish(process, 1)
    assert "No space" in errors and "data_report" not in errors
    files = [path.name for path in (disk / "run/checkpoints").iterdir()]
    assert sorted(files) == [
        "checkpoint-0000000005-0.json",
        "checkpoint-0000000005-0.npz",
    ]
    assert not [path for path in disk.rglob(".*") if path.name != ".lock"]
    (disk / "fill").unlink()
    output, _ = finish(start_program(disk, MAIN, "train", "run", "--resume"))
    assert "in epoch 2, after 0 steps" in output

    base = disk / "saved_models" / "digits"
    _, errors = finish(start_program(disk, FILLED, "export", "run", "--out", base), 1)
    assert "o space" in errors
    assert not base.exists() or not list(base.iterdir())
    (disk / "fill").unlink()
    finish(start_program(disk, MAIN, "export", "run", "--out", base, "--no-gate"))
