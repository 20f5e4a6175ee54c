"""Assignment of labels and suppression of boxes, at the sizes of YOLO at 640."""

from __future__ import annotations

import numpy as np

from benchmarks.goals import at_most
from benchmarks.harness import Bench, Side
from benchmarks.peers import load, load_torch
from benchmarks.work import draw_boxes, draw_labels

BATCH, CLASSES, SIZE = 8, 80, (640, 640)
LEVELS = (3, 4, 5)
ENCODER = "keras_cv.src.models.object_detection.yolo_v8.yolo_v8_label_encoder"
"""Where keras_cv has what its public names leave out."""

CANDIDATES, DETECTIONS, IOU = 1000, 100, 0.7


def assignment(bench: Bench) -> None:
    """Task-aligned assignment of 8,400 locations, all rows of the truth valid."""
    import tensorflow as tf
    from keras import ops

    from visionkit.ops.task_aligned import assign_task_aligned

    size = _size(bench)
    points, boxes = _predictions(BATCH, size)
    rng = np.random.default_rng(1)
    logits = rng.normal(-3, 1.5, (BATCH, len(points), CLASSES)).astype("float32")
    for count, goal in ((20, at_most(0.8)), (100, at_most(0.5))):
        true_boxes = draw_boxes(BATCH, count, size, seed=2)
        labels = draw_labels(BATCH, count, CLASSES, seed=3)
        inputs = [tf.constant(x) for x in (logits, boxes, true_boxes, labels)]

        @tf.function(jit_compile=False)
        def ours(logits, boxes, true_boxes, labels):
            found = assign_task_aligned(logits, boxes, points, true_boxes, labels)
            # What a loss reads, as the peer gives it.
            label = ops.take_along_axis(labels, found.index, axis=1)
            classes = ops.one_hot(label, CLASSES) * found.score[..., None]
            box = ops.take_along_axis(true_boxes, found.index[..., None], axis=1)
            return box, classes

        def theirs(count=count, inputs=inputs, ours=ours):
            encoder = load(ENCODER).YOLOV8LabelEncoder(CLASSES)
            mask = tf.ones((BATCH, count, 1), tf.bool)

            @tf.function(jit_compile=False)
            def encode(logits, boxes, truth, labels):
                scores = tf.sigmoid(logits)
                labels = tf.cast(labels, tf.float32)
                return encoder(scores, boxes, points, labels, truth, mask)

            _compare_targets(bench, count, ours(*inputs), encode(*inputs))
            return Side("keras_cv", lambda: encode(*inputs))

        bench.compare(
            f"assignment, {len(points):,} locations, {count} boxes, b{BATCH}",
            Side("visionkit", lambda ours=ours, inputs=inputs: ours(*inputs)),
            bench.peers({"keras_cv": theirs}),
            {"keras_cv": goal},
            seconds=40,
        )


def suppression(bench: Bench) -> None:
    """From scores to detections, at a threshold for people and at one for scores."""
    import tensorflow as tf

    from visionkit.ops.nms import NMS

    boxes, scores = _scored_boxes(_size(bench))
    tensors = tf.constant(boxes), tf.constant(scores)
    for threshold in (0.25, 0.001):
        nms = NMS(threshold, IOU, DETECTIONS, CANDIDATES)
        ours = tf.function(lambda b, s, nms=nms: nms(b, s), jit_compile=False)
        found = ours(*tensors)
        _check_detections(bench, found, boxes, scores, threshold)
        number = float(np.mean(found["num_detections"]))
        bench.note(f"above {threshold}: {number:.0f} detections an image, as NumPy's")

        @tf.function(jit_compile=False)
        def raw(boxes, scores, threshold=threshold):
            return tf.image.combined_non_max_suppression(
                boxes[:, :, None], scores, DETECTIONS, DETECTIONS, IOU, threshold
            )

        if threshold == 0.25:  # with few candidates the raw op has the same answer
            scores_of_raw = raw(*tensors).nmsed_scores
            bench.require_equal("scores", found["scores"], scores_of_raw, 1e-6)
        what = f"suppression, {boxes.shape[1]:,} x {CLASSES} scores > {threshold}"
        side = Side("visionkit", lambda ours=ours: ours(*tensors))
        bench.compare(
            f"{what}, b{BATCH}",
            side,
            [
                Side("tf.image", lambda raw=raw: raw(*tensors)),
                *bench.peers(
                    {"torchvision": lambda t=threshold: _torchvision(boxes, scores, t)}
                ),
            ],
            {
                "tf.image": at_most(1.15 if threshold == 0.25 else 0.2),
                "torchvision": at_most(1.0),
            },
            seconds=20,
        )
        _beside_layers(bench, f"{what}, b{BATCH}", side, tensors, threshold)


