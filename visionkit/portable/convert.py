"""A task's predictor as the content of a LiteRT or ONNX file."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterable
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from visionkit.types import BOX_TASKS

# Answer -> the scores whose best it says, and its type. By which op a predictor finds
# it depends on the device; both formats have this one.
_BEST = {"labels": ("probabilities", "int32"), "segmentation": ("logits", "uint8")}

OPSET = 17  # of 2022: what runtimes of phones and browsers have by now


class _Best(keras.layers.Layer):
    """The first of the largest along the last axis."""

    def __init__(self, kind: str):
        super().__init__(dtype="float32")
        self.kind = kind

    def call(self, scores):
        return tf.cast(tf.argmax(scores, axis=-1, output_type=tf.int32), self.kind)


def portable_model(model) -> keras.Model:
    """From images (B, h, w, C) float32 0..255 at model size to the answers.

    Args:
        model: A `VisionTask` on the TensorFlow backend.
    """
    preprocessing = model.preprocessing
    shape = (*preprocessing.image_size, preprocessing.channels)
    images = keras.Input(shape, name="images", dtype="float32")
    answers = dict(model.predictor(images, training=False))
    for name, (scores, kind) in _BEST.items():
        if name in answers and scores in answers:
            answers[name] = _Best(kind)(answers[scores])
    return keras.Model(images, answers, name=f"portable_{model.name}")


def convert(model, name: str, calibration: Iterable[np.ndarray] | None) -> bytes:
    """The content of a file.

    Args:
        model: A `VisionTask` on the TensorFlow backend.
        name: One of `formats.FORMATS`.
        calibration: For int8: images (h, w, C) 0..255 at model size.

    Raises:
        ValueError: The converter does not know an op of the model.
    """
    with tempfile.TemporaryDirectory() as folder:
        if name == "onnx":
            return _to_onnx(model, Path(folder))
        return _to_litert(model, name, calibration, folder)


def _to_litert(model, name, calibration, folder) -> bytes:
    network = portable_model(model)
    # One image at a time, so that every shape in the file is known. The greedy op of
    # non-maximum suppression does not convert; what runs under XLA does.
    spec = tf.TensorSpec((1, *network.input.shape[1:]), tf.float32, "images")
    compiled = model.task in BOX_TASKS

    @tf.function(input_signature=[spec], autograph=False, jit_compile=compiled)
    def predict(images):
        return network(images, training=False)

    function, module = predict.get_concrete_function(), tf.Module()
    module.weights = list(function.variables)
    tf.saved_model.save(module, folder, signatures=function)
    converter = tf.lite.TFLiteConverter.from_saved_model(folder)
    if name != "litert":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if name == "litert-float16":
        converter.target_spec.supported_types = [tf.float16]
    if name == "litert-int8":
        converter.representative_dataset = lambda: (
            [np.asarray(image, np.float32)[None]] for image in calibration
        )
    try:
        return converter.convert()
    except Exception as error:  # its own classes are not public
        raise _refusal(name, error) from error


def _to_onnx(model, folder: Path) -> bytes:
    # The converter logs what it cannot do, and writes a broken file.
    faults = _Faults()
    logging.getLogger("tf2onnx").addHandler(faults)
    file = folder / "model.onnx"
    try:
        network = portable_model(model)
        spec = keras.InputSpec("float32", network.input.shape, name="images")
        network.export(
            str(file),
            format="onnx",
            input_signature=[spec],
            opset_version=OPSET,
            verbose=False,
        )
    except Exception as error:
        raise _refusal("onnx", error) from error
    finally:
        logging.getLogger("tf2onnx").removeHandler(faults)
    if faults.messages:
        raise _refusal("onnx", "; ".join(faults.messages))
    return file.read_bytes()


class _Faults(logging.Handler):
    def __init__(self):
        super().__init__(logging.ERROR)
        self.messages: list[str] = []

    def emit(self, record):
        self.messages.append(record.getMessage())


def _refusal(name: str, error) -> ValueError:
    text = " ".join(str(error).split())[:500]
    return ValueError(
        f"The model does not convert to {name}: {text}. Export a SavedModel, or "
        "another format, or take options without the op that is named."
    )
