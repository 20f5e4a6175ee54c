import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers, ops

from visionkit.backbones import build_backbone
from visionkit.backbones.normalization import ImageNormalization
from visionkit.ops.anchors import AnchorGenerator
from visionkit.tasks.detection.fast_rcnn import FastRCNN
from visionkit.tasks.detection.faster_rcnn import FasterRCNN
from visionkit.tasks.detection.proposals import RPNOptions

SIZE = (64, 96)
SMALL = {
    "neck": {"channels": 24},
    "anchors": {"sizes": [16, 24, 32, 48, 64]},
    "roi": {"num_samples": 32, "units": 48, "output_size": 5},
}
RPN = {"num_proposals": 40, "num_samples": 64}


def tiny_backbone():
    x = images = keras.Input((*SIZE, 3), name="images")
    x = ImageNormalization((127.5,) * 3, (127.5,) * 3)(x)
    levels = {}
    for level in range(1, 6):
        x = layers.Conv2D(12 + 4 * level, 3, 2, "same", use_bias=False)(x)
        x = layers.BatchNormalization(momentum=0.8)(x)
        levels[f"P{level}"] = x = layers.ReLU()(x)
    return keras.Model(images, levels, name="tiny")


def build(**options):
    return FasterRCNN(tiny_backbone(), 2, **{**SMALL, "rpn": RPN, **options})


def numpy(tensor):
    return ops.convert_to_numpy(tensor)


@pytest.fixture(scope="module")
def drawn():
    """Four images of bright and dark rectangles, the last one without any."""
    rng = np.random.default_rng(0)
    images = rng.integers(90, 130, (4, *SIZE, 3)).astype("uint8")
    boxes = np.full((4, 3, 4), np.nan, "float32")
    labels = np.full((4, 3), -1, "int32")
    places = [
        [(6, 8, 46, 32, 0), (52, 20, 90, 56, 1)],
        [(30, 10, 60, 50, 1)],
        [(4, 30, 36, 60, 0), (60, 4, 92, 30, 0), (48, 36, 80, 60, 1)],
        [],
    ]
    for image, rows in enumerate(places):
        for row, (x1, y1, x2, y2, label) in enumerate(rows):
            images[image, y1:y2, x1:x2] = ((250, 60, 40), (10, 60, 200))[label]
            boxes[image, row], labels[image, row] = (x1, y1, x2, y2), label
    return images, {"boxes": boxes, "labels": labels}


@pytest.fixture(scope="module")
def trained(drawn):
    keras.utils.set_random_seed(0)
    model = build()
    model.compile(
        keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(4e-3, 150))
    )
    history = model.fit(*drawn, batch_size=4, epochs=150, verbose=0).history
    return model, history


def test_learns_drawn_images_by_heart(trained, drawn):
    model, history = trained
    assert {"rpn_classes_loss", "rpn_boxes_loss", "classes_loss", "boxes_loss"} < {
        *history
    }
    assert history["loss"][-1] < 0.3 * history["loss"][0]
    images, truth = drawn
    answers = model.predict(images, verbose=0)
    for image in range(4):
        found = answers["scores"][image] > 0.5
        labels = truth["labels"][image]
        expected = truth["boxes"][image][labels >= 0]
        np.testing.assert_array_equal(
            sorted(answers["labels"][image][found]), sorted(labels[labels >= 0])
        )
        for box in expected:
            distance = np.abs(answers["boxes"][image][found] - box).max(axis=1)
            assert distance.min() < 4


def test_fast_rcnn_answers_the_same_on_the_same_proposals(trained, drawn):
    model, _ = trained
    proposals = numpy(model(drawn[0])["proposals"])
    fast = FastRCNN(tiny_backbone(), 2, num_proposals=40, **_without_anchors())
    for part in ("backbone", "neck", "box_head"):
        getattr(fast, part).set_weights(getattr(model, part).get_weights())
    inputs = {"images": drawn[0], "proposals": proposals}
    answers = fast.predict(inputs, verbose=0)
    for name, expected in model.predict(drawn[0], verbose=0).items():
        np.testing.assert_allclose(answers[name], expected, atol=1e-4)


def _without_anchors():
    return {name: value for name, value in SMALL.items() if name != "anchors"}


def test_saved_model_answers_the_same_and_trains_on(trained, drawn, tmp_path):
    model, _ = trained
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert type(again) is FasterRCNN and again.rpn == model.rpn and again.compiled
    answers = again.predict(drawn[0], verbose=0)
    for name, expected in model.predict(drawn[0], verbose=0).items():
        np.testing.assert_allclose(answers[name], expected, atol=1e-4)
    losses = model.test_on_batch(*drawn)
    np.testing.assert_allclose(again.test_on_batch(*drawn), losses, rtol=1e-4)
    assert int(again.optimizer.iterations) == int(model.optimizer.iterations)
    again.fit(*drawn, verbose=0)


def test_fast_rcnn_trains_is_saved_and_takes_no_proposals_at_all(drawn, tmp_path):
    images, truth = drawn
    proposals = np.tile(np.nan_to_num(truth["boxes"]), (1, 4, 1))
    model = FastRCNN(tiny_backbone(), 2, num_proposals=12, **_without_anchors())
    model.compile(keras.optimizers.Adam(2e-3))
    inputs = {"images": images, "proposals": proposals}
    losses = model.fit(inputs, truth, epochs=12, verbose=0).history["loss"]
    assert losses[-1] < losses[0]

    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    answers = model.predict(inputs, verbose=0)
    for name, value in again.predict(inputs, verbose=0).items():
        np.testing.assert_allclose(value, answers[name], atol=1e-4)

    nothing = {"images": images, "proposals": np.zeros_like(proposals)}
    assert (model.predict(nothing, verbose=0)["num_detections"] == 0).all()
    assert np.isfinite(model.train_on_batch(nothing, _no_truth(truth))).all()
    assert all(np.isfinite(weight).all() for weight in model.get_weights())