def _beside_layers(bench: Bench, what: str, side: Side, tensors, threshold) -> None:
    """By itself, since these take seconds: in few rounds."""
    packages = ("keras_cv", "keras_hub")
    peers = bench.peers(
        {
            package: lambda package=package: _keras_layer(package, tensors, threshold)
            for package in packages
        }
    )
    bench.compare(
        what,
        side,
        peers,
        dict.fromkeys(packages, at_most(0.01)),
        warm_ups=1,
        seconds=15,
    )


def pasting(bench: Bench) -> None:
    """100 masks of 28 x 28 into 1000 x 1000 pixels, beside a resize of each."""
    import cv2

    from visionkit.paste import paste_masks

    cv2.setNumThreads(2)
    count, size = (10, (200, 200)) if bench.quick else (100, (1000, 1000))
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:28, :28] - 13.5
    masks = 1 / (1 + np.exp(np.hypot(x, y) - rng.uniform(5, 13, (count, 1, 1))))
    masks = masks.astype("float32")
    boxes = draw_boxes(1, count, size)[0]

    def naive():
        out = np.zeros((len(masks), *size), bool)
        for full, mask, box in zip(out, masks, boxes, strict=True):
            x1, y1, x2, y2 = np.round(box).astype(int)
            shape = max(x2 - x1, 1), max(y2 - y1, 1)
            resized = cv2.resize(mask, shape, interpolation=cv2.INTER_LINEAR) >= 0.5
            window = full[y1 : y1 + shape[1], x1 : x1 + shape[0]]
            window[:] = resized[: window.shape[0], : window.shape[1]]
        return out

    ours, theirs = paste_masks(masks, boxes, size), naive()
    large = (boxes[:, 2:] - boxes[:, :2]).min(1) > 50  # the naive one rounds its boxes
    same = (ours & theirs)[large].sum() / (ours | theirs)[large].sum()
    bench.require_equal("share of the same pixels", min(same, 0.95), 0.95)
    bench.compare(
        f"pasting {count} masks of 28 x 28 into {size[0]} x {size[1]}",
        Side("visionkit", lambda: paste_masks(masks, boxes, size)),
        [Side("cv2.resize of each", naive)],
        {"cv2.resize of each": at_most(0.5)},
        seconds=30,
    )


def _size(bench: Bench):
    return (160, 160) if bench.quick else SIZE


