"""The one EXIF tag that matters for pixels."""

from __future__ import annotations

import struct

ORIENTATION_TAG = 0x0112


def exif_orientation(tiff: bytes) -> int:
    """The orientation in an EXIF block, 1..8; 1 where it is absent or damaged.

    Args:
        tiff: The block from its byte order mark on (TIFF 6.0, section 2), without
            JPEG's "Exif" prefix.
    """
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None:
        return 1
    try:
        (first,) = struct.unpack_from(f"{order}I", tiff, 4)
        (count,) = struct.unpack_from(f"{order}H", tiff, first)
        for entry in range(first + 2, first + 2 + 12 * count, 12):
            tag, kind = struct.unpack_from(f"{order}HH", tiff, entry)
            if tag == ORIENTATION_TAG and kind == 3:  # SHORT
                (value,) = struct.unpack_from(f"{order}H", tiff, entry + 8)
                return value if 1 <= value <= 8 else 1
    except struct.error:
        pass
    return 1
