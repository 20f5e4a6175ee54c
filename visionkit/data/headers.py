"""What an image file says of itself, read without any decoder.

A few KiB are read, whatever the file's size, so a folder of 100,000 images takes
seconds, and a decompression bomb is refused before anything is allocated for it.
"""

from __future__ import annotations

import io
import os
import re
import stat
import struct
import zlib

from visionkit.data.exif import exif_orientation
from visionkit.data.image_header import BadImage, ImageHeader

MAX_PIXELS = 50_000_000
"""Largest image that is decoded, height * width."""

MAX_SIDE = 16_384
"""Longest side that is decoded, in pixels."""

MIN_SIDE = 2
"""Shortest side that is used, in pixels."""

HEAD_BYTES = 16 * 1024
TAIL_BYTES = 4 * 1024

MAX_GIF_BLOCKS = 65_536
"""Blocks, of up to 255 bytes each, of a GIF's first picture."""

MAX_SEGMENTS = 1000
"""Segments or chunks before the pixels that are walked; files have some dozens."""

CONVERT = "convert it to JPEG or PNG"

_FILL = re.compile(rb"\xff+")

# Formats that cameras and tools write and TensorFlow cannot decode: how the file
# starts (offset, bytes), and its name.
_FOREIGN = (
    (0, b"II*\0", "TIFF"),
    (0, b"MM\0*", "TIFF"),
    (0, b"II+\0", "BigTIFF"),
    (0, b"MM\0+", "BigTIFF"),
    (4, b"ftypavi", "AVIF"),
    (4, b"ftyphe", "HEIC"),
    (4, b"ftypmif1", "HEIF"),
    (4, b"ftypmsf1", "HEIF"),
    (0, b"\xff\x0a", "JPEG XL"),
    (4, b"JXL \r\n", "JPEG XL"),
    (4, b"jP  \r\n", "JPEG 2000"),
    (0, b"8BPS", "Photoshop"),
    (0, b"%PDF", "PDF"),
)


def inspect_image(image: str | os.PathLike | bytes) -> ImageHeader:
    """Reads the header of an image; never decodes, never blocks.

    Args:
        image: The path as `str` or `os.PathLike`, or the encoded image as `bytes`.
            A path in bytes has to go through `os.fsdecode`.

    Raises:
        BadImage: The image cannot be used; says by which rule.
    """
    if isinstance(image, bytes | bytearray | memoryview):
        return _inspect(_Window(io.BytesIO(image), len(image)))
    try:
        # A FIFO or a device would block or have side effects when opened.
        if not stat.S_ISREG(os.stat(image).st_mode):
            raise BadImage("image.not_a_file", "it is not a regular file")
        with open(image, "rb", buffering=0) as file:
            return _inspect(_Window(file, os.fstat(file.fileno()).st_size))
    except OSError as error:
        raise BadImage("image.unreadable", error.strerror or str(error)) from error
    except ValueError as error:
        if isinstance(error, BadImage):
            raise
        raise BadImage("image.unreadable", str(error)) from error  # NUL in the name


class _Window:
    """Random access to a file of which mostly the head is asked for."""

    def __init__(self, file, size: int):
        self.file = file
        self.size = size
        self.head = file.read(HEAD_BYTES)

    def at(self, offset: int, length: int) -> bytes:
        """`length` bytes from `offset`, fewer where the file ends."""
        if offset + length <= len(self.head) or len(self.head) == self.size:
            return self.head[offset : offset + length]
        self.file.seek(offset)
        return self.file.read(length)

    def exactly(self, offset: int, length: int) -> bytes:
        data = self.at(offset, length)
        if len(data) < length:
            raise BadImage("image.truncated", f"it ends in its header ({self.size} B)")
        return data

    def contains(self, needle: bytes, start: int) -> bool:
        """Whether `needle` stands behind `start`: in the tail, or else anywhere."""
        tail = max(start, self.size - TAIL_BYTES)
        if needle in self.at(tail, self.size - tail):
            return True
        # Rare: the file is truncated, or carries something big behind the image,
        # as the motion photos of telephones do.
        step, overlap = 1 << 20, len(needle) - 1
        return any(
            needle in self.at(offset, step + overlap)
            for offset in range(start, tail, step)
        )


def _inspect(window: _Window) -> ImageHeader:
    head = window.head
    if not window.size:
        raise BadImage("image.empty", "it has 0 bytes")
    for magic, read in _READERS:
        if head.startswith(magic) and (magic != b"RIFF" or head[8:12] == b"WEBP"):
            header = read(window)
            return _check_size(header)
    for offset, magic, name in _FOREIGN:
        if head[offset:].startswith(magic):
            raise BadImage("image.format", f"{name} is not supported; {CONVERT}")
    text = head[:4].decode("latin-1")
    shown = f'"{text}"' if text.isprintable() else head[:4].hex(" ")
    raise BadImage("image.format", f"not a known image format, starts with {shown}")