def _no_truth(truth):
    return {"boxes": truth["boxes"], "labels": np.full_like(truth["labels"], -1)}


def test_images_without_objects_train_to_finite_weights(trained, drawn):
    model, _ = trained
    before = model.get_weights()
    logs = model.train_on_batch(drawn[0], _no_truth(drawn[1]), return_dict=True)
    assert np.isfinite(list(logs.values())).all()
    assert all(np.isfinite(weight).all() for weight in model.get_weights())
    model.set_weights(before)


def test_every_weight_learns_in_one_pass_through_the_backbone(drawn, monkeypatch):
    keras.utils.set_random_seed(0)
    model = build()
    model.compile(keras.optimizers.SGD(1.0), run_eagerly=True)
    calls = []
    call = type(model.backbone).call
    monkeypatch.setattr(
        type(model.backbone),
        "call",
        lambda self, *args, **kwargs: (
            calls.append(self.name),
            call(self, *args, **kwargs),
        )[1],
    )
    before = [numpy(weight) for weight in model.trainable_variables]
    model.train_on_batch(*drawn)
    assert calls.count("tiny") == 1
    for old, new in zip(before, model.trainable_variables, strict=True):
        assert (old != numpy(new)).any(), new.path


def test_evaluation_draws_the_same_regions_every_time(trained, drawn):
    losses = [trained[0].test_on_batch(*drawn) for _ in range(2)]
    np.testing.assert_array_equal(*losses)


def test_half_precision_ends_in_float32(drawn):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = build()
    finally:
        keras.config.set_dtype_policy("float32")
    model.compile(keras.optimizers.SGD(1e-3))
    assert np.isfinite(model.train_on_batch(*drawn)).all()
    for name, value in model(drawn[0]).items():
        features = name in model.levels
        dtype = "bfloat16" if features else "float32"
        assert keras.backend.standardize_dtype(value.dtype) == dtype
        assert np.isfinite(numpy(ops.cast(value, "float32"))).all()


def two_steps(folder, images, truth, **options):
    """The losses of two steps from the same weights and random state."""
    model = keras.models.load_model(folder / "model.keras")
    model.compile(keras.optimizers.SGD(1e-2), **options)
    model.seed_generator.state.assign([5, 0])
    # The second step has the weights and the seed that the first one left.
    return np.ravel([model.train_on_batch(images, truth) for _ in range(2)])


@pytest.fixture(scope="module")
def plain(trained, drawn, tmp_path_factory):
    """A folder with the model and the data, and the losses without a compiler."""
    folder = tmp_path_factory.mktemp("plain")
    trained[0].save(folder / "model.keras")
    np.savez(folder / "data.npz", images=drawn[0], **drawn[1])
    return folder, two_steps(folder, *drawn, jit_compile=False)


@pytest.mark.slow  # an XLA compile of its own
def test_compiled_losses_are_the_plain_ones(plain, drawn):
    folder, losses = plain
    compiled = two_steps(folder, *drawn, jit_compile=True)
    np.testing.assert_allclose(compiled, losses, rtol=1e-3)


JAX = """
import pathlib, sys
sys.modules["tensorflow"] = None
sys.path.insert(0, sys.argv[1])
import numpy as np
from test_faster_rcnn import two_steps
folder = pathlib.Path(sys.argv[2])
data = np.load(folder / "data.npz")
truth = {"boxes": data["boxes"], "labels": data["labels"]}
print("losses", *two_steps(folder, data["images"], truth))
"""


@pytest.mark.slow
def test_losses_on_jax_are_the_plain_ones(plain):
    pytest.importorskip("jax")
    folder, losses = plain
    done = subprocess.run(
        [sys.executable, "-c", JAX, str(Path(__file__).parent), str(folder)],
        env={**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    jax = [float(loss) for loss in done.stdout.split("losses")[1].split()]
    np.testing.assert_allclose(jax, losses, rtol=1e-3)


@pytest.mark.slow
def test_published_size_has_the_published_number_of_parameters():
    backbone = build_backbone("resnet50", (800, 800))
    model = FasterRCNN(backbone, 80)
    trained = sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)
    # Detectron2 counts 41,699,936 (torchvision 41,755,286, with 91 classes, of which
    # the background has deltas too). Both count batch normalisation as constants: here
    # its 26,560 channels train a gamma and a beta each. And the convolutions of Keras'
    # ResNet-50 have biases, one per channel.
    assert trained == 41_699_936 + 2 * 26_560 + 26_560
    outputs = model.output
    # 3 anchors at 200^2 + 100^2 + 50^2 + 25^2 + 13^2 places
    assert outputs["rpn_boxes"].shape == (None, 159_882, 4)
    assert outputs["proposals"].shape == (None, 1000, 4)
    assert outputs["boxes"].shape == (None, 1000, 80, 4)
    assert set(model.levels) == {"P2", "P3", "P4", "P5"}


def test_components_are_options_or_objects(tmp_path):
    model = build(
        rpn=RPNOptions(num_proposals=7),
        anchors=AnchorGenerator(
            ("P2", "P3", "P4", "P5", "P6"), (8, 16, 24, 32, 48), (1,)
        ),
        nms={"max_detections": 3},
        class_names=("bright", "dark"),
    )
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert again.rpn.num_proposals == 7 and again.nms.max_detections == 3
    assert again.class_names == ("bright", "dark")
    np.testing.assert_array_equal(again.anchor_boxes, model.anchor_boxes)
    with pytest.raises(TypeError, match="num_proposal"):
        build(rpn={"num_proposal": 7})
