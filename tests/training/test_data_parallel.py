"""Two processes train as one does, and go on after one of them was killed."""

import json
import os
import signal
import socket
import subprocess
import sys

import numpy as np
import pytest

TRAINING = """
import json, os, signal, sys
import numpy as np
import visionkit as vk
from visionkit.training import figures
from visionkit.training.resume import Progress

folder, killed_at, *options = sys.argv[1:]
process = os.environ.get("KERAS_DISTRIBUTION_PROCESS_ID", "0")
figures.draw_data = figures.draw_results = figures.draw_curves = lambda *_: None

def refuse(event, arguments):
    written = event in ("os.mkdir", "os.rename", "os.remove") or (
        event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
    if written and str(arguments[0]).startswith(folder):
        os.write(2, f"process {process} writes {arguments}".encode())
        os._exit(9)

if process != "0":
    sys.addaudithook(refuse)

count = Progress.on_train_batch_end

def count_and_die(self, batch, logs=None):
    count(self, batch, logs)
    if process == "1" and self.global_step == int(killed_at):
        os.kill(os.getpid(), signal.SIGKILL)

Progress.on_train_batch_end = count_and_die
recipe = {
    "task": "classification",
    "model": {"backbone": "lenet5", "image_size": [28, 24], "channels": 1,
              "resize": "stretch", "dropout": 0.3},
    "data": {"source": "digits", "train": {"split": "validation"},
             "validation": {"split": "validation"}, "batch_size": 64},
    "augment": [{"crop": {"scale": [0.7, 1.0]}}],
    "train": {"epochs": 3, "optimizer": "adamw", "learning_rate": 0.01,
              "schedule": {"cosine": {"warmup_epochs": 1}}, "weight_decay": 0.01,
              "ema": 0.8, "checkpoint_steps": 2, "monitor": "val_loss",
              "tensorboard": False},
}
if "KERAS_DISTRIBUTION_PROCESS_ID" in os.environ:
    recipe["train"]["distribute"] = "data_parallel"
done = vk.run(recipe, out=folder, resume="resume" in options, verbose=0)
print(json.dumps(done.history))
if process == "0":
    images = np.random.default_rng(0).integers(0, 256, (4, 28, 24, 1), np.uint8)
    np.savez(f"{folder}/answers.npz", images=images,
             **done.model.predict_on_batch(images))
"""


def start(folder, *options, killed_at=0, processes=1):
    """The processes of one training, started."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {
        **os.environ,
        "KERAS_BACKEND": "jax",
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "",
        "TF_CPP_MIN_LOG_LEVEL": "2",
    }
    if processes > 1:
        environment["KERAS_DISTRIBUTION_JOB_ADDRESSES"] = f"127.0.0.1:{port}"
        environment["KERAS_DISTRIBUTION_NUM_PROCESSES"] = str(processes)
    command = [sys.executable, "-c", TRAINING, str(folder), str(killed_at), *options]
    return [
        subprocess.Popen(
            command,
            env={**environment, "KERAS_DISTRIBUTION_PROCESS_ID": str(i)}
            if processes > 1
            else environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(processes)
    ]


def finish(processes):
    """Their histories, which all must have in the end."""
    outputs = [process.communicate(timeout=900) for process in processes]
    for process, (_, errors) in zip(processes, outputs, strict=True):
        assert process.returncode == 0, errors[-4000:]
    return [json.loads(out.splitlines()[-1]) for out, _ in outputs]


def last_arrays(folder):
    file = sorted(folder.glob("checkpoints/*.npz"))[-1]
    with np.load(file) as arrays:
        return file.name.split("-")[1], {k: arrays[k] for k in arrays if "/" in k}


@pytest.mark.slow  # five processes compile
def test_two_processes_train_as_one_also_when_one_is_killed(tmp_path):
    pytest.importorskip("jax")
    one, two = tmp_path / "one", tmp_path / "two"
    (whole,) = finish(start(one))

    # Batches, dropout, averages and the schedule are all drawn or counted.
    first, second = start(two, killed_at=8, processes=2)
    _, errors = first.communicate(timeout=900)  # ends by itself
    second.communicate()
    assert second.returncode == -signal.SIGKILL
    assert first.returncode not in (0, 9) and "--resume" in errors, errors[-4000:]

    histories = finish(start(two, "resume", processes=2))
    for history in histories:
        for name in ("loss", "accuracy", "val_loss", "val_accuracy", "learning_rate"):
            np.testing.assert_allclose(history[name], whole[name], atol=1e-5)
    (step, arrays), (other_step, others) = last_arrays(one), last_arrays(two)
    assert step == other_step and arrays.keys() == others.keys()
    for name, array in arrays.items():
        np.testing.assert_allclose(others[name], array, atol=1e-5, err_msg=name)
    check_export(two, tmp_path / "saved_models" / "two")


def check_export(run, folder):
    """TensorFlow exports the weights that JAX trained, and answers as JAX did."""
    import tensorflow as tf

    from visionkit.tasks.__main__ import main

    assert main(["export", str(run), "--out", str(folder), "--no-gate"]) == 0
    with np.load(run / "answers.npz") as expected:
        images, probabilities = expected["images"], expected["probabilities"]
    served = tf.saved_model.load(str(folder / "1")).signatures["images"]
    found = served(images=tf.constant(images))["probabilities"]
    np.testing.assert_allclose(found, probabilities, atol=1e-5)