def _check_size(header: ImageHeader) -> ImageHeader:
    height, width = header.height, header.width
    size = f"{width} x {height} pixels (width x height)"
    if min(height, width) < 1:
        raise BadImage("image.corrupt", f"its header says {size}")
    if height * width > MAX_PIXELS or max(height, width) > MAX_SIDE:
        limit = f"at most {MAX_PIXELS:,} pixels and {MAX_SIDE:,} on a side"
        raise BadImage("image.too_large", f"{size}; {limit}")
    if min(height, width) < MIN_SIDE:
        raise BadImage("image.too_small", f"{size}; at least {MIN_SIDE} on a side")
    return header


def _find_frame(window: _Window) -> tuple[int, int, bytes]:
    """Walks the markers to the frame header (ITU-T T.81, annex B).

    Returns:
        Its marker and where it stands, and the Exif data before it.
    """
    offset, exif = 2, b""
    for _ in range(MAX_SEGMENTS):
        prefix, marker = window.exactly(offset, 2)
        if prefix != 0xFF:
            raise BadImage("image.corrupt", f"no JPEG marker at byte {offset}")
        if marker == 0xFF:  # fill bytes, up to the last one
            filled = window.at(offset, HEAD_BYTES)
            offset += _FILL.match(filled).end() - 1
            continue
        if 0xD0 <= marker <= 0xD7 or marker == 0x01:  # markers without a length
            offset += 2
            continue
        if marker in (0xD9, 0xDA):  # end of image, start of scan
            raise BadImage("image.corrupt", "a JPEG without a frame header")
        (length,) = struct.unpack(">H", window.exactly(offset + 2, 2))
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return marker, offset, exif
        if marker == 0xE1 and not exif and window.at(offset + 4, 6) == b"Exif\0\0":
            exif = window.at(offset + 10, length - 8)
        offset += 2 + max(length, 2)
    detail = f"a JPEG with more than {MAX_SEGMENTS} markers before its frame header"
    raise BadImage("image.corrupt", detail)


def _read_jpeg(window: _Window) -> ImageHeader:
    """The frame header, and whether the end of the image is there."""
    marker, offset, exif = _find_frame(window)
    depth, height, width, channels = struct.unpack(
        ">BHHB", window.exactly(offset + 4, 6)
    )
    if marker not in (0xC0, 0xC1, 0xC2, 0xC9, 0xCA) or depth != 8:
        kind = f"{depth}-bit" if depth != 8 else "lossless or hierarchical"
        raise BadImage("image.format", f"a {kind} JPEG is not supported; {CONVERT}")
    if channels not in (1, 3, 4):
        raise BadImage("image.corrupt", f"a JPEG of {channels} channels")
    # In the scans 0xFF is followed by 0x00 or a restart marker: 0xFFD9 is the end.
    if not window.contains(b"\xff\xd9", offset):
        raise BadImage("image.truncated", f"a JPEG without its end ({window.size} B)")
    orientation = exif_orientation(exif)
    return ImageHeader("jpeg", height, width, channels, depth, orientation)


def _read_png(window: _Window) -> ImageHeader:
    """IHDR, then the chunks up to the pixels for alpha and EXIF (W3C PNG, 11.2)."""
    ihdr = window.exactly(12, 21)
    if ihdr[:4] != b"IHDR" or zlib.crc32(ihdr[:17]) != int.from_bytes(ihdr[17:]):
        raise BadImage("image.corrupt", "a PNG with a damaged header")
    width, height, depth, colour = struct.unpack(">IIBB", ihdr[4:14])
    if colour not in (0, 2, 3, 4, 6) or depth not in (1, 2, 4, 8, 16):
        raise BadImage("image.corrupt", f"a PNG of colour type {colour}, {depth} bits")
    channels = {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}[colour]
    offset, orientation, animated = 33, 1, False
    for _ in range(MAX_SEGMENTS):
        length, kind = struct.unpack(">I4s", window.exactly(offset, 8))
        if kind in (b"IDAT", b"IEND"):
            break
        if kind == b"tRNS" and channels in (1, 3):
            channels += 1
        elif kind == b"acTL":
            animated = True
        elif kind == b"eXIf":
            orientation = exif_orientation(window.at(offset + 8, min(length, 65536)))
        offset += 12 + length
    else:
        detail = f"a PNG with more than {MAX_SEGMENTS} chunks before its pixels"
        raise BadImage("image.corrupt", detail)
    if not window.contains(b"IEND\xaeB`\x82", offset):
        raise BadImage("image.truncated", f"a PNG without its end ({window.size} B)")
    return ImageHeader("png", height, width, channels, depth, orientation, animated)


