"""Trainings that are killed, stopped and starved, each in a process of its own."""

import hashlib
import json
import random
import signal
import subprocess
import sys
import textwrap
import time

import pytest
from programs import finish, start_program

pytestmark = pytest.mark.faults

TINY = {
    "classification": [
        "digits_lenet5",
        *("model.dropout=0.3", "train.ema=0.9", "data.batch_size=256"),
    ],
    "detection": [
        "digits_yolo_n",
        *("model.image_size=[64, 96]", "data.train.num_scenes=20"),
        *("data.validation.num_scenes=4", "data.batch_size=4"),
    ],
    "semantic_segmentation": [
        "digits_unet",
        *("model.image_size=[64, 96]", "data.train.num_scenes=20"),
        *("data.validation.num_scenes=4", "data.batch_size=4"),
    ],
    "instance_segmentation": [
        "digits_mask_rcnn",
        *("model.image_size=[64, 96]", "data.train.num_scenes=20"),
        *("data.validation.num_scenes=4", "data.batch_size=4"),
        *("model.rpn.num_proposals=16", "model.roi.num_samples=8"),
    ],
}
COMMON = ["train.tensorboard=false", "train.deterministic=true"]

# The command line, where `PROBE` has been at the callbacks before.
PROGRAM = """
import os, signal, sys, time
from visionkit.tasks.__main__ import main
from visionkit.training.resume import Progress
done = Progress.on_train_batch_end
def on_train_batch_end(self, batch, logs=None):
    done(self, batch, logs)
    at(self.global_step)
Progress.on_train_batch_end = on_train_batch_end
{probe}
sys.exit(main(sys.argv[1:]))
"""
SAY = """
def at(step):
    os.write(1, b"step %d\\n" % step)
    time.sleep(0.02)
"""


def start(folder, *arguments, probe="def at(step): pass"):
    code = PROGRAM.format(probe=textwrap.dedent(probe))
    return start_program(folder, code, "train", *arguments)


def steps(process, until=1):
    """The first step that the process says, once it has said `until` of them."""
    said = []
    for line in process.stdout:
        if line.startswith("step "):
            said.append(int(line.split()[1]))
        if len(said) == until:
            return said[0]
    pytest.fail(process.stderr.read())


def last_said(output, default):
    lines = [line.split() for line in output.splitlines() if line.startswith("step ")]
    said = [int(words[1]) for words in lines]
    return said[-1] if said else default


def states(folder):
    """Name -> contents of the last checkpoint's arrays, and its file's name."""
    from visionkit.training.checkpoint import CheckpointStore

    loaded = CheckpointStore(folder / "checkpoints").load()
    assert not loaded.skipped
    return loaded.step, {
        name: hashlib.sha256(array.tobytes()).hexdigest()
        for name, array in loaded.arrays.items()
    }


def test_eight_kills_at_random_lose_no_more_than_the_steps_between_checkpoints(
    tmp_path, capsys
):
    every, seed = 5, random.randrange(10**6)
    rng, last, lost = random.Random(seed), 0, []
    options = [f"train.checkpoint_steps={every}", "train.epochs=30", *COMMON]
    arguments = [*TINY["classification"], *options, "--out", "run"]
    for kill in range(8):
        process = start(tmp_path, *arguments, probe=SAY)
        if kill:
            first = steps(process)
            lost.append(last - (first - 1))
            assert 0 <= lost[-1] <= every, (seed, kill, lost)
            last = first
        else:
            steps(process, until=every + 1)
        time.sleep(rng.uniform(0, 1.5))
        process.kill()
        output, errors = process.communicate(timeout=60)
        assert process.returncode == -signal.SIGKILL, (seed, kill, errors)
        last = last_said(output, last)
        if kill == 0:
            arguments = ["run", "--resume"]
        (tmp_path / "run/checkpoints/.checkpoint-x.tmp.npz").write_bytes(b"half")
    process = start(tmp_path, *arguments, probe=SAY)
    lost.append(last - (steps(process) - 1))
    assert 0 <= lost[-1] <= every, (seed, lost)
    assert not list((tmp_path / "run/checkpoints").glob(".*"))
    process.terminate()
    finish(process, 143)
    with capsys.disabled():
        print(f"\n8 kills (seed {seed}), steps lost: {lost}", flush=True)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_run_within_ten_seconds(tmp_path, number, capsys):
    process = start(
        tmp_path, *TINY["classification"], *COMMON, "--out", "run", probe=SAY
    )
    steps(process, until=3)
    asked = time.monotonic()
    process.send_signal(number)
    output, errors = finish(process, 128 + number, timeout=30)
    seconds = time.monotonic() - asked
    assert seconds < 10 and "can be resumed from" in errors
    step, _ = states(tmp_path / "run")
    assert step == last_said(output, step)
    left = {path.name for path in tmp_path.rglob(".*") if path.is_file()}
    assert left == {".lock"} and not (tmp_path / "run" / ".lock").read_text()
    with capsys.disabled():
        print(f"\nsignal {number}: {seconds:.2f} s", flush=True)


