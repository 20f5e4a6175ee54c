"""What the first bytes of an image say, in TensorFlow's graph; nothing is decoded.

The graph's twin of `headers`: few ops, since every image of every epoch passes here.
Every function takes one image; `encoded` is a () string.
"""

from __future__ import annotations

import numpy as np

from visionkit.data.headers import MAX_GIF_BLOCKS, MAX_PIXELS, MAX_SIDE, MIN_SIDE
from visionkit.data.lazy import tf

GIF_BLOCKS = 1000  # before the first picture of a GIF; files have one to three

MAX_SCANS = 64
"""Scans of a JPEG that are decoded; a progressive one has about 10."""

_SCAN = b"\xff\xda\x00"  # where one begins; its header is shorter than 256 bytes

HEAD_BYTES = 32  # all sizes but JPEG's stand in the first 30 bytes


def image_dimensions(encoded):
    """(height, width) () int32 as stored, from the header alone; (0, 0) if unknown."""
    return _dimensions(encoded, read_head(encoded))


def check_header(encoded):
    """The same bytes, once their header has been found decodable.

    What is decoded from the result cannot run before the checks, so a small file that
    unpacks to gigabytes costs nothing. Of a GIF it is the first picture alone: the
    decoder would unpack all there are, and each may be larger than the header says.

    Raises:
        InvalidArgumentError: Empty, not an image, larger than `MAX_PIXELS` or
            `MAX_SIDE`, smaller than `MIN_SIDE`, a JPEG of more than `MAX_SCANS`, a
            damaged GIF or an animated WebP. The text begins with the rule, as
            `headers.inspect_image` names it.
    """
    head = read_head(encoded)
    empty = tf.strings.length(encoded) == 0
    flags = format_flags(head)
    known = tf.reduce_any(flags)
    encoded = require(~empty, encoded, "image.empty: it has 0 bytes")
    encoded = require(
        known, encoded, "image.format: expected JPEG, PNG, GIF, BMP or WebP bytes"
    )
    height, width = _dimensions(encoded, head)
    pixels = tf.cast(height, tf.int64) * tf.cast(width, tf.int64)
    encoded = require(
        (pixels <= MAX_PIXELS) & (tf.maximum(height, width) <= MAX_SIDE),
        encoded,
        f"image.too_large: at most {MAX_PIXELS:,} pixels and {MAX_SIDE:,} on a side; "
        "height, width:",
        height,
        width,
    )
    encoded = require(
        tf.minimum(height, width) >= MIN_SIDE,
        encoded,
        f"image.too_small: at least {MIN_SIDE} on a side; height, width:",
        height,
        width,
    )
    text = f"image.corrupt: a JPEG of more than {MAX_SCANS} scans"
    encoded = require(_has_few_scans(encoded) | ~flags[0], encoded, text)
    moving = flags[5] & (head[15] == ord("X")) & (head[20] & 2 > 0)
    text = "image.format: an animated WebP is not supported"
    encoded = require(~moving, encoded, text)
    is_gif = flags[2] | flags[3]
    return tf.cond(
        is_gif, lambda: _first_picture(encoded, height, width), lambda: encoded
    )


def _has_few_scans(encoded):
    """() bool, at most `MAX_SCANS` if it is a JPEG.

    Each scan is a pass over the whole image and can have 30 bytes: without a bound a
    file of a photograph's size is decoded for hours, and nothing can stop that.
    """
    parts = tf.raw_ops.StringSplitV2(input=[encoded], sep=_SCAN, maxsplit=MAX_SCANS + 1)
    return tf.size(parts.values) - 1 <= MAX_SCANS


def _first_picture(encoded, height, width):
    """A GIF cut off behind its first picture: the graph's twin of `headers._read_gif`.

    Args:
        encoded: () string.
        height: () int32, of the screen.
        width: () int32, of the screen.
    """
    # Behind the end are zeros: a chain of blocks ends there, and no block begins.
    padding = bytes(16)
    data = tf.io.decode_raw(tf.strings.join([encoded, padding]), tf.uint8)
    length = tf.strings.length(encoded)

    def at(place):
        return tf.cast(data[tf.minimum(place, length)], tf.int32)

    def colour_table(flags):
        return tf.where(flags & 0x80 > 0, 3 * tf.bitwise.left_shift(2, flags & 7), 0)

    def end_of_blocks(place):
        place = tf.while_loop(
            lambda place: at(place) > 0,
            lambda place: (place + at(place) + 1,),
            (place,),
            maximum_iterations=MAX_GIF_BLOCKS,
        )[0]
        return place + 1

    place = tf.while_loop(
        lambda place: at(place) == 0x21,  # what is no picture
        lambda place: (end_of_blocks(place + 2),),
        (13 + colour_table(at(10)),),
        maximum_iterations=GIF_BLOCKS,
    )[0]
    sound = at(place) == 0x2C
    text = "image.corrupt: a GIF without a picture"
    place = require(sound, place, text)
    x, y, w, h = (at(place + i) + 256 * at(place + i + 1) for i in (1, 3, 5, 7))
    inside = (x + w <= width) & (y + h <= height)
    text = "image.corrupt: a GIF with a picture larger than itself; height, width:"
    place = require(inside, place, text, h, w)
    end = end_of_blocks(place + 11 + colour_table(at(place + 9)))
    end = require(end <= length, end, "image.truncated: a GIF without its end")
    return tf.strings.join([tf.strings.substr(encoded, 0, end), b";"])


