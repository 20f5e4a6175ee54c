"""What a detector does beside its network: targets, losses, regions, scores."""

from __future__ import annotations

import numpy as np

from benchmarks.goals import at_most
from benchmarks.harness import Bench, Side
from benchmarks.work import draw_boxes, draw_images, draw_labels, trained_once

BATCH, BOXES, CLASSES = 4, 20, 80


def losses(bench: Bench) -> None:
    """Encoding the truth and the loss with its gradient, as a share of a step."""
    import keras

    from visionkit.types import MASK_SIZE

    side = 64 if bench.quick else 320
    images = draw_images(BATCH, (side, side))
    target = {
        "boxes": draw_boxes(BATCH, BOXES, (side, side)),
        "labels": draw_labels(BATCH, BOXES, CLASSES),
    }
    shares = np.random.default_rng(1).random((BATCH, BOXES, MASK_SIZE, MASK_SIZE))
    for name, build in DETECTORS.items():
        model = build((side, side))
        model.compile(keras.optimizers.SGD(1e-3), jit_compile=False)
        inputs, truth = images, target
        if model.task == "instance_segmentation":
            truth = {**target, "masks": (shares < 0.5).astype("uint8")}
        if model.num_proposals:
            proposals = draw_boxes(BATCH, model.num_proposals, (side, side), seed=2)
            inputs = {"images": images, "proposals": proposals}
        _, step = trained_once(model, inputs, truth)
        bench.compare(
            f"{name}: targets and loss at {side}, b{BATCH}, {BOXES} boxes",
            Side("visionkit", _loss_alone(model, inputs, truth)),
            [Side("its own step", step)],
            {"its own step": at_most(0.1)},
            seconds=20,
        )


def regions(bench: Bench) -> None:
    """RoIAlign and the suppression of proposals beside what TensorFlow has."""
    _align(bench)
    _propose(bench)


def evaluation(bench: Bench) -> None:
    """COCO's scores of an epoch, as a share of predicting it."""
    import visionkit as vk

    side, batches = (64, 2) if bench.quick else (320, 16)
    # All that an untrained network is the least sure of: as many as there can be.
    nms = {"score_threshold": 0.0}
    model = vk.YOLO(vk.build_backbone("csp_darknet_n", (side, side)), CLASSES, nms=nms)
    model.compile("sgd", jit_compile=False)
    epoch = []
    for seed in range(batches):
        target = {
            "boxes": draw_boxes(8, BOXES, (side, side), seed),
            "labels": draw_labels(8, BOXES, CLASSES, seed),
        }
        epoch.append((draw_images(8, (side, side), seed), target))
    answers = [model.predict_on_batch(images) for images, _ in epoch]
    found = np.mean([answer["num_detections"] for answer in answers])
    bench.note(f"an untrained network: {found:.0f} detections in each image")

    def score():
        scorer = model.scorer()
        for answer, (_, target) in zip(answers, epoch, strict=True):
            scorer.update(answer, target)
        return scorer.summary()

    what = f"{8 * batches} images, YOLO n at {side}"
    predict = Side(
        "predicting them",
        lambda: [model.predict_on_batch(images) for images, _ in epoch],
    )
    bench.compare(
        f"COCO scores of answers that are there, {what}",
        Side("visionkit", score),
        [predict],
        {"predicting them": at_most(0.02)},
        warm_ups=1,
        seconds=40,
    )
    data = _epoch_of(epoch)
    bench.compare(
        f"`evaluate` as `fit` calls it, losses and COCO scores, {what}",
        Side("visionkit", lambda: model.evaluate(data, verbose=0)),
        [
            Side(
                "predicting them",
                lambda: [model.predict_on_batch(images) for images, _ in data],
            )
        ],
        {"predicting them": at_most(1.02)},
        warm_ups=1,
        seconds=40,
    )


def _epoch_of(batches):
    """A data set of these (images, target)."""
    import tensorflow as tf

    columns = tf.nest.map_structure(lambda *parts: np.stack(parts), *batches)
    return tf.data.Dataset.from_tensor_slices(columns)


def _yolo(size):
    import visionkit as vk

    return vk.YOLO(vk.build_backbone("csp_darknet_n", size), CLASSES)


def _ssd(size):
    import visionkit as vk

    return vk.SSD(vk.build_backbone("mobilenet_v2", size), CLASSES)


def _retinanet(size):
    import visionkit as vk

    return vk.RetinaNet(vk.build_backbone("resnet50", size), CLASSES)


def _faster_rcnn(size):
    import visionkit as vk

    rpn = {"num_proposals": 300}
    return vk.FasterRCNN(vk.build_backbone("resnet50", size), CLASSES, rpn=rpn)


def _fast_rcnn(size):
    import visionkit as vk

    return vk.FastRCNN(vk.build_backbone("resnet50", size), CLASSES, num_proposals=300)


def _mask_rcnn(size):
    import visionkit as vk

    rpn = {"num_proposals": 300}
    return vk.MaskRCNN(vk.build_backbone("resnet50", size), CLASSES, rpn=rpn)


DETECTORS = {
    "YOLO n": _yolo,
    "SSD MobileNetV2": _ssd,
    "RetinaNet ResNet-50": _retinanet,
    "Fast R-CNN ResNet-50": _fast_rcnn,
    "Faster R-CNN ResNet-50": _faster_rcnn,
    "Mask R-CNN ResNet-50": _mask_rcnn,
}


