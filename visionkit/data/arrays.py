"""Data in memory, for any backend: NumPy and Pillow, no TensorFlow."""

from __future__ import annotations

import io
import os
from typing import NamedTuple

import keras
import numpy as np
from PIL import Image, ImageOps

from visionkit.data.geometry import placement_of, resize_geometry
from visionkit.data.headers import inspect_image
from visionkit.data.sources.base import Source
from visionkit.types import MASK_SIZE, PAD_VALUE, Preprocessing


class LoadedImages(NamedTuple):
    """Images at model size, and how they came there.

    Attributes:
        images: (N, h, w, C) uint8.
        placements: (N, 4) float32 [scale_y, scale_x, offset_y, offset_x]:
            resized = original * scale + offset.
        image_sizes: (N, 2) int32, original (height, width), upright.
    """

    images: np.ndarray
    placements: np.ndarray
    image_sizes: np.ndarray


class ArrayDataset(keras.utils.PyDataset):
    """Batches of arrays in memory.

    With `shuffle`, epoch `e` is the permutation of (seed, e) and only whole batches are
    given (fewer rows than a batch are repeated), so that shapes are static. Without,
    rows come in order and the last batch may be smaller.

    Args:
        images: (N, h, w, C) array.
        target: Array of N rows, or a dict of such arrays.
        batch_size: Rows per batch.
        shuffle: Whether this is for training.
        seed: Of the permutations and of `transform`.
        transform: Called with (images, target, rng) of each batch, where `rng` is a
            `numpy.random.Generator` of (seed, epoch, batch); returns (images, target).

    Attributes:
        epoch: The epoch that is read; Keras counts it up. Set it to resume.
    """

    def __init__(
        self, images, target, batch_size, *, shuffle=False, seed=0, transform=None
    ):
        super().__init__()
        columns = target if isinstance(target, dict) else {"target": target}
        rows = {"images": len(images), **{k: len(v) for k, v in columns.items()}}
        if not len(images) or set(rows.values()) != {len(images)} or batch_size < 1:
            raise ValueError(
                "Expected at least one image, as many rows in `target`, and "
                f"`batch_size` of at least 1. Received: rows {rows}, "
                f"batch_size={batch_size}"
            )
        self.images = images
        self.target = target
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.seed = seed
        self.transform = transform
        self.epoch = 0

    def __len__(self) -> int:
        """Batches per epoch."""
        if self.shuffle:
            return max(1, len(self.images) // self.batch_size)
        return -(-len(self.images) // self.batch_size)

    def __getitem__(self, index: int):
        """(images, target) of batch `index` of the epoch."""
        order = np.arange(len(self.images))
        if self.shuffle:
            order = np.random.default_rng((self.seed, self.epoch)).permutation(order)
            order = np.resize(order, max(len(order), self.batch_size))
        rows = order[index * self.batch_size : (index + 1) * self.batch_size]
        if isinstance(self.target, dict):
            target = {key: value[rows] for key, value in self.target.items()}
        else:
            target = self.target[rows]
        images = self.images[rows]
        if self.transform is None:
            return images, target
        rng = np.random.default_rng((self.seed, self.epoch, index))
        return self.transform(images, target, rng)

    def on_epoch_end(self) -> None:
        """Goes on to the next epoch's permutation."""
        self.epoch += 1


def load_images(
    source: Source | list[str | os.PathLike | bytes], preprocessing: Preprocessing
) -> LoadedImages:
    """All images at model size, as the TensorFlow pipeline makes them (± 2 levels).

    Args:
        source: A source, or a list of paths and of encoded images in bytes.
        preprocessing: Mode, size, channels and EXIF rule.

    Raises:
        BadImage: An image cannot be used; says by which rule.
        OSError: Its pixels are damaged.
    """
    if isinstance(source, Source):
        records = map(source.record, range(len(source)))
        source = [
            r["encoded"] if "encoded" in r else os.fsdecode(r["path"]) for r in records
        ]
    frame = (*preprocessing.image_size, preprocessing.channels)
    images = np.empty((len(source), *frame), np.uint8)
    placements = np.empty((len(source), 4), np.float32)
    sizes = np.empty((len(source), 2), np.int32)
    for i, image in enumerate(source):
        pixels = _decode(image, preprocessing)
        sizes[i] = pixels.size[::-1]
        images[i], placements[i] = _resize(pixels, preprocessing)
    return LoadedImages(images, placements, sizes)


def frame_masks(masks, boxes) -> np.ndarray:
    """Instance masks as a target has them, from masks of the image's size.

    Args:
        masks: (N, H, W) bool or 0 / 1.
        boxes: (N, 4) xyxy pixels of the same image, inside of it.

    Returns:
        (N, MASK_SIZE, MASK_SIZE) uint8: cell (i, j) is the pixel at the point
        x1 + (j + 0.5) / MASK_SIZE * (x2 - x1), and y likewise.
    """
    masks, boxes = np.asarray(masks), np.asarray(boxes, np.float32).reshape(-1, 4)
    share = (np.arange(MASK_SIZE, dtype=np.float32) + 0.5) / MASK_SIZE

    def pixels(low, high, side):
        points = low[:, None] + share * (high - low)[:, None]
        return np.clip(np.floor(points).astype(int), 0, side - 1)

    x1, y1, x2, y2 = boxes.T
    y, x = pixels(y1, y2, masks.shape[1]), pixels(x1, x2, masks.shape[2])
    rows = np.arange(len(boxes))[:, None, None]
    return masks[rows, y[:, :, None], x[:, None, :]].astype(np.uint8)


def _decode(image, preprocessing) -> Image.Image:
    """An upright `PIL.Image` in mode L or RGB."""
    header = inspect_image(image)
    pixels = Image.open(io.BytesIO(image) if isinstance(image, bytes) else image)
    if preprocessing.exif == "apply":
        pixels = ImageOps.exif_transpose(pixels)
    if header.bit_depth == 16 and header.channels == 1:
        # Pillow would clip to 255 instead of scaling.
        pixels = Image.fromarray((np.asarray(pixels) / 257).round().astype(np.uint8))
    return pixels.convert("RGB").convert("L" if preprocessing.channels == 1 else "RGB")


def _resize(pixels, preprocessing):
    """The twin of `resize.resize_image`: (h, w, C) uint8 and its placement."""
    height, width = map(np.float64, pixels.size[::-1])
    (start, size), target, offset = resize_geometry(height, width, preprocessing, np)
    (y, x), (rows, columns), top_left = start, size, tuple(map(int, offset))
    part = pixels.crop((int(x), int(y), int(x + columns), int(y + rows)))
    part = part.resize((int(target[1]), int(target[0])), Image.BILINEAR)
    grey = Image.new("L", preprocessing.image_size[::-1], PAD_VALUE)
    frame = grey.convert(part.mode)
    frame.paste(part, top_left[::-1])
    image = np.asarray(frame).reshape(*preprocessing.image_size, preprocessing.channels)
    return image, placement_of(start, size, target, offset)
