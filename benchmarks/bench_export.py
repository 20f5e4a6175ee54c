"""An exported SavedModel beside `model.predict` and a bare `tf.function`."""

from __future__ import annotations

import dataclasses
import tempfile

import numpy as np

from benchmarks.goals import at_least, at_most
from benchmarks.harness import Bench, Side
from benchmarks.pictures import photographs
from benchmarks.work import draw_images


def exported(bench: Bench) -> None:
    """MobileNetV2 at 224, and YOLO n at 320 with its suppression of boxes."""
    import visionkit as vk

    sizes = (64, 64) if bench.quick else (224, 320)
    backbone = vk.build_backbone("mobilenet_v2", (sizes[0],) * 2)
    _latency(bench, "MobileNetV2", vk.ImageClassifier(backbone, 1000), sizes[0])
    backbone = vk.build_backbone("csp_darknet_n", (sizes[1],) * 2)
    _latency(bench, "YOLO n", vk.YOLO(backbone, 80), sizes[1])


def encoded(bench: Bench) -> None:
    """`serving_default` on JPEGs of 640 x 480 beside its parts without any check."""
    import tensorflow as tf

    import visionkit as vk
    from visionkit.types import Preprocessing

    side = 64 if bench.quick else 224
    size = (side, side)
    model = vk.ImageClassifier(
        vk.build_backbone("mobilenet_v2", size),
        1000,
        preprocessing=Preprocessing(size, "stretch"),
    )
    with tempfile.TemporaryDirectory() as folder:
        loaded = tf.saved_model.load(str(vk.export(model, folder, gate=False)))
    served = loaded.signatures["serving_default"]

    @tf.function(jit_compile=False)
    def bare(files):
        images = tf.map_fn(
            lambda file: tf.image.resize(
                tf.io.decode_jpeg(file, 3), size, antialias=True
            ),
            files,
            fn_output_signature=tf.TensorSpec((*size, 3), tf.float32),
            parallel_iterations=16,
        )
        return model.predictor(tf.round(images), training=False)

    sides, frozen = {}, _freeze(served)
    for batch in (1, 8):
        files = tf.constant(photographs(batch))
        for name, other in (("bare parts", bare), ("frozen constants", frozen)):
            bench.require_equal(
                f"probabilities of {name}",
                served(image_bytes=files)["probabilities"],
                other(files)["probabilities"],
                1e-3,
            )
        sides[batch] = _answering("visionkit", lambda x: served(image_bytes=x), files)
        bench.compare(
            f"MobileNetV2 {side}: `serving_default` on JPEGs, b{batch}",
            sides[batch],
            [
                _answering("bare parts", bare, files),
                _answering("frozen constants", frozen, files),
            ],
            {"bare parts": at_most(1.15)},
            seconds=30,
        )
    alone = dataclasses.replace(sides[1], name="each alone")
    bench.compare(
        f"MobileNetV2 {side}: `serving_default`, images in a batch of 8",
        sides[8],
        [alone],
        {"each alone": at_least(1.0)},
        unit="img",
        seconds=30,
    )
    bench.note("frozen constants would pay if their ratio were well above 1")


def _answering(name: str, function, files) -> Side:
    """A request whose answer leaves TensorFlow."""
    return Side(name, lambda: _arrays(function(files)), work=len(files))


def _freeze(served):
    """A signature of one input with its variables as constants of the graph."""
    from tensorflow.python.framework.convert_to_constants import (
        convert_variables_to_constants_v2,
    )

    frozen = convert_variables_to_constants_v2(served)
    names = sorted(served.structured_outputs)  # as a dict is flattened
    return lambda x: dict(zip(names, frozen(x), strict=True))


def _latency(bench: Bench, name: str, model, side: int) -> None:
    import tensorflow as tf

    import visionkit as vk

    with tempfile.TemporaryDirectory() as folder:
        loaded = tf.saved_model.load(str(vk.export(model, folder, gate=False)))
    served = loaded.signatures["images"]
    function = tf.function(
        lambda x: model.predictor(x, training=False), jit_compile=False
    )
    for batch in (1, 8):
        images = draw_images(batch, (side, side)).astype("uint8")
        pixels = images.astype("float32")
        encoded, plain = tf.constant(images), tf.constant(pixels)
        answers, expected = served(images=encoded), function(plain)
        for key in ("probabilities", "scores"):
            if key in expected:
                bench.require_equal(key, answers[key], expected[key], 1e-4)
        # A request's answer leaves TensorFlow, as that of `predict` does.
        sides = [
            Side("predict", lambda x=pixels: model.predict(x, verbose=0)),
            Side("tf.function", lambda x=plain: _arrays(function(x))),
        ]
        bench.compare(
            f"{name} {side}: the SavedModel's `images`, b{batch}",
            Side("visionkit", lambda x=encoded: _arrays(served(images=x))),
            sides,
            {
                "tf.function": at_most(1.15),
                **({"predict": at_most(0.35)} if batch == 1 else {}),
            },
            seconds=20,
        )


def _arrays(outputs: dict) -> dict:
    return {name: np.asarray(tensor) for name, tensor in outputs.items()}
