"""LiteRT and ONNX files answer as the model does, and say what they cost."""

import importlib.util
import json
import sys

import keras
import numpy as np
import pytest
import tiny_detectors
from drawn_instances import mask_rcnn
from painter import build_painter

import visionkit as vk
from visionkit.inference.runtimes import Runtime
from visionkit.ops.boxes import iou_matrix
from visionkit.portable.exporting import _lost_boxes, export_portable
from visionkit.portable.formats import FORMATS, check_format
from visionkit.serving.report import ExportRefused
from visionkit.types import BOX_TASKS, PORTABLE_FORMATS, TASKS

SIZE = (48, 64)


def installed(name):
    return all(importlib.util.find_spec(p) for p in FORMATS[name].packages)


def needs(name, *values, slow=False):
    missing = not installed(name)
    marks = [pytest.mark.skipif(missing, reason=f"{name} is not installed")]
    return pytest.param(name, *values, marks=marks + [pytest.mark.slow] * slow)


@pytest.fixture(scope="module")
def small():
    """A classifier of random weights, spread so that its answers differ."""
    keras.utils.set_random_seed(1)
    images = keras.Input((*SIZE, 3), name="images")
    x = keras.layers.Rescaling(1 / 127.5, -1)(images)
    x = keras.layers.Conv2D(8, 5, 4, "same", activation="relu")(x)
    backbone = keras.Model(images, {"P5": keras.layers.Conv2D(16, 3, 2)(x)})
    model = vk.ImageClassifier(backbone, 3)
    kernel = model.weights[-2]
    kernel.assign(kernel * 20)
    return model


def pictures(count, seed=0):
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(0, 255, (count, 6, 8, 3)).astype(np.float32)
    return coarse.repeat(8, axis=1).repeat(8, axis=2)


@pytest.mark.parametrize(
    ("name", "atol"),
    [
        needs("litert", 1e-5),
        needs("litert-float16", 1e-2),
        needs("litert-int8", 0.1),
        needs("onnx", 1e-5),
    ],
)
def test_a_classifier_in_every_format(small, name, atol, tmp_path):
    calibration = pictures(20, seed=1)
    path = export_portable(small, tmp_path, name, calibration=calibration)
    described = json.loads((path / "model.json").read_text())
    assert described["format"] == name and "resizing" in described["outside"]
    file = path / FORMATS[name].file
    images = pictures(40)
    got = Runtime(file).predict_on_batch(images)
    expected = small.predictor.predict_on_batch(images)["probabilities"]
    np.testing.assert_allclose(got["probabilities"], expected, atol=atol)
    labels = np.argmax(got["probabilities"], axis=-1)
    np.testing.assert_array_equal(got["labels"], labels)
    assert len(np.unique(labels)) > 1  # or it would say nothing
    photos = [np.uint8(image[5:, : 40 + i]) for i, image in enumerate(images)]
    for result, own in zip(
        vk.predict(file, photos), vk.predict(small, photos), strict=True
    ):
        assert result.image_size == own.image_size
        np.testing.assert_allclose(result.probabilities, own.probabilities, atol=atol)


