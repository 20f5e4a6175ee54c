"""Pipelines from JPEG bytes to augmented batches, in images per second."""

from __future__ import annotations

import itertools
import os

import numpy as np

from benchmarks.harness import Bench, Side, at_least
from benchmarks.peers import load, load_torch
from benchmarks.pictures import boxes_of, photographs, source_of

BATCH = 32
DRAINED, TIMED = 10, 8  # batches: until it runs at its speed, and what is measured
WORKERS = 2
POLICY = (
    ("CLAHE", {"p": 1.0}),
    ("RandomGamma", {"p": 1.0}),
    ("GaussianBlur", {"p": 1.0}),
    ("Affine", {"rotate": (-15, 15), "p": 1.0}),
)
"""Of albumentations: what takes longer than to carry an image to another process."""


def classification(bench: Bench) -> None:
    """A random crop to 224, a flip and colours, from photographs of 640 x 480."""
    from visionkit.data.transforms import build_transforms
    from visionkit.types import Preprocessing

    files = photographs()
    _describe(bench, files)
    records = [{"encoded": file, "label": i % 10} for i, file in enumerate(files)]
    source = source_of(records, "classification", 10)
    transforms = build_transforms(
        [
            {"crop": {"scale": [0.08, 1.0]}},
            "flip",
            {"color": {"brightness": 0.2, "contrast": 0.2, "saturation": 0.2}},
        ],
        "classification",
    )
    dataset = _endless(source, Preprocessing((224, 224), "stretch"), transforms)
    shape = (BATCH, 224, 224, 3)
    bench.compare(
        "input: crop to 224, flip, colours",
        _side("visionkit", bench, dataset, shape),
        bench.peers(
            {
                "decoding only": lambda: _side(
                    "decoding only", bench, _decoding(files), (BATCH, 480, 640, 3)
                ),
                "numpy_function": lambda: _side(
                    "numpy_function", bench, _through_numpy(files), shape
                ),
                "torch loader": lambda: _side(
                    "torch loader", bench, _loader(files, False), shape
                ),
            }
        ),
        {"decoding only": at_least(0.7), "torch loader": at_least(2.0)},
        unit="img",
    )


def detection(bench: Bench) -> None:
    """Letterboxed to 640 with boxes: as training on a GPU does it, and all of it."""
    from visionkit.data.transforms import build_transforms
    from visionkit.types import Preprocessing

    files = photographs()
    _describe(bench, files)
    records = []
    for index, file in enumerate(files):
        boxes, labels = boxes_of(index)
        records.append({"encoded": file, "boxes": boxes, "box_labels": labels})
    source = source_of(records, "detection", 10)
    preprocessing, shape = Preprocessing((640, 640), "letterbox"), (BATCH, 640, 640, 3)
    decoding = _side("decoding only", bench, _decoding(files), (BATCH, 480, 640, 3))
    bench.compare(
        "input: boxes, letterbox to 640",
        _side("visionkit", bench, _endless(source, preprocessing, ()), shape),
        [decoding],
        {"decoding only": at_least(0.8)},
        unit="img",
        seconds=40,
    )
    transforms = build_transforms(
        ["flip", {"scale_jitter": {"range": [0.5, 1.5], "translate": 0.1}}, "hsv"],
        "detection",
    )
    bench.compare(
        "input: boxes, letterbox to 640, scale, flip, HSV",
        _side("visionkit", bench, _endless(source, preprocessing, transforms), shape),
        [
            decoding,
            *bench.peers(
                {
                    "torch loader": lambda: _side(
                        "torch loader", bench, _loader(files, True), shape
                    )
                }
            ),
        ],
        {"torch loader": at_least(0.8)},
        unit="img",
        seconds=60,
    )


def albumentations(bench: Bench) -> None:
    """A policy of albumentations in worker processes, beside a plain loop."""
    from visionkit.data.transforms import build_transforms
    from visionkit.types import Preprocessing

    files, cores = photographs(), len(os.sched_getaffinity(0))
    _describe(bench, files)
    records = [{"encoded": file, "label": i % 10} for i, file in enumerate(files)]
    source = source_of(records, "classification", 10)
    transforms = build_transforms(
        [{name: options} for name, options in POLICY], "classification"
    )
    dataset = _endless(source, Preprocessing((480, 640), "stretch"), transforms)
    shape = (BATCH, 480, 640, 3)
    bench.compare(
        f"input: albumentations' {', '.join(dict(POLICY))}, {cores} cores",
        _side("visionkit", bench, dataset, shape),
        [_side("a plain loop", bench, PlainLoop(files), shape)],
        {"a plain loop": at_least(0.75 * cores)},
        unit="img",
    )


class PlainLoop:
    """Decoding and the policy, image after image, in this thread."""

    def __init__(self, files):
        self.files = files

    def __iter__(self):
        import albumentations as A
        import cv2

        policy = A.Compose([getattr(A, name)(**options) for name, options in POLICY])
        cv2.setNumThreads(1)
        for start in itertools.cycle(range(0, len(self.files) - BATCH + 1, BATCH)):
            batch = self.files[start : start + BATCH]
            yield (np.stack([policy(image=_decode(x))["image"] for x in batch]),)


