"""A small source in memory and pictures for it."""

import io

import numpy as np
from PIL import Image

from visionkit.data.sources.base import Source, SourceInfo


def picture(height=48, width=64, seed=0):
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (6, 8, 3), np.uint8)
    return Image.fromarray(small).resize((width, height), Image.BICUBIC)


def encode(image, format="PNG", **options):
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


class MemorySource(Source):
    """Records in a list."""

    def __init__(self, records, task="classification", num_classes=4):
        names = tuple(f"class {i}" for i in range(num_classes))
        self.info = SourceInfo(task, names, len(records), name="memory")
        self.records, self.skipped = records, []

    def record(self, index):
        return self.records[index]


def classification_source(count=12, broken=(), format="JPEG"):
    """Pictures of which the label is the index; the `broken` ones are cut off."""
    records = []
    for index in range(count):
        size = (40 + index, 64 - index)
        encoded = encode(picture(*size, seed=index), format)
        if index in broken:
            encoded = encoded[: len(encoded) // 2]
        records.append({"encoded": encoded, "label": index})
    return MemorySource(records, num_classes=count)
