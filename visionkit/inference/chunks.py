"""Encoded images in groups that are small enough to be answered together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from visionkit.data.headers import inspect_image
from visionkit.data.image_header import BadImage
from visionkit.inference.inputs import Image, read_encoded

CHUNK_PIXELS = 100_000_000
"""Of the images in a group, each counted as large as the highest and the widest: so
large are the answers for pixels, and `serve` takes no more in a request."""


def chunks(
    images: Iterable[Image], count: int, size: float = float("inf")
) -> Iterator[list[bytes]]:
    """The encoded images, in order; empty where a header says that one is unusable.

    Args:
        images: Paths and encoded images.
        count: Most of them in a group.
        size: Most bytes in a group; as with `CHUNK_PIXELS`, a larger image goes alone.
    """
    chunk, total, high, wide = [], 0, 0, 0
    for image in images:
        content, height, width = _measured(image)
        high, wide, total = max(high, height), max(wide, width), total + len(content)
        full = len(chunk) == count or total > size
        if chunk and (full or (len(chunk) + 1) * high * wide > CHUNK_PIXELS):
            yield chunk
            chunk, total, high, wide = [], len(content), height, width
        chunk.append(content)
    if chunk:
        yield chunk


def _measured(image: Image) -> tuple[bytes, int, int]:
    """The encoded image, its height and its width."""
    content = read_encoded(image)
    try:
        return (content, *inspect_image(content).upright_size)
    except BadImage:
        return b"", 0, 0
