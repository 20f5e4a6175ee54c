"""Reading PNGs that hold instances: numbers of many, or the pixels of one."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence

import numpy as np

from visionkit.data.image_header import BadImage
from visionkit.data.mask_codes import encoded_mask, inspect_mask, read_values
from visionkit.data.mask_runs import Instances, join_instances, split_ids
from visionkit.data.sources.base import Skip


def read_numbered(path: bytes, void: int | None = None) -> Instances:
    """The instances of a PNG whose pixels are their numbers, 0 where there is none.

    Grey of 8 or 16 bits, palette indices, or colours; a colour is the number red +
    256 * green + 65536 * blue.

    Args:
        path: The PNG.
        void: A number whose pixels are background too.

    Raises:
        BadImage: By a rule that begins with "mask".
    """
    pixels = _read_pixels(encoded_mask({"mask_path": path})).astype(np.int64)
    if pixels.ndim == 3:
        pixels = pixels @ np.array([1, 256, 65536])
    if void is not None:
        pixels = np.where(pixels == void, 0, pixels)
    return split_ids(pixels.astype(np.int32))


def read_separate(paths: Sequence[bytes], remarks: list[Skip]) -> Instances | None:
    """The instances of PNGs with one each, which are its pixels.

    A pixel belongs to it that is at least half as bright as the brightest.

    Args:
        paths: One per instance.
        remarks: Is told of those that are left out.

    Returns:
        The instances; None where no file can be used.
    """
    parts: list[Instances] = []
    for path in paths:
        try:
            part = split_ids(read_one(encoded_mask({"mask_path": path})))
            if parts and part.size != parts[0].size:
                sizes = [f"{p.size[1]}x{p.size[0]}" for p in (part, parts[0])]
                detail = f"it is {sizes[0]}, others of its image {sizes[1]}"
                raise BadImage("mask.size", detail)
            if not len(part.ids):
                raise BadImage("mask.empty", "no pixel is brighter than 0")
        except BadImage as bad:
            remarks.append(Skip(os.fsdecode(path), bad.rule, bad.detail))
            continue
        parts.append(part)
    return join_instances(parts) if parts else None


def read_one(encoded: bytes) -> np.ndarray:
    """(H, W) bool, the instance in an encoded PNG of its own; see `read_separate`."""
    pixels = _read_pixels(encoded)
    if pixels.ndim == 3:
        pixels = pixels.max(axis=2)
    return pixels >= max((int(pixels.max()) + 1) // 2, 1)


def _read_pixels(encoded: bytes) -> np.ndarray:
    """(H, W) uint8 or uint16, or (H, W, 3) uint8, of a PNG; alpha is dropped."""
    from PIL import Image

    header = inspect_mask(encoded)
    if header.format != "png":
        detail = f"it is {header.format}, which may change values. Expected PNG"
        raise BadImage("mask.format", detail)
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            if image.mode in ("1", "L", "P"):
                return read_values(encoded)
            if image.mode == "LA":
                return np.asarray(image)[..., 0]
            if image.mode.startswith("I"):
                return np.asarray(image).astype(np.uint16)
            return np.asarray(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError) as error:
        if isinstance(error, BadImage):
            raise
        raise BadImage("mask.corrupt", str(error)) from error