@pytest.mark.parametrize("name", map(needs, PORTABLE_FORMATS))
def test_painted_boxes_are_found_in_every_format(name, tmp_path):
    model = build_painter(SIZE)
    image, truth = np.full((*SIZE, 3), 50, np.float32), np.zeros(SIZE, np.uint8)
    for label, rows in ((1, slice(5, 20)), (2, slice(25, 40))):
        image[rows, 10:50] = np.eye(3)[label - 1] * 255
        truth[rows, 10:50] = label
    path = export_portable(model, tmp_path, name, calibration=[image] * 4)
    got = Runtime(path / FORMATS[name].file).predict_on_batch(image[None])
    np.testing.assert_array_equal(got["segmentation"][0], truth)
    assert got["segmentation"].dtype == np.uint8
    photo = np.uint8(image).repeat(3, axis=0).repeat(2, axis=1)
    (result,) = vk.predict(path / FORMATS[name].file, photo)
    (own,) = vk.predict(model, photo)
    assert result.segmentation.shape == photo.shape[:2]
    same = (result.segmentation == own.segmentation).mean()
    assert same == 1 if name in ("litert", "onnx") else same > 0.95
    assert result.label_names == own.label_names


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        needs(name, kind, slow=kind != "yolo")
        for name in ("litert", "onnx")
        for kind in (*tiny_detectors.DETECTORS, "mask_rcnn")
        if (name, kind) != ("onnx", "mask_rcnn")
    ],
)
def test_a_detector_with_its_suppression(name, kind, tmp_path):
    keras.utils.set_random_seed(0)
    build = {**tiny_detectors.DETECTORS, "mask_rcnn": mask_rcnn}[kind]
    # An untrained RetinaNet is sure of nothing.
    options = {"nms": {"score_threshold": 1e-3}} if kind == "retinanet" else {}
    model = build((64, 96), **options)
    path = export_portable(model, tmp_path, name)
    images = np.random.default_rng(0).uniform(0, 255, (2, 64, 96, 3))
    got = Runtime(path / FORMATS[name].file).predict_on_batch(images)
    expected = model.predictor.predict_on_batch(images.astype(np.float32))
    assert set(got) == set(expected) and expected["num_detections"].min() > 0
    expected = {key: np.asarray(value) for key, value in expected.items()}
    assert _lost_boxes(name, expected, got) == []
    moved = {**got, "boxes": got["boxes"] + 30}
    assert _lost_boxes(name, expected, moved) != []
    photo = np.uint8(images[0]).repeat(2, axis=0).repeat(2, axis=1)
    (result,) = vk.predict(path / FORMATS[name].file, photo, score=0)
    (own,) = vk.predict(model, photo, score=0)
    assert len(result.boxes) == len(own.boxes) > 0
    overlap = np.asarray(iou_matrix(own.boxes, result.boxes))
    same = own.labels[:, None] == result.labels
    assert ((overlap > 0.9) & same).any(axis=1).mean() >= 0.9
    assert kind != "mask_rcnn" or result.masks.shape == own.masks.shape


def test_the_table_of_what_does_not_work():
    refused = {(t, n) for n, kind in FORMATS.items() for t in kind.refused}
    unproven = {("instance_segmentation", "onnx")}
    assert refused == {(task, "litert-int8") for task in BOX_TASKS} | unproven
    assert set(FORMATS) == set(PORTABLE_FORMATS)
    for task, name in refused:
        with pytest.raises(ValueError, match=f"{task} does not go into {name}"):
            check_format(name, task)
    for task in TASKS:
        for name in filter(installed, FORMATS):
            if (task, name) not in refused:
                assert check_format(name, task).file


def test_refusals_are_plain(small, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="must be one of litert"):
        export_portable(small, tmp_path, "tflite")
    if installed("litert"):
        with pytest.raises(ValueError, match="litert-int8 needs `calibration`"):
            export_portable(small, tmp_path, "litert-int8")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(RuntimeError, match=r"pip install 'visionkit\[onnx\]'"):
        export_portable(small, tmp_path, "onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_file_without_its_description_or_runtime_says_so(tmp_path, monkeypatch):
    for file in (tmp_path / "model.tflite", tmp_path / "model.onnx"):
        file.touch()
        with pytest.raises(ValueError, match=r"model\.json is missing"):
            vk.predict(file, pictures(1))
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    with pytest.raises(RuntimeError, match=r"pip install 'visionkit\[litert\]'"):
        Runtime(tmp_path / "model.tflite")


@pytest.mark.skipif(not installed("litert"), reason="litert is not installed")
def test_a_file_that_answers_otherwise_is_refused(small, tmp_path, monkeypatch):
    other = vk.ImageClassifier.from_config(small.get_config())  # other weights
    from visionkit.portable import exporting

    content = exporting.convert(other, "litert", None)
    monkeypatch.setattr(exporting, "convert", lambda *arguments: content)
    with pytest.raises(ExportRefused, match="probabilities in litert"):
        export_portable(small, tmp_path, "litert")
    assert list(tmp_path.iterdir()) == []