def _predictions(batch: int, size):
    """Centres (A, 2) and predicted boxes (B, A, 4) around them, float32 pixels."""
    from visionkit.ops.anchors import anchor_points

    sizes = {
        f"P{level}": (size[0] // 2**level, size[1] // 2**level) for level in LEVELS
    }
    points, strides = anchor_points(sizes)
    points, strides = (np.asarray(x, "float32") for x in (points, strides))
    rng = np.random.default_rng(0)
    reach = rng.uniform(0.5, 6, (batch, len(points), 4)) * strides[:, None]
    corners = (points - reach[..., :2], points + reach[..., 2:])
    return points, np.concatenate(corners, axis=-1).astype("float32")


def _compare_targets(bench: Bench, count: int, ours, theirs) -> None:
    """Says how far both agree: a power of 6 makes keras_cv's negative CIoUs count."""
    (boxes, classes), (their_boxes, their_classes, _) = ours, theirs
    own, peer = (np.asarray(x).sum(-1) > 0 for x in (classes, their_classes))
    both = own & peer
    same = np.abs(np.asarray(boxes) - their_boxes).max(-1)[both] < 1e-3
    share = both.sum() / max(1, (own | peer).sum())
    bench.note(
        f"{count} boxes: {own.sum()} locations learn here, {peer.sum()} with keras_cv, "
        f"{share:.1%} of them in both, {same.mean():.1%} of those the same object"
    )
    bench.require_equal("share of the same locations", min(share, 0.8), 0.8)
    bench.require_equal("share of the same objects", min(same.mean(), 0.9), 0.9)


def _scored_boxes(size):
    """Boxes (B, A, 4) and scores (B, A, 80): 40 objects and much noise."""
    points, _ = _predictions(1, size)
    rng = np.random.default_rng(0)
    boxes = np.zeros((BATCH, len(points), 4), "float32")
    scores = rng.beta(0.2, 60, (BATCH, len(points), CLASSES)).astype("float32")
    for image in range(BATCH):
        objects = draw_boxes(1, 40, size, seed=image)[0]
        labels = rng.integers(0, CLASSES, 40)
        near = np.abs(points[:, None] - (objects[:, :2] + objects[:, 2:]) / 2)
        nearest = near.sum(-1).argmin(1)
        sides = np.tile(objects[:, 2:] - objects[:, :2], 2)[nearest]
        # So near that most are suppressed, as a trained network's are.
        boxes[image] = objects[nearest] + sides * rng.normal(0, 0.02, sides.shape)
        boxes[image, :, 2:] = np.maximum(boxes[image, :, 2:], boxes[image, :, :2] + 1)
        sure = rng.choice(len(points), 320, replace=False)
        scores[image, sure, labels[nearest[sure]]] = rng.uniform(0.26, 0.95, 320)
    return np.clip(boxes, 0, max(size)), scores


def _check_detections(bench, found, boxes, scores, threshold) -> None:
    """Refuse anything but what plain greedy suppression gives."""
    for image in range(BATCH):
        expected_boxes, expected_scores = _greedy(
            boxes[image], scores[image], threshold
        )
        count = int(found["num_detections"][image])
        bench.require_equal("detections", count, len(expected_scores))
        ours = found["scores"][image, :count], found["boxes"][image, :count]
        bench.require_equal("scores", ours[0], expected_scores, 1e-6)
        bench.require_equal("boxes", ours[1], expected_boxes, 1e-3)


def _greedy(boxes, scores, threshold):
    """The reference: the best pairs, class by class, one after the other."""
    pairs = np.argsort(-scores, axis=None, kind="stable")[:CANDIDATES]
    rows, labels = np.unravel_index(pairs, scores.shape)
    kept: list[int] = []
    for place in range(len(pairs)):
        row, label = rows[place], labels[place]
        if scores[row, label] <= threshold or len(kept) == DETECTIONS:
            break
        rivals = [rows[k] for k in kept if labels[k] == label]
        if not (_iou(boxes[row], boxes[rivals]) > IOU).any():
            kept.append(place)
    return boxes[rows[kept]], scores[rows[kept], labels[kept]]


def _iou(box, others):
    low, high = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    inter = np.maximum(high - low, 0).prod(-1)
    areas = (box[2:] - box[:2]).prod(), (others[:, 2:] - others[:, :2]).prod(-1)
    return inter / (areas[0] + areas[1] - inter)


def _keras_layer(package: str, tensors, threshold: float) -> Side:
    """One label per box, as both libraries do: less work than ours."""
    import tensorflow as tf

    layer = load(package).layers.NonMaxSuppression(
        "xyxy",
        from_logits=False,
        iou_threshold=IOU,
        confidence_threshold=threshold,
        max_detections=DETECTIONS,
    )
    run = tf.function(lambda boxes, scores: layer(boxes, scores), jit_compile=False)
    return Side(package, lambda: run(*tensors))


def _torchvision(boxes, scores, threshold: float) -> Side:
    torch = load_torch()
    suppress = load("torchvision.ops").batched_nms
    tensors = torch.from_numpy(boxes), torch.from_numpy(scores)

    def run():
        for box, score in zip(*tensors, strict=True):
            best, pair = score.flatten().topk(CANDIDATES)
            row, label = pair // CLASSES, pair % CLASSES
            used = best > threshold
            kept = suppress(box[row[used]], best[used], label[used], IOU)[:DETECTIONS]
            _ = box[row[used][kept]], best[used][kept], label[used][kept]

    with torch.inference_mode():
        run()
    return Side("torchvision", torch.inference_mode()(run))
