"""Models need no TensorFlow: the JAX backend, where it cannot be imported."""

import os
import subprocess
import sys

import pytest

CODE = """
import sys
sys.modules["tensorflow"] = None
import keras, numpy as np
import visionkit as vk
from visionkit.losses.classification import SigmoidFocal
from visionkit.data.arrays import ArrayDataset, load_images

keras.utils.set_random_seed(0)
train = vk.build_source("digits", split="train")
validation = vk.build_source("digits", split="validation")
preprocessing = vk.Preprocessing((32, 32), "stretch", 1)
x, y = load_images(train, preprocessing).images, train.labels()
x_val, y_val = load_images(validation, preprocessing).images, validation.labels()
model = vk.ImageClassifier(
    vk.build_backbone("lenet5", (32, 32), channels=1), 10, top="paper",
    preprocessing=preprocessing, dropout=0.1,
)
model.compile(keras.optimizers.AdamW(2e-3))
model.fit(ArrayDataset(x, y, 64, shuffle=True), epochs=6, verbose=0)
model.fit(x, y, batch_size=64, epochs=1, verbose=0)
scores = model.evaluate(x_val, y_val, verbose=0, return_dict=True)
assert scores["accuracy"] > 0.85, scores
answers = model.predict(x_val, verbose=0)
assert (answers["labels"] == y_val).mean() > 0.85
model.save(sys.argv[1])
again = vk.load(sys.argv[1])
same = again.predict(x_val, verbose=0)["probabilities"]
np.testing.assert_allclose(same, answers["probabilities"], atol=1e-5)
again.fit(x[:64], y[:64], verbose=0)
soft = np.eye(10, dtype="float32")[y[:256]] * 0.7 + 0.03
again.fit(x[:256], soft, verbose=0)
many = vk.ImageClassifier(
    vk.build_backbone("lenet5", (32, 32), channels=1), 10, multi_label=True
)
many.compile(loss=SigmoidFocal(class_weights=[1.0] * 10))
history = many.fit(x[:256], np.eye(10, dtype="float32")[y[:256]], verbose=0).history
assert set(history) == {"loss", "auc", "pr_auc"} and np.isfinite(history["loss"]).all()
assert keras.backend.backend() == "jax"
print("done", scores["accuracy"])
"""


def test_build_fit_evaluate_predict_save_load_on_jax_without_tensorflow(tmp_path):
    pytest.importorskip("jax")
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(tmp_path / "model.keras")],
        env={**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0 and "done" in done.stdout, done.stderr
