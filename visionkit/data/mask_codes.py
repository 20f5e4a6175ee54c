"""What the pixels of mask files say: values or colours, and the classes they mean.

In NumPy and Pillow; `index_masks.decode_mask` is the same in TensorFlow's graph.
"""

from __future__ import annotations

import dataclasses
import functools
import io
import os

import numpy as np

from visionkit.data.headers import inspect_image
from visionkit.data.image_header import BadImage, ImageHeader
from visionkit.types import VOID_CLASS

UNKNOWN = -1
"""Stands in tables for what no class has."""

_SHOWN = 5  # unknown values that a message names


@dataclasses.dataclass(frozen=True)
class MaskCode:
    """Which class each value, or colour, of a mask file means.

    Args:
        table: (value, class id) pairs, 255 for void; a value is a grey value or palette
            index 0..255, or with `colors` red * 65536 + green * 256 + blue.
        colors: Masks are read as RGB; palettes then mean their colours.
        others: Values that are not in the table are void, not an error.
    """

    table: tuple[tuple[int, int], ...]
    colors: bool = False
    others: bool = False

    @classmethod
    def of_ids(cls, num_classes: int) -> MaskCode:
        """The code of masks that hold class ids as they are, and 255 for void."""
        ids = [*range(num_classes), VOID_CLASS]
        return cls(tuple(zip(ids, ids, strict=True)))

    @functools.cached_property
    def columns(self) -> tuple[np.ndarray, np.ndarray]:
        """(N,) int32 the values, ascending, and (N,) uint8 the class of each."""
        values, classes = np.array(sorted(self.table), np.int64).reshape(-1, 2).T
        return values.astype(np.int32), classes.astype(np.uint8)

    @functools.cached_property
    def lookup(self) -> np.ndarray:
        """(256,) int16, the class of each value of one byte, or `UNKNOWN`."""
        lookup = np.full(256, VOID_CLASS if self.others else UNKNOWN, np.int16)
        values, classes = self.columns
        lookup[values] = classes
        return lookup

    def decode(self, encoded: bytes) -> np.ndarray:
        """The class ids of an encoded mask.

        Returns:
            (H, W) uint8, 255 = void.

        Raises:
            BadImage: By the rule "mask.format", "mask.value", or one of
                `inspect_image` with "mask" for "image".
        """
        values = read_values(encoded, self.colors)
        if self.colors:
            known, classes = self.columns
            place = np.searchsorted(known, values).clip(max=len(known) - 1)
            found = classes[place].astype(np.int16)
            rest = VOID_CLASS if self.others else UNKNOWN
            found[known[place] != values] = rest
        else:
            found = self.lookup[values]
        unknown = found == UNKNOWN
        if unknown.any():
            raise BadImage("mask.value", self._say(values[unknown]))
        return found.astype(np.uint8)

    def _say(self, values: np.ndarray) -> str:
        found, counts = np.unique(values, return_counts=True)
        order = np.argsort(-counts, kind="stable")
        named = [f"{self.name(found[i])} ({counts[i]} pixels)" for i in order[:_SHOWN]]
        more = f" and {len(order) - _SHOWN} more" if len(order) > _SHOWN else ""
        kind = "colours" if self.colors else "values"
        return f"{len(values)} pixels of {kind} that no class has: " + (
            f"{', '.join(named)}{more}"
        )

    def name(self, value: int) -> str:
        """A value as it stands in a recipe."""
        value = int(value)
        if not self.colors:
            return str(value)
        return str([value >> 16, value >> 8 & 255, value & 255])


def read_values(encoded: bytes, colors: bool = False) -> np.ndarray:
    """The values in a mask: what the keys of a code's table are.

    Args:
        encoded: A PNG; without `colors` a grey one or one with a palette, of which the
            indices are read.
        colors: Read it as RGB; alpha is dropped.

    Returns:
        (H, W) uint8, or int32 of red * 65536 + green * 256 + blue.

    Raises:
        BadImage: As `MaskCode.decode`, but for "mask.value".
    """
    from PIL import Image

    header = inspect_mask(encoded)
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            palette = image.mode == "P"
            sound = header.format == "png" and header.bit_depth <= 8
            if not sound or not (colors or image.mode in ("1", "L", "P")):
                raise BadImage("mask.format", _format_detail(header, image.mode))
            pixels = np.asarray(image.convert("RGB") if colors else image)
    except (OSError, SyntaxError, ValueError) as error:
        if isinstance(error, BadImage):
            raise
        raise BadImage("mask.corrupt", str(error)) from error
    if colors:
        return pixels.astype(np.int32) @ np.array([65536, 256, 1], np.int32)
    if 1 < header.bit_depth < 8 and not palette:  # stretched to 0..255 by Pillow
        levels = 2**header.bit_depth - 1
        pixels = pixels.astype(np.int32) * levels // 255
    return pixels.astype(np.uint8)


def encode_mask(mask: np.ndarray) -> bytes:
    """A grey PNG of class ids (H, W) uint8."""
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(mask).save(out, "PNG")
    return out.getvalue()


def inspect_mask(mask: str | bytes) -> ImageHeader:
    """`inspect_image` of a mask, by path or encoded; its rules begin with "mask"."""
    try:
        return inspect_image(mask)
    except BadImage as bad:
        raise BadImage(bad.rule.replace("image", "mask"), bad.detail) from None


def encoded_mask(record) -> bytes:
    """The bytes of a record's mask.

    Raises:
        BadImage: Its file cannot be read.
    """
    if "mask_encoded" in record:
        return record["mask_encoded"]
    path = os.fsdecode(record["mask_path"])
    inspect_mask(path)  # refuses a pipe, which would block
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise BadImage("mask.unreadable", error.strerror or str(error)) from error


def _format_detail(header: ImageHeader, mode: str) -> str:
    detail = f"it is {header.format} of the kind {mode}, {header.bit_depth} bits"
    if header.format == "jpeg":
        return f"{detail}: JPEG changes values. Expected PNG"
    return (
        f"{detail}. Expected a PNG of grey values or with a palette, at most 8 bits; "
        "for one of colours give the classes' colours"
    )