def _loss_alone(model, inputs, target):
    """What `compute_loss` and its gradient cost, where the raw outputs are there."""
    import tensorflow as tf

    inputs, truth = tf.nest.map_structure(tf.constant, (inputs, target))
    raw = model(inputs, training=True)
    answers, given = _answers_of_heads(model, raw, truth), {}
    for name in answers:
        # To read the sampled regions is the network's work, not the loss's.
        setattr(model, name, lambda *_, name=name, **__: given[name])

    @tf.function(jit_compile=False)
    def loss(raw, truth, answers):
        given.update(answers)
        with tf.GradientTape() as tape:
            tape.watch((raw, answers))
            value = model.compute_loss(x=inputs, y=truth, y_pred=raw, training=True)
        return value, tape.gradient(value, (raw, answers))

    _, (_, gradients) = loss(raw, truth, answers)
    if any(gradient is None for gradient in tf.nest.flatten(gradients)):
        raise RuntimeError(f"The loss of {model.name} does not read all of its heads.")
    return lambda: loss(raw, truth, answers)


def _answers_of_heads(model, raw, truth) -> dict:
    """What the heads that read regions answer, by their attribute.

    Args:
        model: A detector; one of a single stage has no such heads.
        raw: Its raw outputs.
        truth: The target, around which the regions are sampled.
    """
    import tensorflow as tf

    from visionkit.tasks.detection.rois import sample_rois

    if not hasattr(model, "box_head"):
        return {}
    pyramid = {level: raw[level] for level in model.levels}
    boxes, labels = truth["boxes"], truth["labels"]
    sample = sample_rois(raw["proposals"], boxes, labels, model.roi, seed=0)
    answers = {"box_head": model.box_head(pyramid, sample.boxes)}
    if hasattr(model, "mask_head"):
        boxes = sample.first(model.roi).boxes
        labels = tf.zeros(boxes.shape[:2], tf.int32)
        answers["mask_head"] = model.mask_head(pyramid, boxes, labels)
    return answers


def _align(bench: Bench) -> None:
    """Bins of 7 x 7 with four points each; `crop_and_resize` reads the same points."""
    import tensorflow as tf

    from visionkit.ops.roi_align import roi_align

    side, count = (16, 10) if bench.quick else (50, 512)
    rng = np.random.default_rng(0)
    features = rng.normal(size=(2, side, side, 256)).astype("float32")
    boxes = draw_boxes(2, count, (side * 16,) * 2)
    inputs = tf.constant(features), tf.constant(boxes)
    owner = tf.repeat(tf.range(2), count)

    @tf.function(jit_compile=False)
    def ours(features, boxes):
        return roi_align(features, boxes, 16, 7)

    @tf.function(jit_compile=False)
    def theirs(features, boxes):
        # The first and the last point of each axis, between 0 and 1 of all cells.
        flat = tf.reshape(boxes, (-1, 4)) / 16 - 0.5
        low, high = flat[:, :2], flat[:, 2:]
        inset = (high - low) / 28
        ends = tf.concat([low + inset, high - inset], 1) / (side - 1)
        ends = tf.gather(ends, [1, 0, 3, 2], axis=1)
        points = tf.image.crop_and_resize(features, ends, owner, (14, 14))
        bins = tf.nn.avg_pool2d(points, 2, 2, "VALID")
        return tf.reshape(bins, (2, count, 7, 7, 256))

    # Points beside the outermost centres are zeros there and the border's here.
    inner = (boxes.min((0, 2)) > 32) & (boxes.max((0, 2)) < side * 16 - 32)
    found, expected = (np.asarray(f(*inputs))[:, inner] for f in (ours, theirs))
    bench.require_equal("features of inner boxes", found, expected, 1e-3)
    bench.note(f"RoIAlign: {inner.sum()} inner boxes have the same features in both")
    bench.compare(
        f"RoIAlign, 2 x {count} boxes of a {side} x {side} x 256 map",
        Side("visionkit", lambda: ours(*inputs)),
        [Side("tf.image.crop_and_resize", lambda: theirs(*inputs))],
        seconds=30,
    )


def _propose(bench: Bench) -> None:
    import tensorflow as tf

    from visionkit.ops.nms import suppress

    count, kept = (100, 50) if bench.quick else (2000, 1000)
    rng = np.random.default_rng(0)
    boxes = draw_boxes(2, count, (800, 800))
    scores = np.sort(rng.random((2, count)).astype("float32"))[:, ::-1].copy()
    inputs = tf.constant(boxes), tf.constant(scores)

    @tf.function(jit_compile=False)
    def ours(boxes, scores):
        return suppress(boxes, scores, 0.7, kept)

    @tf.function(jit_compile=False)
    def theirs(boxes, scores):
        return tf.image.non_max_suppression_padded(
            tf.gather(boxes, [1, 0, 3, 2], axis=-1),
            scores,
            kept,
            0.7,
            pad_to_max_output_size=True,
            sorted_input=True,
        )

    (rows, valid), (their_rows, number) = ours(*inputs), theirs(*inputs)
    bench.require_equal("proposals", np.sum(valid, axis=1), number)
    for image in range(2):
        bench.require_equal(
            "rows",
            rows[image, : int(number[image])],
            their_rows[image, : int(number[image])],
        )
    bench.compare(
        f"suppression of proposals, 2 x {count} to {kept}",
        Side("visionkit", lambda: ours(*inputs)),
        [Side("tf.image.non_max_suppression_padded", lambda: theirs(*inputs))],
        seconds=30,
    )