def require(condition, value, text, *received):
    """`value`, which cannot be computed with unless `condition` () bool holds.

    Raises:
        InvalidArgumentError: It does not; says `text` and the tensors `received`.
    """
    # The raw op: `tf.debugging.Assert` adds a branch, and there are many checks.
    check = tf.raw_ops.Assert(condition=condition, data=[text, *received], summarize=8)
    with tf.control_dependencies([] if check is None else [check]):
        return tf.identity(value)


def is_sixteen_bit(encoded):
    """() bool: a PNG of 16 bits per sample, of which `decode_image` keeps 8."""
    head = read_head(encoded)
    return format_flags(head)[1] & (head[24] == 16)


def has_webp_alpha(encoded):
    """() bool: a WebP with an alpha channel (RFC 9649, 2.6 and 2.7)."""
    head = read_head(encoded)
    lossless = (head[15] == ord("L")) & (head[24] & 0x10 > 0)
    extended = (head[15] == ord("X")) & (head[20] & 0x10 > 0)
    return format_flags(head)[5] & (lossless | extended)


def read_head(encoded):
    """The first bytes, (HEAD_BYTES,) uint8, zeros behind the end."""
    head = tf.strings.substr(encoded, 0, HEAD_BYTES)
    padded = tf.io.decode_raw(tf.strings.join([head, bytes(HEAD_BYTES)]), tf.uint8)
    return tf.ensure_shape(padded[:HEAD_BYTES], [HEAD_BYTES])


def format_flags(head):
    """(6,) bool: JPEG, PNG, GIF of 1987 and of 1989, BMP, WebP; one at most is true."""
    magic, where = _MAGIC
    return tf.reduce_all((head == magic) | ~where, axis=1)


def _dimensions(encoded, head):
    """`image_dimensions` for bytes whose head is read already."""
    flags = format_flags(head)
    jpeg = tf.cond(
        flags[0],
        lambda: tf.cast(tf.image.extract_jpeg_shape(encoded), tf.float64)[:2],
        lambda: tf.zeros(2, tf.float64),
    )
    # All numbers of all formats at once; float64 is exact far beyond 2**32.
    numbers = tf.linalg.matvec(_FIELDS, tf.cast(head, tf.float64))
    png, gif, bmp, old_bmp, lossy, extended, last = tf.unstack(
        tf.reshape(numbers, [-1, 2])
    )
    bits, header_size = tf.unstack(last)
    # A negative height of a BMP means rows from the top.
    bmp = tf.minimum(bmp, tf.abs(bmp - [2.0**32, 0.0]))
    bmp = tf.where(header_size == 12, old_bmp, bmp)
    lossless = tf.stack([tf.floor(bits / 2**14), bits]) % 2**14 + 1
    webp = tf.where(head[15] == ord("L"), lossless, lossy % 2**14)
    webp = tf.where(head[15] == ord("X"), extended + 1, webp)
    sizes = tf.stack([jpeg, png, gif, gif, bmp, webp])
    size = tf.reduce_sum(tf.where(flags[:, None], sizes, 0.0), axis=0)
    size = tf.cast(tf.minimum(size, 2.0**31 - 1), tf.int32)
    return size[0], size[1]


def _magic_table():
    """(formats, HEAD_BYTES) uint8 how files begin, and bool where that is laid down."""
    starts = (
        {0: b"\xff\xd8\xff"},
        {0: b"\x89PNG\r\n\x1a\n"},
        {0: b"GIF87a"},
        {0: b"GIF89a"},
        {0: b"BM"},
        {0: b"RIFF", 8: b"WEBP"},
    )
    magic = np.zeros((len(starts), HEAD_BYTES), np.uint8)
    where = np.zeros(magic.shape, bool)
    for row, start in enumerate(starts):
        for at, text in start.items():
            magic[row, at : at + len(text)] = list(text)
            where[row, at : at + len(text)] = True
    return magic, where


def _field_table():
    """(fields, HEAD_BYTES) float64: weights that read numbers out of the head."""
    fields = (  # first byte, bytes, big-endian; height then width
        *((20, 4, True), (16, 4, True)),  # PNG
        *((8, 2, False), (6, 2, False)),  # GIF
        *((22, 4, False), (18, 4, False)),  # BMP
        *((20, 2, False), (18, 2, False)),  # BMP of OS/2
        *((28, 2, False), (26, 2, False)),  # WebP, lossy
        *((27, 3, False), (24, 3, False)),  # WebP, extended
        *((21, 4, False), (14, 4, False)),  # WebP, lossless: bits; BMP: header size
    )
    weights = np.zeros((len(fields), HEAD_BYTES))
    for row, (start, count, big_endian) in enumerate(fields):
        powers = 256.0 ** np.arange(count)
        weights[row, start : start + count] = powers[::-1] if big_endian else powers
    return weights


_MAGIC = _magic_table()
_FIELDS = _field_table()