def _describe(bench: Bench, files) -> None:
    size = np.mean([len(file) for file in files]) / 1024
    bench.note(f"{len(files)} JPEGs of 640 x 480, {size:.0f} KiB in the mean")


def _side(name: str, bench: Bench, batches, shape) -> Side:
    """Draws batches, each time from the start.

    A pipeline that waits while the others have their turn would fill its buffers, and
    enlarge them, at their cost.

    Args:
        name: In the table.
        bench: Whose work is checked.
        batches: What can be iterated over again and again, without an end.
        shape: Of the images of a batch.
    """
    drained, timed = (1, 2) if bench.quick else (DRAINED, TIMED)
    running: list = []

    def begin():
        running[:] = [iter(batches)]
        for _ in range(drained):
            images = next(running[0])[0]
        if tuple(images.shape) != shape:
            bench.require_equal(f"batches of {name}", tuple(images.shape), shape)

    def run():
        for _ in range(timed):
            next(running[0])
        running.clear()

    return Side(name, run, begin, BATCH * timed)


def _endless(source, preprocessing, transforms):
    from visionkit.data import Order, make_dataset

    order = Order(seed=0)
    return make_dataset(
        source, preprocessing, BATCH, transforms=transforms, order=order
    )


def _decoding(files):
    """What no pipeline can be faster than, where each image is decoded whole."""
    import tensorflow as tf

    dataset = tf.data.Dataset.from_tensor_slices(list(files)).repeat()
    dataset = dataset.map(
        lambda file: tf.io.decode_jpeg(file, 3), tf.data.AUTOTUNE, deterministic=True
    )
    dataset = dataset.batch(BATCH, drop_remainder=True).prefetch(tf.data.AUTOTUNE)
    return dataset.map(lambda images: (images,))


def _through_numpy(files):
    """albumentations as most tutorials run it under tf.data."""
    import tensorflow as tf

    change = classification_policy()
    dataset = tf.data.Dataset.from_tensor_slices(list(files)).repeat()
    dataset = dataset.map(
        lambda file: tf.numpy_function(
            lambda data: change(image=_decode(data))["image"], [file], tf.uint8
        ),
        tf.data.AUTOTUNE,
    )
    dataset = dataset.map(lambda image: tf.ensure_shape(image, (224, 224, 3)))
    dataset = dataset.batch(BATCH, drop_remainder=True).prefetch(tf.data.AUTOTUNE)
    return dataset.map(lambda images: (images,))


def _loader(files, boxes: bool):
    """PyTorch's loader with albumentations in its workers, batch after batch."""
    data = load_torch().utils.data
    load("albumentations")
    loader = data.DataLoader(
        TorchPhotographs(files, boxes),
        BATCH,
        sampler=data.RandomSampler(files, replacement=True, num_samples=10**9),
        num_workers=WORKERS,
        collate_fn=collate,
        drop_last=True,
        persistent_workers=True,
        # Forked beside TensorFlow's threads, workers may wait for ever.
        multiprocessing_context="spawn",
    )
    return loader


class TorchPhotographs:
    """A map-style data set of PyTorch; in this module, so that workers find it."""

    def __init__(self, files, boxes: bool):
        self.files, self.boxes, self.policy = files, boxes, None

    def __len__(self):
        return len(self.files)

    def __getitem__(self, index):
        if self.policy is None:
            self.policy = detection_policy() if self.boxes else classification_policy()
        image = _decode(self.files[index])
        if not self.boxes:
            return self.policy(image=image)["image"], np.zeros(1, "int32")
        boxes, labels = boxes_of(index)
        found = self.policy(image=image, bboxes=boxes, labels=labels)
        padded = np.full((8, 5), -1, "float32")
        for row, box, label in zip(
            padded, found["bboxes"], found["labels"], strict=False
        ):
            row[:4], row[4] = box, label
        return found["image"], padded


def collate(samples):
    """Tensors of a batch: uint8, channels last."""
    torch = load("torch")
    return [torch.from_numpy(np.stack(column)) for column in zip(*samples, strict=True)]


def classification_policy():
    """What visionkit's transforms are, in albumentations."""
    import albumentations as A

    return A.Compose(
        [
            A.RandomResizedCrop((224, 224), scale=(0.08, 1.0)),
            A.HorizontalFlip(p=0.5),
            A.ColorJitter(0.2, 0.2, 0.2, 0.0, p=1.0),
        ]
    )


def detection_policy():
    """Letterbox, scale and move, flip, HSV, with boxes."""
    import albumentations as A

    return A.Compose(
        [
            A.LongestMaxSize(640),
            A.PadIfNeeded(640, 640, fill=114),
            A.Affine(scale=(0.5, 1.5), translate_percent=(-0.1, 0.1), fill=114, p=1.0),
            A.HorizontalFlip(p=0.5),
            A.HueSaturationValue(3, 178, 102, p=1.0),
        ],
        bbox_params=A.BboxParams("pascal_voc", label_fields=["labels"]),
    )


def _decode(data) -> np.ndarray:
    import cv2

    cv2.setNumThreads(1)  # the workers are the parallelism
    image = cv2.imdecode(np.frombuffer(data, "uint8"), cv2.IMREAD_COLOR)
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
