"""A run survives being killed: what it ends with is what it would have ended with."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

OVERRIDES = [
    "train.epochs=3",
    "train.deterministic=true",
    "train.checkpoint_steps=7",
    "train.tensorboard=false",
    "train.ema=0.9",
    "model.dropout=0.3",
    "augment=[{crop: {scale: [0.7, 1.0]}}, {color: {brightness: 0.3}}, {erase: {}}]",
]


def start(folder, *arguments):
    command = [sys.executable, "-m", "visionkit.tasks", "train", *arguments]
    return subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def finish(process):
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output.decode()


def wait_for_checkpoint(folder, step, process):
    deadline = time.monotonic() + 120
    while not list(folder.glob(f"checkpoints/checkpoint-*{step}-*.json")):
        assert process.poll() is None, process.stdout.read().decode()
        assert time.monotonic() < deadline, "no checkpoint in two minutes"
        time.sleep(0.01)


def last_arrays(run):
    file = sorted(run.glob("checkpoints/*.npz"))[-1]
    with np.load(file, allow_pickle=False) as arrays:
        return file.name.split("-")[1], {k: arrays[k] for k in arrays}


def test_a_run_killed_and_stopped_and_resumed_ends_with_the_same_bits(tmp_path):
    # 22 steps an epoch; dropout, shuffling, augmentation and averages all draw or add.
    finish(start(tmp_path, "digits_lenet5", *OVERRIDES, "--out", "whole"))

    killed = start(tmp_path, "digits_lenet5", *OVERRIDES, "--out", "broken")
    wait_for_checkpoint(tmp_path / "broken", "07", killed)
    killed.kill()
    killed.communicate()

    stopped = start(tmp_path, "broken", "--resume")
    wait_for_checkpoint(tmp_path / "broken", "28", stopped)
    stopped.send_signal(signal.SIGTERM)
    output, _ = stopped.communicate(timeout=120)
    assert stopped.returncode == 128 + signal.SIGTERM, output.decode()
    assert b"can be resumed" in output and b"Traceback" not in output
    assert not list((tmp_path / "broken" / "checkpoints").glob(".*"))

    finish(start(tmp_path, "broken", "--resume"))
    (step_a, a), (step_b, b) = map(
        last_arrays, (tmp_path / "whole", tmp_path / "broken")
    )
    assert step_a == step_b and a.keys() == b.keys()
    different = [
        k for k in a if k.startswith(("model", "optimizer")) and (a[k] != b[k]).any()
    ]
    assert not different
    scores = [
        json.loads((tmp_path / name / "metrics.json").read_text())["accuracy"]
        for name in ("whole", "broken")
    ]
    assert scores[0] == scores[1]


def test_a_full_disk_leaves_the_last_checkpoint(tmp_path):
    """A file-size limit stands in for the full disk: the write fails midway."""
    pytest.importorskip("resource")
    code = (
        "import resource, signal, sys\n"
        "from visionkit.tasks.__main__ import main\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "import visionkit.training.checkpoint as c\n"
        "save, calls = c.CheckpointStore.save, []\n"
        "def limited(self, *a):\n"
        "    calls.append(1)\n"
        "    if len(calls) == 2:\n"
        "        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))\n"
        "    return save(self, *a)\n"
        "c.CheckpointStore.save = limited\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    arguments = ["train", "digits_lenet5", "train.epochs=2", "train.tensorboard=false"]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments, "--out", "run"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "checkpoints" in done.stderr and "error: " in done.stderr
    names = sorted(os.listdir(tmp_path / "run" / "checkpoints"))
    assert [n.rpartition(".")[2] for n in names] == ["json", "npz"]
    finish(start(tmp_path, "run", "--resume"))


def test_a_loss_that_is_no_number_stops_and_names_the_files(tmp_path):
    arguments = ["digits_lenet5", "train.optimizer=sgd", "train.learning_rate=1e30"]
    process = start(tmp_path, *arguments, "train.schedule=constant", "--out", "run")
    output, _ = process.communicate(timeout=120)
    text = output.decode()
    assert process.returncode == 3 and "Traceback" not in text
    assert "The loss is" in text and "digits[" in text
    report = json.loads((tmp_path / "run" / "non_finite.json").read_text())
    assert len(report["files"]) == 64 and report["epoch"] == 1
