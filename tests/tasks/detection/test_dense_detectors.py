"""What SSD and RetinaNet share: XLA, learning, saving, precision, JAX, no boxes."""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from contracts import check_task
from dense_cases import drawn_batch, loss_parts, random_outputs, tiny_backbone

from visionkit.tasks.detection.retinanet import RetinaNet
from visionkit.tasks.detection.ssd import SSD

MODELS = {
    "ssd": lambda: SSD(tiny_backbone(), 2),
    "ssdlite": lambda: SSD(tiny_backbone(), 2, lite=True),
    "retinanet": lambda: RetinaNet(
        tiny_backbone(),
        2,
        neck={"channels": 16},
        head={"depth": 2},
        anchors={"sizes": [12, 24, 48, 96, 192]},
    ),
}


@pytest.mark.parametrize(
    "name",
    ["ssd", *(pytest.param(n, marks=pytest.mark.slow) for n in MODELS if n != "ssd")],
)
def test_detector_keeps_the_contract(name, tmp_path):
    check_task(MODELS[name], *drawn_batch(), tmp_path)


@pytest.mark.parametrize("name", ["ssd", "retinanet"])
def test_a_drawn_batch_is_learnt_by_heart(name):
    keras.utils.set_random_seed(0)
    model = MODELS[name]()
    images, target = drawn_batch()
    model.compile(keras.optimizers.Adam(5e-3))
    model.fit(images, target, epochs=80, verbose=0)
    answers = model.predict(images, verbose=0)
    for i, labels in enumerate(target["labels"]):
        surest = slice(0, np.count_nonzero(labels >= 0))
        order = np.argsort(answers["boxes"][i, surest, 0])
        truth = target["boxes"][i, surest]
        expected = np.argsort(truth[:, 0])
        np.testing.assert_array_equal(
            answers["labels"][i, surest][order], labels[surest][expected]
        )
        found = answers["boxes"][i, surest][order]
        np.testing.assert_allclose(found, truth[expected], atol=4)


@pytest.mark.parametrize("name", MODELS)
def test_no_boxes_at_all_is_finite_everywhere(name):
    model = MODELS[name]()
    images, target = drawn_batch(2)
    target["labels"][:] = -1
    model.compile("sgd")
    logs = model.train_on_batch(images, target, return_dict=True)
    assert np.isfinite(list(logs.values())).all()
    assert all(np.isfinite(w).all() for w in model.get_weights())
    one_row = {"boxes": target["boxes"][:, :1], "labels": target["labels"][:, :1]}
    assert np.isfinite(model.test_on_batch(images, one_row)[0])
    for value in model.predict_on_batch(images).values():
        assert np.isfinite(value).all()


def test_boxes_of_one_pixel_and_of_the_whole_image_train():
    for name in ("ssd", "retinanet"):
        model = MODELS[name]()
        target = {
            "boxes": np.array(
                [[[5, 5, 6, 6], [0, 0, 96, 64], [3, 3, 3, 3]]], "float32"
            ),
            "labels": np.array([[0, 1, 1]], "int32"),
        }
        total, parts = loss_parts(model, target, random_outputs(model, 1))
        assert np.isfinite(total) and parts["boxes"] > 0


JAX = """
import sys
sys.modules["tensorflow"] = None
import keras, numpy as np
from dense_cases import loss_parts
from test_dense_detectors import MODELS
data = np.load(sys.argv[1])
target = {"boxes": data["boxes"], "labels": data["labels"]}
for name, make in MODELS.items():
    model = make()
    outputs = {k: data[f"{name}_{k}"] for k in ("classes", "boxes")}
    total, _ = loss_parts(model, target, outputs)
    np.testing.assert_allclose(total, data[f"{name}_loss"], rtol=1e-3)
    answers = model.postprocess(outputs)
    for key, value in answers.items():
        expected = data[f"{name}_answer_{key}"]
        np.testing.assert_allclose(np.asarray(value), expected, atol=1e-2)
model.compile("sgd")
images = np.zeros((4, 64, 96, 3), "uint8")
assert np.isfinite(model.train_on_batch(images, target)[0])
assert keras.backend.backend() == "jax"
print("done")
"""


@pytest.mark.slow
def test_jax_gives_the_same_losses_and_answers_without_tensorflow(tmp_path):
    pytest.importorskip("jax")
    _, target = drawn_batch()
    arrays = dict(target)
    for name, make in MODELS.items():
        model = make()
        outputs = random_outputs(model, 4)
        arrays |= {f"{name}_{k}": v for k, v in outputs.items()}
        arrays[f"{name}_loss"] = loss_parts(model, target, outputs)[0]
        for key, value in model.postprocess(outputs).items():
            arrays[f"{name}_answer_{key}"] = np.asarray(value)
    np.savez(tmp_path / "data.npz", **arrays)
    here = os.path.dirname(__file__)
    paths = [here, os.path.join(here, "..", "..")]
    done = subprocess.run(
        [sys.executable, "-c", JAX, str(tmp_path / "data.npz")],
        env={
            **os.environ,
            "KERAS_BACKEND": "jax",
            "JAX_PLATFORMS": "cpu",
            "PYTHONPATH": os.pathsep.join(paths),
        },
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0 and "done" in done.stdout, done.stderr
