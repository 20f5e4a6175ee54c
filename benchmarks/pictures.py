"""Photographs as JPEG files in memory, and as a source of data."""

from __future__ import annotations

import functools
import io

import numpy as np

SIZE = (480, 640)  # COCO's usual one
COUNT, BOXES = 64, 8


@functools.cache
def photographs(count: int = COUNT) -> tuple[bytes, ...]:
    """JPEGs of 640 x 480, quality 90: two photographs, mirrored and noisy.

    They are scikit-learn's samples, the only ones that come with a package. A little
    noise (standard deviation 4) makes the files as large as those of cameras are.
    """
    from PIL import Image
    from sklearn.datasets import load_sample_images

    rng, files = np.random.default_rng(0), []
    originals = [
        np.asarray(Image.fromarray(image).resize(SIZE[::-1]))
        for image in load_sample_images().images
    ]
    for index in range(count):
        image = originals[index % len(originals)]
        image = image[:, :: 1 - 2 * (index // 2 % 2)]
        image = np.clip(image + rng.normal(0, 4, image.shape), 0, 255).astype("uint8")
        file = io.BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=90)
        files.append(file.getvalue())
    return tuple(files)


def source_of(records: list[dict], task: str, num_classes: int):
    """A `Source` of records in memory."""
    from visionkit.data.sources.base import Source, SourceInfo

    class Memory(Source):
        def __init__(self):
            names = tuple(str(i) for i in range(num_classes))
            self.info = SourceInfo(task, names, len(records), "train", "memory")
            self.skipped = []

        def record(self, index):
            return records[index]

    return Memory()


def boxes_of(index: int) -> tuple[np.ndarray, np.ndarray]:
    """(N, 4) float32 xyxy pixels and (N,) int32 labels of a photograph."""
    from benchmarks.work import draw_boxes, draw_labels

    return draw_boxes(1, BOXES, SIZE, index)[0], draw_labels(1, BOXES, 10, index)[0]


def decode(data) -> np.ndarray:
    """(h, w, 3) uint8 of a JPEG, by OpenCV in this thread alone."""
    import cv2

    cv2.setNumThreads(1)  # the workers are the parallelism
    image = cv2.imdecode(np.frombuffer(data, "uint8"), cv2.IMREAD_COLOR)
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
