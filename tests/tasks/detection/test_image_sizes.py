"""Detectors that train on several sizes of images and answer at one."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from dense_cases import drawn_batch
from tiny_detectors import DETECTORS, backbone

import visionkit as vk
from visionkit.tasks.detection.detector import answer_size
from visionkit.types import Preprocessing

SIZE = (64, 96)  # of the drawn batch
OTHER = (75, 113)
PREPROCESSING = Preprocessing(SIZE, "letterbox")
# Two kinds of default boxes stand for all by default.
SOME = [
    pytest.param(name, marks=() if name in ("ssd", "retinanet") else pytest.mark.slow)
    for name in DETECTORS
]


def batch_at(size):
    """The drawn batch at another size; its padded rows hold no numbers."""
    images, target = drawn_batch()
    scale = np.array(size) / SIZE
    boxes = target["boxes"] * scale[[1, 0, 1, 0]].astype("float32")
    images = tf.image.resize(images, size).numpy().astype("uint8")
    return images, {**target, "boxes": boxes}


def stream(*sizes, fixed=False):
    """A data set of those batches, whose images have any size unless `fixed`."""
    side = sizes[0] if fixed else (None, None)
    spec = (
        tf.TensorSpec((4, *side, 3), tf.uint8),
        {
            "boxes": tf.TensorSpec((4, 3, 4), tf.float32),
            "labels": tf.TensorSpec((4, 3), tf.int32),
        },
    )
    batches = [batch_at(size) for size in sizes]
    return tf.data.Dataset.from_generator(lambda: iter(batches), output_signature=spec)


def one_step(model, data):
    """All losses of one batch in training, from which nothing is learnt."""
    if hasattr(model, "seed_generator"):
        model.seed_generator.state.assign([5, 0])
    return model.fit(data, steps_per_epoch=1, verbose=0).history


@pytest.mark.parametrize("name", SOME)
def test_losses_of_any_size_are_those_of_a_model_of_that_size(name):
    dynamic = DETECTORS[name]((None, None), preprocessing=PREPROCESSING)
    weights = dynamic.get_weights()
    dynamic.compile(keras.optimizers.SGD(0.0), jit_compile=False)
    for size in (SIZE, OTHER):
        static = DETECTORS[name](size)
        static.set_weights(weights)
        static.compile(keras.optimizers.SGD(0.0), jit_compile=False)
        dynamic.set_weights(weights)
        expected = one_step(static, stream(size, fixed=True))
        found = one_step(dynamic, stream(size))
        assert found.keys() == expected.keys() and expected["loss"][0] > 0
        for key, value in expected.items():
            np.testing.assert_allclose(found[key], value, rtol=1e-5, err_msg=key)


@pytest.mark.slow  # an XLA compile for each size
@pytest.mark.parametrize("name", DETECTORS)
def test_compiled_steps_of_two_sizes_are_the_plain_ones(name):
    results = []
    for jit_compile in (True, False):
        keras.utils.set_random_seed(0)
        model = DETECTORS[name]((None, None), preprocessing=PREPROCESSING)
        model.compile(keras.optimizers.SGD(1e-3), jit_compile=jit_compile)
        data = stream(SIZE, OTHER).repeat()
        losses = model.fit(data, steps_per_epoch=2, epochs=2, verbose=0).history["loss"]
        results.append(losses)
    np.testing.assert_allclose(*results, rtol=1e-3)


@pytest.mark.parametrize("name", SOME)
def test_answers_are_those_of_a_model_of_the_size_that_is_answered_for(name, tmp_path):
    images, target = drawn_batch()
    dynamic = DETECTORS[name]((None, None), preprocessing=PREPROCESSING)
    static = DETECTORS[name](SIZE, preprocessing=PREPROCESSING)
    static.set_weights(dynamic.get_weights())
    assert dynamic.predictor.input.shape == (None, *SIZE, 3)
    for model in (static, dynamic):
        model.compile("sgd")
    dynamic.save(tmp_path / "model.keras")
    again = vk.load(tmp_path / "model.keras")
    assert again.input.shape == (None, None, None, 3)
    assert again.preprocessing == PREPROCESSING
    answers = static.predict(images, verbose=0)
    scores = static.evaluate(images, target, verbose=0)
    picture = np.random.default_rng(0).integers(0, 256, (90, 70, 3), "uint8")
    for model in (dynamic, again):
        for key, value in model.predict(images, verbose=0).items():
            np.testing.assert_allclose(value, answers[key], atol=1e-4)
        found = model.evaluate(images, target, verbose=0)
        np.testing.assert_allclose(found, scores, rtol=1e-4)
        boxes = vk.predict(model, picture)[0].boxes
        np.testing.assert_allclose(boxes, vk.predict(static, picture)[0].boxes, 1e-3)


@pytest.mark.parametrize("name", DETECTORS)
def test_a_size_to_answer_at_is_required(name):
    with pytest.raises(ValueError, match=r"one image size.*preprocessing=Preproc"):
        DETECTORS[name]((None, None))


def test_other_backends_refuse_it_before_anything_is_built(monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(ValueError, match="Only on the TensorFlow backend"):
        answer_size(backbone((None, None)), PREPROCESSING)
    assert answer_size(backbone(SIZE), None) == SIZE


def test_what_cannot_be_of_any_size_is_refused():
    neck = {"extra": [[16, 3, 1, "valid"]]}
    with pytest.raises(ValueError, match="must be padded"):
        vk.SSD(backbone((None, None)), 2, neck=neck, preprocessing=PREPROCESSING)
    with pytest.raises(ValueError, match="built for one image size"):
        vk.FastRCNN(backbone((None, None)), 2, preprocessing=PREPROCESSING)


def test_an_exported_model_of_any_size_answers_alike(tmp_path):
    model = DETECTORS["retinanet"]((None, None), preprocessing=PREPROCESSING)
    vk.export(model, tmp_path / "model")
    picture = np.random.default_rng(0).integers(0, 256, (90, 70, 3), "uint8")
    served = vk.predict(tmp_path / "model", picture)[0]
    own = vk.predict(model, picture)[0]
    np.testing.assert_allclose(served.scores, own.scores, atol=1e-4)
    np.testing.assert_allclose(served.boxes, own.boxes, atol=1e-2)
