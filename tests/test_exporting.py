"""A SavedModel answers as the model does, from bytes, and is published whole."""

import json
import resource
import struct
import sys
import time
import zlib

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps

import visionkit as vk
from visionkit.serving.report import ExportRefused
from visionkit.serving.signatures import build_signatures


@pytest.fixture(scope="module")
def served(exported):
    return tf.saved_model.load(str(exported))


def ask(served, signature, **inputs):
    answers = served.signatures[signature](
        **{k: tf.constant(v) for k, v in inputs.items()}
    )
    return {name: answer.numpy() for name, answer in answers.items()}


def reference(model, image):
    """Probabilities by Pillow's decoder and resampling, and the bare network."""
    image = ImageOps.exif_transpose(image).convert("RGB")
    height, width = model.preprocessing.image_size
    scale = 0.875 * min(image.height / height, image.width / width)
    crop_h, crop_w = round(height * scale), round(width * scale)
    top, left = (image.height - crop_h) / 2, (image.width - crop_w) / 2
    box = (left, top, left + crop_w, top + crop_h)
    resized = image.resize((width, height), Image.Resampling.BILINEAR, box)
    logits = np.asarray(model(np.asarray(resized, np.float32)[None]))[0]
    exponents = np.exp(logits - logits.max())
    return exponents / exponents.sum()


def test_answers_equal_pillow_and_the_bare_network(served, classifier, picture, encode):
    import io

    encoded = [encode(picture(300, 1000, seed=3))]
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        encoded.append(encode(picture(90, 140), exif=exif))
    expected = [reference(classifier, Image.open(io.BytesIO(e))) for e in encoded]
    answers = ask(served, "serving_default", image_bytes=encoded)
    np.testing.assert_allclose(answers["probabilities"], expected, atol=2e-2)
    # Without the EXIF rule this test would see nothing.
    assert np.ptp(np.array(expected)[1:], axis=0).max() > 0.2


def test_signatures_are_the_contract(exported, served):
    described = json.loads((exported / "model.json").read_text())["signatures"]
    answers = {
        "probabilities": {"dtype": "float32", "shape": [None, 4]},
        "labels": {"dtype": "int32", "shape": [None]},
        "label_names": {"dtype": "string", "shape": [None]},
    }
    encoded = {"image_bytes": {"dtype": "string", "shape": [None]}}
    pixels = {"images": {"dtype": "uint8", "shape": [None, None, None, 3]}}
    resized = {"images": {"dtype": "float32", "shape": [None, 40, 56, 3]}}
    logits = {"logits": {"dtype": "float32", "shape": [None, 4]}}
    valid = {"image_valid": {"dtype": "int32", "shape": [None]}}
    assert described == {
        "serving_default": {"inputs": encoded, "outputs": answers},
        "images": {"inputs": pixels, "outputs": answers},
        "tensors": {"inputs": resized, "outputs": logits},
        "tolerant": {"inputs": encoded, "outputs": {**answers, **valid}},
    }
    assert set(served.signatures) == set(described)


@pytest.mark.parametrize("batch", [1, 3])
def test_every_signature_takes_any_batch(served, classifier, batch):
    rng = np.random.default_rng(1)
    pixels = rng.integers(0, 256, (batch, 30, 50, 3), np.uint8)
    encoded = [tf.io.encode_png(image).numpy() for image in pixels]
    from_pixels = ask(served, "images", images=pixels)
    for signature in ("serving_default", "tolerant"):
        from_bytes = ask(served, signature, image_bytes=encoded)
        for name, answer in from_pixels.items():
            assert len(answer) == batch
            if answer.dtype == object:
                np.testing.assert_array_equal(answer, from_bytes[name])
            else:
                np.testing.assert_allclose(answer, from_bytes[name], atol=1e-5)
    resized = rng.uniform(0, 255, (batch, 40, 56, 3)).astype(np.float32)
    logits = ask(served, "tensors", images=resized)["logits"]
    np.testing.assert_allclose(logits, classifier(resized), atol=1e-4)


def test_class_names_that_are_not_utf8_come_back_as_bytes(served, exported, classifier):
    names = [b"cat", b"caf\xe9", "näher".encode(), b""]
    rng = np.random.default_rng(2)
    pixels = rng.integers(0, 256, (16, 6, 8, 3), np.uint8)
    pixels[::2] //= 8  # Dark and bright ones, so that the labels are not all one.
    answers = ask(served, "images", images=pixels)
    np.testing.assert_array_equal(
        answers["label_names"], np.array(names, object)[answers["labels"]]
    )
    description = json.loads((exported / "model.json").read_text("ascii"))
    assert tuple(description["class_names"]) == classifier.class_names


