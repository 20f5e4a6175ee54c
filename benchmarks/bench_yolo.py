"""YOLO n at 320, four images with 20 boxes each: the start and the step."""

from __future__ import annotations

import time

from benchmarks.goals import at_most
from benchmarks.harness import Bench, Side
from benchmarks.peers import load
from benchmarks.work import (
    check_losses,
    draw_boxes,
    draw_images,
    draw_labels,
    train_gigaflops,
    trained_once,
)

BATCH, BOXES, CLASSES = 4, 20, 80
SIZE = (320, 320)


def start(bench: Bench) -> None:
    """Building, compiling and the first step, in which the graph is traced."""
    size = (64, 64) if bench.quick else SIZE

    def begin(build):
        trained_once(*build(size))

    def theirs():
        load("keras_cv")
        return Side("keras_cv", lambda: begin(build_theirs))

    bench.compare(
        f"YOLO n: build and first step, {size[0]}, b{BATCH}",
        Side("visionkit", lambda: begin(build_ours)),
        bench.peers({"keras_cv": theirs}),
        {"keras_cv": at_most(0.6)},
        warm_ups=1,  # the first of all starts TensorFlow too
    )


def step(bench: Bench) -> None:
    """A training step, by the work that the network is."""
    size = (64, 64) if bench.quick else SIZE

    def side(name, build):
        model, images, target = build(size)
        work = train_gigaflops(model, images.shape)
        begin = time.perf_counter()
        losses, train = trained_once(model, images, target)
        seconds = time.perf_counter() - begin
        check_losses(name, losses)
        bench.note(
            f"{name}: {model.count_params():,} parameters, {work:.1f} GFLOP a step, "
            f"first step {seconds:.1f} s, loss {losses['loss']:.3g}"
        )
        return Side(name, train, work=work)

    def theirs():
        load("keras_cv")
        return side("keras_cv", build_theirs)

    bench.compare(
        f"YOLO n: train step, {size[0]}, b{BATCH}, {BOXES} boxes, SGD",
        side("visionkit", build_ours),
        bench.peers({"keras_cv": theirs}),
        {"keras_cv": at_most(0.9)},
        unit="GFLOP",
    )


def build_ours(size):
    """(model, images, target), compiled."""
    import visionkit as vk

    model = vk.YOLO(vk.build_backbone("csp_darknet_n", size), CLASSES)
    model.compile(_optimizer(), jit_compile=False)
    boxes, labels = _truth(size)
    return model, draw_images(BATCH, size), {"boxes": boxes, "labels": labels}


def build_theirs(size):
    """The same of keras_cv, whose extra small one is nearest."""
    keras_cv = load("keras_cv")
    backbone = keras_cv.models.YOLOV8Backbone(
        stackwise_channels=[32, 64, 128, 256],
        stackwise_depth=[1, 2, 2, 1],
        include_rescaling=True,
        input_shape=(*size, 3),
    )
    model = keras_cv.models.YOLOV8Detector(
        backbone, CLASSES, bounding_box_format="xyxy", fpn_depth=1
    )
    model.compile(
        box_loss="ciou",
        classification_loss="binary_crossentropy",
        optimizer=_optimizer(),
        jit_compile=False,
    )
    boxes, labels = _truth(size)
    target = {"boxes": boxes, "classes": labels.astype("float32")}
    return model, draw_images(BATCH, size), target


def _optimizer():
    import keras

    return keras.optimizers.SGD(1e-3, momentum=0.9, global_clipnorm=10.0)


def _truth(size):
    return draw_boxes(BATCH, BOXES, size), draw_labels(BATCH, BOXES, CLASSES)
