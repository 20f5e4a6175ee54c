"""What people hand to `predict`, as a plain list of images."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from visionkit.data.headers import inspect_image
from visionkit.data.image_header import SUFFIXES, BadImage
from visionkit.types import Preprocessing

IMAGE_SUFFIXES = tuple(suffix for group in SUFFIXES.values() for suffix in group)

VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v")

Image = str | bytes | np.ndarray
"""A file's path, an encoded image, or (H, W, C) uint8 pixels."""


def list_images(images, preprocessing: Preprocessing) -> list[Image]:
    """The images one by one, in the order given.

    Args:
        images: A path, a folder (its image files, sorted, not those of subfolders), a
            glob pattern (matches sorted), encoded bytes, an (H, W, C) or (B, H, W, C)
            uint8 array, a `PIL.Image`, or a sequence of any of these. A video is one
            item.
        preprocessing: Its channels and EXIF rule apply to arrays and PIL images.

    Returns:
        Paths as `str`, encoded images as `bytes`, pixels as (H, W, C) uint8 arrays.

    Raises:
        FileNotFoundError: A path is missing, or a pattern matches nothing.
        TypeError: Something is no image.
        ValueError: An array has another type or shape, or a folder has no images.
    """
    single = isinstance(images, str | bytes | os.PathLike)
    # An array of 4 dimensions is a batch; a PIL image is no Iterable.
    if single or not isinstance(images, Iterable) or getattr(images, "ndim", 4) != 4:
        images = [images]
    return [item for image in images for item in _expand(image, preprocessing)]


def _expand(image, preprocessing: Preprocessing) -> list[Image]:
    if isinstance(image, str | os.PathLike):
        return _list_files(os.fsdecode(image))
    if isinstance(image, bytes):
        return [image]
    if isinstance(image, np.ndarray):
        return [_checked_array(image, preprocessing.channels)]
    if hasattr(image, "getexif"):  # A PIL image, without importing PIL to ask.
        return [_pixels(image, preprocessing)]
    raise TypeError(
        "An image must be a path, encoded bytes, a uint8 array or a PIL image. "
        f"Received: {type(image).__name__}"
    )


def _list_files(path: str) -> list[str]:
    if os.path.isdir(path):
        names = sorted(os.listdir(path))
        files = [name for name in names if name.lower().endswith(IMAGE_SUFFIXES)]
        if not files:
            raise ValueError(
                f"The folder has no images: {path!r}. Expected files that end in "
                f"{', '.join(IMAGE_SUFFIXES)}. Received: {len(names)} other entries"
            )
        return [os.path.join(path, name) for name in files]
    if os.path.lexists(path):
        return [path]
    if matches := sorted(glob.glob(path)):
        return matches
    raise FileNotFoundError(f"There is no image, folder or match of {path!r}.")


def _pixels(image, preprocessing: Preprocessing) -> np.ndarray:
    from PIL import ImageOps

    if preprocessing.exif == "apply":
        image = ImageOps.exif_transpose(image)
    if image.mode[0] in "IF":
        raise ValueError(
            "A PIL image must have 8 bits per channel. Received: mode "
            f"{image.mode!r}. Give the file's path instead, which is scaled to 8 bits."
        )
    pixels = np.array(image.convert("L" if preprocessing.channels == 1 else "RGB"))
    return pixels.reshape(*pixels.shape[:2], preprocessing.channels)


def _checked_array(array: np.ndarray, channels: int) -> np.ndarray:
    if array.dtype != np.uint8:
        raise ValueError(
            "An image array must be uint8, 0..255. Received: dtype "
            f"{array.dtype}. Convert it, e.g. `array.round().astype('uint8')`."
        )
    if array.ndim != 3 or array.shape[-1] != channels or 0 in array.shape:
        raise ValueError(
            f"An image array must have the shape (H, W, {channels}). "
            f"Received: shape {array.shape}"
        )
    return array


def is_video(item: Image) -> bool:
    """Whether it is the path of a video, by its suffix."""
    return isinstance(item, str) and item.lower().endswith(VIDEO_SUFFIXES)


def saved_model_folder(path: str | os.PathLike) -> Path | None:
    """The SavedModel at `path`: itself, or its newest numeric version; else None."""
    path = Path(path)
    if (path / "saved_model.pb").is_file():
        return path
    versions = [p for p in path.glob("*/saved_model.pb") if p.parent.name.isdecimal()]
    return max((p.parent for p in versions), key=lambda p: int(p.name), default=None)


def split_kinds(items: Sequence[Image]) -> tuple[list[int], list[int]]:
    """Indices of files and encoded images, and indices of arrays."""
    arrays = [i for i, item in enumerate(items) if isinstance(item, np.ndarray)]
    encoded = [i for i, item in enumerate(items) if not isinstance(item, np.ndarray)]
    return encoded, arrays


def original_size(
    item: Image, preprocessing: Preprocessing, valid: bool = True
) -> tuple[int, int]:
    """(height, width) of the frame that answers speak of.

    Args:
        item: As received.
        preprocessing: Its EXIF rule applies.
        valid: Whether the image could be decoded.

    Raises:
        BadImage: Its header is wrong, or it could not be decoded.
    """
    if isinstance(item, np.ndarray):
        size = item.shape[:2]
    else:
        header = inspect_image(item)
        upright = preprocessing.exif == "apply"
        size = header.upright_size if upright else (header.height, header.width)
    if not valid:
        raise BadImage("image.corrupt", "its content cannot be decoded")
    return size


def is_file(item: str | bytes) -> bool:
    """Whether it is a regular file: others block when read (a pipe), or are folders."""
    return isinstance(item, str) and os.path.isfile(item)


def read_encoded(item: str | bytes) -> bytes:
    """The encoded image; empty, hence invalid, when it cannot be read."""
    if isinstance(item, bytes):
        return item
    try:
        return Path(item).read_bytes() if is_file(item) else b""
    except OSError:
        return b""