def test_tolerant_answers_around_broken_images(served, picture, encode):
    good = encode(picture(60, 80))
    batch = [good, good[: len(good) // 2], b"", b"<html>", good]
    answers = ask(served, "tolerant", image_bytes=batch)
    assert answers["image_valid"].tolist() == [1, 0, 0, 0, 1]
    expected = ask(served, "serving_default", image_bytes=[good])
    for name, answer in expected.items():
        if answer.dtype == object:
            assert answers[name].tolist() == [answer[0], b"", b"", b"", answer[0]]
        else:
            assert not answers[name][1:4].any()
            np.testing.assert_allclose(answers[name][4], answer[0], atol=1e-6)
    with pytest.raises(tf.errors.InvalidArgumentError):
        ask(served, "serving_default", image_bytes=batch)


def png_bomb(side):
    """A valid 1-bit PNG of side x side in a few KiB."""

    def chunk(kind, data):
        crc = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc)

    ihdr = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    pixels = zlib.compress(bytes(side * (1 + (side + 7) // 8)), 1)
    parts = (chunk(b"IHDR", ihdr), chunk(b"IDAT", pixels), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def test_a_decompression_bomb_is_refused_from_its_header(served):
    bomb = png_bomb(20_000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.monotonic()
    with pytest.raises(tf.errors.InvalidArgumentError):
        ask(served, "serving_default", image_bytes=[bomb])
    assert ask(served, "tolerant", image_bytes=[bomb])["image_valid"].tolist() == [0]
    assert time.monotonic() - start < 2
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 200_000, f"{grown} KiB for an image that must not be decoded"


def test_answers_are_finite_whatever_the_weights_say(classifier):
    broken = vk.ImageClassifier.from_config(classifier.get_config())
    broken.weights[-1].assign([np.nan, np.inf, 0, 0])
    functions = build_signatures(broken)
    logits = functions["tensors"](tf.zeros((2, 40, 56, 3)))["logits"]
    answers = functions["images"](tf.zeros((2, 9, 9, 3), tf.uint8))
    assert np.isfinite(logits).all() and np.isfinite(answers["probabilities"]).all()


def test_weights_are_stored_once(exported, classifier):
    reader = tf.train.load_checkpoint(str(exported / "variables" / "variables"))
    shapes = reader.get_variable_to_shape_map()
    stored = sum(int(np.prod(s)) for n, s in shapes.items() if "VARIABLE" in n)
    norms = [
        layer.gamma.shape[0]
        for layer in classifier.backbone.layers
        if isinstance(layer, keras.layers.BatchNormalization)
    ]
    # Folded into convolutions that have a bias.
    assert norms and stored == classifier.count_params() - 4 * sum(norms)


def test_model_json_is_strict_json_with_metrics_and_versions(exported, classifier):
    def refuse(constant):
        raise ValueError(constant)

    text = (exported / "model.json").read_text("utf-8")
    description = json.loads(text, parse_constant=refuse)
    assert description["metadata"] == {"accuracy": 0.5, "f1": None}
    assert description["parameters"] == classifier.count_params()
    assert description["versions"]["tensorflow"] == tf.__version__
    # The C runtime where there is a compiler; told otherwise where not.
    checked = {*description["gate"], *description["unchecked"]}
    assert checked == {"graph", "answers", "c_runtime"}
    assert description["gate"][:2] == ["graph", "answers"]
    assert vk.Preprocessing.from_config(description["preprocessing"]) == (
        classifier.preprocessing
    )


def test_an_export_without_warmup_says_so(classifier, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_serving.apis", None)
    with pytest.warns(UserWarning, match="no warm-up requests"):
        path = vk.export(classifier, tmp_path, gate=False)
    assert json.loads((path / "model.json").read_text())["warmup"] is False


def test_warmup_has_one_record_per_signature(exported, served):
    prediction_log_pb2 = pytest.importorskip(
        "tensorflow_serving.apis.prediction_log_pb2"
    )
    file = exported / "assets.extra" / "tf_serving_warmup_requests"
    seen = []
    for record in tf.data.TFRecordDataset(str(file)).as_numpy_iterator():
        log = prediction_log_pb2.PredictionLog.FromString(record)
        request = log.predict_log.request
        inputs = {k: tf.make_ndarray(v) for k, v in request.inputs.items()}
        ask(served, request.model_spec.signature_name, **inputs)
        seen.append(request.model_spec.signature_name)
    assert sorted(seen) == ["images", "serving_default", "tensors", "tolerant"]


def test_versions_count_up_and_are_never_overwritten(classifier, tmp_path):
    first = vk.export(classifier, tmp_path, gate=False)
    unchecked = json.loads((first / "model.json").read_text())["unchecked"]
    assert set(unchecked) == {"graph", "answers", "c_runtime"}
    (tmp_path / ".tmp-of-a-killed-export").mkdir()
    assert vk.export(classifier, tmp_path, version=7, gate=False).name == "7"
    assert vk.export(classifier, tmp_path, gate=False).name == "8"
    with pytest.raises(FileExistsError, match="leave `version` out to get 9"):
        vk.export(classifier, tmp_path, version=7, gate=False)
    assert first.name == "1"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["1", "7", "8"]


def test_a_full_disk_publishes_nothing(classifier, tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(OSError, match="nothing is published"):
            vk.export(classifier, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


def test_a_refused_export_publishes_nothing(classifier, tmp_path, monkeypatch):
    def python(outputs, prepared, class_names):
        labels = tf.py_function(lambda x: x, [outputs["labels"]], tf.int32)
        return {"labels": tf.ensure_shape(labels, [None])}

    from visionkit.inference import graph

    monkeypatch.setitem(graph.ANSWERS, "classification", python)
    with pytest.raises(ExportRefused, match=r"EagerPyFunc .*runs Python") as error:
        vk.export(classifier, tmp_path)
    assert not error.value.report.passed
    assert list(tmp_path.iterdir()) == []


def test_a_bfloat16_model_is_exported_as_float32(classifier, tmp_path):
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        inputs = keras.Input((24, 32, 3))
        x = keras.layers.Conv2D(4, 3, activation="relu")(inputs)
        backbone = keras.Model(inputs, {"P1": x}, name="half")
        folder = vk.export(vk.ImageClassifier(backbone, 3), tmp_path)
    finally:
        keras.config.set_dtype_policy(policy)
    served = tf.saved_model.load(str(folder))
    for function in served.signatures.values():
        for output in function.structured_outputs.values():
            assert output.dtype in (tf.float32, tf.int32, tf.string)


def test_what_cannot_be_exported_is_refused(classifier):
    with pytest.raises(TypeError, match="visionkit task"):
        vk.export(object(), "nowhere")
    with pytest.raises(FileNotFoundError, match="no model at"):
        vk.export("no_such_run", "nowhere")
