"""Two devices train as one does; what cannot be divided is refused."""

import subprocess
import sys

import keras
import pytest

from visionkit.training.distribution import device_scope
from visionkit.training.recipe import load_recipe
from visionkit.training.recipe_files import RecipeError

TRAINING = """
import functools, sys
import numpy as np
import tensorflow as tf

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(
    cpu, [tf.config.LogicalDeviceConfiguration()] * 2
)
import visionkit as vk
from visionkit.data.devices import mirrored_strategy

import keras
from visionkit.training import figures
from visionkit.training.distribution import device_scope
from visionkit.training.optimizers import build_optimizer

assert mirrored_strategy().num_replicas_in_sync == 2
figures.draw_data = figures.draw_results = lambda *arguments: None

# Coupled decay, which is added to the gradients within the update.
rng = np.random.default_rng(0)
x, y = rng.random((48, 6, 4, 3)).astype("float32"), rng.integers(0, 3, 48)
losses = []
for distribute in ("none", "mirrored"):
    keras.utils.set_random_seed(0)
    with device_scope(distribute, 16):
        images = keras.Input((6, 4, 3))
        features = keras.layers.Conv2D(4, 3, activation="relu")(images)
        model = vk.ImageClassifier(keras.Model(images, {"P1": features}), 3)
        model.compile(build_optimizer(
            "sgd", {"momentum": 0.9}, learning_rate=0.1, weight_decay=0.05))
    fitted = model.fit(x, y, batch_size=16, epochs=6, shuffle=False, verbose=0)
    losses.append(fitted.history["loss"])
np.testing.assert_allclose(*losses, atol=1e-4)
assert losses[0][-1] < losses[0][0] - 0.001

# Losses that sum up themselves. Both devices get the same share of the batch, so that
# they have as many positives.
from visionkit.necks.fpn import FPN
SHARE = rng.integers(0, 256, (2, 32, 32, 3), "uint8")
TRUTH = {
    "UNet": (SHARE[..., 0] > 99).astype(int),
    "RetinaNet": {"boxes": np.array([[[4, 4, 28, 28]], [[0, 8, 16, 30]]], "float32"),
                  "labels": np.array([[0], [1]])},
}
RATES = {"UNet": 1.0, "RetinaNet": 0.01}
for name, truth in TRUTH.items():
    found = []
    for distribute in ("none", "mirrored"):
        keras.utils.set_random_seed(0)
        with device_scope(distribute, 4):
            images = keras.Input((32, 32, 3))
            conv = functools.partial(keras.layers.Conv2D, 4, 3, padding="same")
            levels = {f"P{n}": conv(strides=2**n)(images / 255) for n in (3, 4, 5)}
            backbone = keras.Model(images, levels)
            options = {"width": 4} if name == "UNet" else {
                "neck": FPN(channels=8), "head": {"depth": 1}}
            model = getattr(vk, name)(backbone, 2, **options)
            model.compile(keras.optimizers.SGD(RATES[name]), metrics=[])
        x, y = (keras.tree.map_structure(lambda a: np.concatenate([a, a]), data)
                for data in (SHARE, truth))
        fitted = model.fit(x, y, batch_size=4, epochs=3, shuffle=False, verbose=0)
        found.append(fitted.history)
    for key, values in found[0].items():
        np.testing.assert_allclose(found[1][key], values, rtol=1e-3, err_msg=key)
    first, *_, last = found[0]["loss"]
    assert abs(last - first) > 0.003 * first, found  # there was something to be equal

recipe = {
    "task": "classification",
    "model": {"backbone": "lenet5", "image_size": [28, 24], "channels": 1,
              "resize": "stretch"},
    "data": {"source": "digits", "train": {"split": "validation"},
             "validation": {"split": "validation"}, "batch_size": 64},
    "train": {"epochs": 2, "optimizer": "adamw", "learning_rate": 0.01,
              "weight_decay": 0.01, "ema": 0.8, "clip_norm": 5.0, "loss": "focal",
              "class_weights": "balanced", "monitor": "val_accuracy",
              "tensorboard": False},
}
folder = sys.argv[1]
one = vk.run(recipe, out=f"{folder}/one", verbose=0)
recipe["train"] |= {"distribute": "mirrored", "epochs": 1}
vk.run(recipe, out=f"{folder}/two", verbose=0)
two = vk.run(f"{folder}/two", overrides=["train.epochs=2"], resume=True, verbose=0)
for name in ("loss", "accuracy", "val_loss", "val_accuracy"):  # 359 = 5 * 64 + 39
    np.testing.assert_allclose(two.history[name], one.history[name], atol=1e-4)
assert abs(one.metrics["cross_entropy"] - two.metrics["cross_entropy"]) < 1e-4
print("done")
"""


def test_two_devices_train_as_one_and_resume(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", TRAINING, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.stdout.endswith("done\n"), done.stdout + done.stderr


def test_one_device_needs_no_scope():
    with device_scope("none", 7):
        pass


def test_another_backend_is_refused(monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(RecipeError, match=r"train\.distribute: mirrored.*'jax'"):
        device_scope("mirrored", 64)


def test_a_batch_that_cannot_be_divided_is_refused(monkeypatch):
    from visionkit.data import devices

    class Strategy:
        num_replicas_in_sync = 4

    monkeypatch.setattr(devices, "mirrored_strategy", Strategy)
    with pytest.raises(RecipeError, match=r"batch_size: found 6; .*multiple of the 4"):
        device_scope("mirrored", 6)


def test_accumulation_on_several_devices_is_refused():
    recipe = {
        "task": "classification",
        "model": {"backbone": "lenet5", "image_size": [32, 32]},
        "data": {"source": "digits"},
        "train": {"epochs": 1, "distribute": "mirrored", "accumulation_steps": 2},
    }
    with pytest.raises(RecipeError, match=r"accumulation_steps: found 2"):
        load_recipe(recipe)