def _read_gif(window: _Window) -> ImageHeader:
    """The screen, and the first picture to its end (GIF89a, 17 to 24).

    A decoder makes room for the pictures, each of which has a size of its own.
    """
    width, height, flags = struct.unpack("<HHB", window.exactly(6, 5))
    offset = 13 + _colour_table(flags)
    for _ in range(MAX_SEGMENTS):
        (kind,) = window.exactly(offset, 1)
        if kind == 0x2C:
            break
        if kind != 0x21:
            raise BadImage("image.corrupt", f"a GIF with no block at byte {offset}")
        offset = _end_of_blocks(window, offset + 2)
    else:
        detail = f"a GIF with more than {MAX_SEGMENTS} blocks before its picture"
        raise BadImage("image.corrupt", detail)
    x, y, w, h, flags = struct.unpack("<HHHHB", window.exactly(offset + 1, 9))
    if x + w > width or y + h > height:
        detail = f"a GIF of {width} x {height} pixels with a picture of {w} x {h}"
        raise BadImage("image.corrupt", f"{detail} (width x height)")
    end = _end_of_blocks(window, offset + 11 + _colour_table(flags))
    moving = window.at(end, 1) in (b"\x21", b"\x2c")
    return ImageHeader("gif", height, width, 3, animated=moving)


def _colour_table(flags: int) -> int:
    """Bytes of the table of colours that a GIF's flags announce."""
    return 3 * 2 ** ((flags & 7) + 1) if flags & 0x80 else 0


def _end_of_blocks(window: _Window, offset: int) -> int:
    """Where a GIF goes on behind a chain of blocks that begins at `offset`."""
    for _ in range(MAX_GIF_BLOCKS):
        (length,) = window.exactly(offset, 1)
        offset += length + 1
        if not length:
            return offset
    raise BadImage("image.corrupt", f"a GIF of more than {MAX_GIF_BLOCKS} blocks")


def _read_bmp(window: _Window) -> ImageHeader:
    """Core (12 bytes) or info header; a negative height means rows from the top."""
    (start, header_size) = struct.unpack("<II", window.exactly(10, 8))
    if header_size == 12:
        width, height, _, bits = struct.unpack("<HHHH", window.exactly(18, 8))
        compression = 0
    else:
        fields = struct.unpack("<iiHHI", window.exactly(18, 16))
        width, height, _, bits, compression = fields
    height = abs(height)
    if (
        compression == 0
        and window.size < start + (width * bits + 31) // 32 * 4 * height
    ):
        raise BadImage("image.truncated", f"a BMP without its end ({window.size} B)")
    return ImageHeader("bmp", height, width, 4 if bits == 32 else 3)


def _read_webp(window: _Window) -> ImageHeader:
    """Lossy, lossless or extended (RFC 9649, 2.5 to 2.7)."""
    (riff_size,) = struct.unpack("<I", window.exactly(4, 4))
    if window.size < riff_size + 8:
        raise BadImage("image.truncated", f"a WebP without its end ({window.size} B)")
    kind = window.exactly(12, 4)
    if kind == b"VP8 ":
        width, height = struct.unpack("<HH", window.exactly(26, 4))
        return ImageHeader("webp", height & 0x3FFF, width & 0x3FFF, 3)
    if kind == b"VP8L":
        bits = int.from_bytes(window.exactly(21, 4), "little")
        height, width = (bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1
        return ImageHeader("webp", height, width, 4 if bits >> 28 & 1 else 3)
    if kind == b"VP8X":
        flags, _, width, height = struct.unpack("<B3s3s3s", window.exactly(20, 10))
        if flags & 2:
            detail = f"an animated WebP is not supported; {CONVERT}"
            raise BadImage("image.format", detail)
        height, width = (int.from_bytes(v, "little") + 1 for v in (height, width))
        return ImageHeader("webp", height, width, 4 if flags & 0x10 else 3)
    raise BadImage("image.corrupt", f"a WebP whose first chunk is {kind!r}")


_READERS = (
    (b"\xff\xd8\xff", _read_jpeg),
    (b"\x89PNG\r\n\x1a\n", _read_png),
    (b"GIF87a", _read_gif),
    (b"GIF89a", _read_gif),
    (b"BM", _read_bmp),
    (b"RIFF", _read_webp),
)
