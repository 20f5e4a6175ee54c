"""Pipelines from JPEG bytes to augmented batches, in images per second."""

from __future__ import annotations

import numpy as np

from benchmarks.batches import drawing, sizes
from benchmarks.goals import at_least
from benchmarks.harness import Bench
from benchmarks.peers import load, load_torch
from benchmarks.pictures import boxes_of, decode, photographs, source_of

BATCH = 32
WORKERS = 2
AHEAD = 2  # batches that each worker of PyTorch prepares beyond the one that is drawn


def classification(bench: Bench) -> None:
    """A random crop to 224, a flip and colours, from photographs of 640 x 480."""
    from visionkit.data.transforms import build_transforms
    from visionkit.types import Preprocessing

    batch, files = _batch(bench), photographs()
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
    preprocessing, shape = Preprocessing((224, 224), "stretch"), (batch, 224, 224, 3)
    dataset = _endless(source, preprocessing, batch, transforms)
    bench.compare(
        "input: crop to 224, flip, colours",
        drawing("visionkit", bench, dataset, shape),
        bench.peers(
            {
                "decoding only": lambda: drawing(
                    "decoding only",
                    bench,
                    _decoding(files, batch),
                    (batch, 480, 640, 3),
                ),
                "numpy_function": lambda: drawing(
                    "numpy_function", bench, _through_numpy(files, batch), shape
                ),
                "torch loader": lambda: drawing(
                    "torch loader", bench, _loader(bench, files), shape, finite=True
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

    batch, files = _batch(bench), photographs()
    _describe(bench, files)
    truth = [boxes_of(index) for index in range(len(files))]
    records = [
        {"encoded": file, "boxes": boxes, "box_labels": labels}
        for file, (boxes, labels) in zip(files, truth, strict=True)
    ]
    source = source_of(records, "detection", 10)
    preprocessing, shape = Preprocessing((640, 640), "letterbox"), (batch, 640, 640, 3)
    decoding = drawing(
        "decoding only", bench, _decoding(files, batch), (batch, 480, 640, 3)
    )
    bare = _endless(source, preprocessing, batch, ())
    bench.compare(
        "input: boxes, letterbox to 640",
        drawing("visionkit", bench, bare, shape),
        [decoding],
        {"decoding only": at_least(0.8)},
        unit="img",
        seconds=40,
    )
    transforms = build_transforms(
        ["flip", {"scale_jitter": {"range": [0.5, 1.5], "translate": 0.1}}, "hsv"],
        "detection",
    )
    dataset = _endless(source, preprocessing, batch, transforms)
    bench.compare(
        "input: boxes, letterbox to 640, scale, flip, HSV",
        drawing("visionkit", bench, dataset, shape),
        [
            decoding,
            *bench.peers(
                {
                    "torch loader": lambda: drawing(
                        "torch loader",
                        bench,
                        _loader(bench, files, truth),
                        shape,
                        finite=True,
                    )
                }
            ),
        ],
        {"torch loader": at_least(0.8)},
        unit="img",
        seconds=60,
    )


def _describe(bench: Bench, files) -> None:
    size = np.mean([len(file) for file in files]) / 1024
    bench.note(f"{len(files)} JPEGs of 640 x 480, {size:.0f} KiB in the mean")


def _batch(bench: Bench) -> int:
    return 8 if bench.quick else BATCH


def _endless(source, preprocessing, batch: int, transforms):
    from visionkit.data import Order, make_dataset

    order = Order(seed=0)
    return make_dataset(
        source, preprocessing, batch, transforms=transforms, order=order
    )


def _decoding(files, batch: int):
    """What no pipeline can be faster than, where each image is decoded whole."""
    import tensorflow as tf

    dataset = tf.data.Dataset.from_tensor_slices(list(files)).repeat()
    dataset = dataset.map(
        lambda file: tf.io.decode_jpeg(file, 3), tf.data.AUTOTUNE, deterministic=True
    )
    dataset = dataset.batch(batch, drop_remainder=True).prefetch(tf.data.AUTOTUNE)
    return dataset.map(lambda images: (images,))


def _through_numpy(files, batch: int):
    """albumentations as most tutorials run it under tf.data."""
    import tensorflow as tf

    change = classification_policy()
    dataset = tf.data.Dataset.from_tensor_slices(list(files)).repeat()
    dataset = dataset.map(
        lambda file: tf.numpy_function(
            lambda data: change(image=decode(data))["image"], [file], tf.uint8
        ),
        tf.data.AUTOTUNE,
    )
    dataset = dataset.map(lambda image: tf.ensure_shape(image, (224, 224, 3)))
    dataset = dataset.batch(batch, drop_remainder=True).prefetch(tf.data.AUTOTUNE)
    return dataset.map(lambda images: (images,))


def _loader(bench: Bench, files, truth=None):
    """PyTorch's loader with albumentations in its workers, batch after batch.

    It ends when what is timed has been drawn and what the workers have prepared beyond
    that, as much as they had when the timing began.
    """
    data = load_torch().utils.data
    load("albumentations")
    batch, drawn = _batch(bench), sum(sizes(bench)) + WORKERS * AHEAD
    return data.DataLoader(
        TorchPhotographs(files, truth),
        batch,
        sampler=data.RandomSampler(files, replacement=True, num_samples=batch * drawn),
        num_workers=WORKERS,
        prefetch_factor=AHEAD,
        collate_fn=collate,
        drop_last=True,
        persistent_workers=True,
        # Forked beside TensorFlow's threads, workers may wait for ever.
        multiprocessing_context="spawn",
    )


class TorchPhotographs:
    """A map-style data set of PyTorch; in this module, so that workers find it.

    Args:
        files: JPEGs.
        truth: (boxes, labels) of each for detection, or None.
    """

    def __init__(self, files, truth=None):
        self.files, self.truth, self.policy = files, truth, None

    def __len__(self):
        return len(self.files)

    def __getitem__(self, index):
        if self.policy is None:
            self.policy = detection_policy() if self.truth else classification_policy()
        image = decode(self.files[index])
        if not self.truth:
            return self.policy(image=image)["image"], np.zeros(1, "int32")
        boxes, labels = self.truth[index]
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