BREAK = """
count = [0]
def at(step):
    count[0] += 1
    if step == 7:
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("task", TINY)
def test_a_killed_and_resumed_run_of_each_task_ends_with_the_same_bits(tmp_path, task):
    """7 of 10 steps are done (5 an epoch); the checkpoint is of the 6th."""
    options = ["train.epochs=2", "train.checkpoint_steps=3", *COMMON]
    finish(start(tmp_path, *TINY[task], *options, "--out", "whole"))
    broken = start(tmp_path, *TINY[task], *options, "--out", "broken", probe=BREAK)
    broken.communicate(timeout=300)
    assert broken.returncode == -signal.SIGKILL
    assert states(tmp_path / "broken")[0] == 6
    output, errors = finish(start(tmp_path, "broken", "--resume"))
    assert "in epoch 2, after 1 steps" in output and "was killed" in errors
    whole, resumed = states(tmp_path / "whole"), states(tmp_path / "broken")
    assert whole == resumed
    scores = [
        json.loads((tmp_path / name / "metrics.json").read_text())
        for name in ("whole", "broken")
    ]
    assert scores[0] == scores[1]


def test_a_second_process_is_refused_and_readers_are_not(tmp_path):
    options = ["train.epochs=40", *COMMON, "--out", "run"]
    first = start(tmp_path, *TINY["classification"], *options, probe=SAY)
    deadline = time.monotonic() + 120
    while not (tmp_path / "run" / "model.keras").is_file():
        assert first.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    second = start(tmp_path, "run", "--resume")
    _, errors = finish(second, 2)
    assert f"process {first.pid} on" in errors and "error: run is being" in errors
    code = (
        "from visionkit.tasks.__main__ import main\n"
        "from PIL import Image\n"
        "Image.new('L', (32, 32)).save('a.png')\n"
        "assert main(['evaluate', 'run']) == 0\n"
        "assert main(['predict', 'run', 'a.png']) == 0\n"
        "assert main(['export', 'run', '--no-gate']) == 0\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, timeout=300)
    assert first.poll() is None
    first.kill()
    first.communicate()
    assert list(tmp_path.glob("saved_models/*/1/saved_model.pb"))


STARVE = """
import resource
from pathlib import Path
from visionkit.training.session import TrainingSession
def at(step): pass
fit = TrainingSession.fit
def starved(self, *args):
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + 2**30
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    return fit(self, *args)
TrainingSession.fit = starved
"""


def test_too_large_a_batch_names_batch_and_image_size(tmp_path):
    """What each convolution makes of 64 images takes 1.3 GB, and gets 1."""
    size = ["model.image_size=[512, 640]", "data.validation.num_scenes=2"]
    few = ["data.train.num_scenes=4", "train.epochs=1"]
    arguments = ["digits_unet", *size, *COMMON, *few]
    finish(start(tmp_path, *arguments, "data.batch_size=2", "--out", "run"))
    before = states(tmp_path / "run")
    larger = ["--resume", "--force", "data.batch_size=64", "train.epochs=2"]
    _, errors = finish(start(tmp_path, "run", *larger, probe=STARVE), 1)
    assert "batches of 64 images of 512x640 pixels" in errors
    assert states(tmp_path / "run") == before
