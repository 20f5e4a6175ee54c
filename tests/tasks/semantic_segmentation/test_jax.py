"""Segmenters on JAX, where TensorFlow cannot be imported: the losses are the same."""

import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from contracts import drawn_masks
from dense_cases import tiny_backbone

import visionkit as vk
from visionkit.backbones.unet import MirrorBorder

SIZE = (37, 50)

CODE = """
import json, sys
sys.modules["tensorflow"] = None
import keras, numpy as np
import visionkit as vk
from visionkit.backbones.unet import MirrorBorder

assert keras.backend.backend() == "jax"
data = np.load(sys.argv[1] + "/batch.npz")
images, masks = data["images"], data["masks"]
losses = {}
for name in sys.argv[2:]:
    model = vk.load(f"{sys.argv[1]}/{name}.keras")
    losses[name] = [float(model.train_on_batch(images, masks)[0]) for _ in range(2)]
    model.save(f"{sys.argv[1]}/{name}_again.keras")
answers = model.postprocess(keras.ops.convert_to_tensor(data["logits"]))
np.testing.assert_array_equal(answers["segmentation"], data["logits"].argmax(-1))
border = MirrorBorder(depth=2)(images)
np.testing.assert_array_equal(border, data["border"])
print("losses", json.dumps(losses))
"""


def tiny_models():
    def backbone(*levels):
        return tiny_backbone(SIZE, levels)

    yield "fcn", vk.FCN(backbone(3, 4, 5), 3, dropout=0.0)
    yield "unet", vk.UNet(backbone(1, 2), 3)
    options = {"head_channels": 8, "dropout": 0.0}
    yield "deeplab_v3_plus", vk.DeepLabV3Plus(backbone(2, 4), 3, **options)


@pytest.mark.slow  # JAX compiles three nets; the losses' own test stands for it
def test_losses_of_two_steps_are_those_of_tensorflow(tmp_path):
    pytest.importorskip("jax")
    keras.utils.set_random_seed(0)
    images, masks = drawn_masks(SIZE)
    border = MirrorBorder(depth=2)(images)
    logits = np.random.default_rng(0).normal(size=(1, 3, 5, 4)).astype("float32")
    np.savez(
        tmp_path / "batch.npz", images=images, masks=masks, border=border, logits=logits
    )
    expected = {}
    for name, model in tiny_models():
        model.compile(keras.optimizers.SGD(1e-2))
        model.save(tmp_path / f"{name}.keras")
        steps = [model.train_on_batch(images, masks) for _ in range(2)]
        expected[name] = [float(step[0]) for step in steps]
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(tmp_path), *expected],
        env={**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.rpartition("losses ")[2])
    for name, losses in expected.items():
        np.testing.assert_allclose(found[name], losses, rtol=1e-3)
        assert losses[1] != losses[0]
