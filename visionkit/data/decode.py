"""Encoded bytes to upright pixels, in TensorFlow's graph.

One decoder for training, prediction and export, since decoders differ in pixels. No
Python op: the same functions run in `dataset.map`, in `tf.map_fn` and in a SavedModel.
Every function takes one image; `encoded` is a () string.
"""

from __future__ import annotations

from visionkit.data.exif import ORIENTATION_TAG
from visionkit.data.headers import MAX_PIXELS, MAX_SIDE, MIN_SIDE
from visionkit.data.lazy import tf

HEAD_BYTES = 32  # all sizes but JPEG's stand in the first 30 bytes
EXIF_BYTES = 65536  # EXIF stands in the first segment, and a segment has 64 KiB

# RE2: JPEG's APP1 or PNG's chunk, up to the TIFF header.
TO_EXIF = r"^\C*?(?:Exif\x00\x00|eXIf)(II\*\x00|MM\x00\*)"

GREY_WEIGHTS = (0.299, 0.587, 0.114)
"""Luma of RGB (ITU-R BT.601), as JPEG and Pillow define grey."""


def image_dimensions(encoded):
    """(height, width) () int32 as stored, from the header alone; (0, 0) if unknown."""
    head = read_head(encoded)
    format_ = format_flags(head)
    jpeg = tf.cond(
        format_[0],
        lambda: tf.cast(tf.image.extract_jpeg_shape(encoded), tf.int64)[:2],
        lambda: tf.zeros(2, tf.int64),
    )
    sizes = tf.stack([jpeg, *_sizes_inread_head(head)])  # (formats, 2)
    size = tf.reduce_sum(tf.where(format_[:, None], sizes, 0), axis=0)
    size = tf.cast(tf.minimum(size, tf.int32.max), tf.int32)
    return size[0], size[1]


def check_header(encoded):
    """The same bytes, once their header has been found decodable.

    What is decoded from the result cannot run before the checks, so a small file that
    unpacks to gigabytes costs nothing.

    Raises:
        InvalidArgumentError: Empty, not an image, larger than `MAX_PIXELS` or
            `MAX_SIDE`, or smaller than `MIN_SIDE`. The text begins with the rule, as
            `headers.inspect_image` names it.
    """
    require = tf.debugging.Assert
    known = tf.reduce_any(format_flags(read_head(encoded)))
    checks = [
        require(tf.strings.length(encoded) > 0, ["image.empty: it has 0 bytes"]),
        require(known, ["image.format: expected JPEG, PNG, GIF, BMP or WebP bytes"]),
    ]
    with tf.control_dependencies([check for check in checks if check is not None]):
        height, width = image_dimensions(tf.identity(encoded))
    pixels = tf.cast(height, tf.int64) * tf.cast(width, tf.int64)
    longest, shortest = tf.maximum(height, width), tf.minimum(height, width)
    limit = f"at most {MAX_PIXELS:,} pixels and {MAX_SIDE:,} on a side"
    size = ["height, width:", height, width]
    checks = [
        require(
            (pixels <= MAX_PIXELS) & (longest <= MAX_SIDE),
            [f"image.too_large: {limit}", *size],
        ),
        require(
            shortest >= MIN_SIDE,
            [f"image.too_small: at least {MIN_SIDE} on a side", *size],
        ),
    ]
    with tf.control_dependencies([check for check in checks if check is not None]):
        return tf.identity(encoded)


def exif_orientation(encoded):
    """() int32, EXIF orientation 1..8; 1 where there is none or it is damaged."""
    head = tf.strings.substr(encoded, 0, EXIF_BYTES)
    tiff = tf.strings.regex_replace(head, TO_EXIF, r"\1", replace_global=False)
    mark = tf.strings.substr(tiff, 0, 4)
    big_endian = mark == b"MM\0*"
    found = big_endian | (mark == b"II*\0")
    return tf.cond(found, lambda: _orientation_tag(tiff, big_endian), lambda: 1)


def orient(image, orientation):
    """The image upright.

    Args:
        image: (H, W, C) as stored.
        orientation: () int32, EXIF orientation 1..8.

    Returns:
        (H, W, C), or (W, H, C) for orientations 5 to 8.
    """

    def when(orientations, change, image):
        holds = tf.reduce_any(orientation == tf.constant(orientations))
        return tf.cond(holds, lambda: change(image), lambda: image)

    image = when([5, 6, 7, 8], lambda x: tf.transpose(x, [1, 0, 2]), image)
    image = when([2, 3, 6, 7], lambda x: tf.reverse(x, [1]), image)
    return when([3, 4, 7, 8], lambda x: tf.reverse(x, [0]), image)


def decode_image(encoded, channels: int = 3, exif: str = "apply"):
    """One image as pixels.

    Args:
        encoded: () string: JPEG, PNG, GIF (first frame), BMP or WebP.
        channels: 1 (grey) or 3 (RGB).
        exif: `"apply"` turns the image upright, `"ignore"` leaves it as stored.

    Returns:
        (H, W, channels) uint8. 16-bit PNGs are scaled down, alpha is dropped.

    Raises:
        InvalidArgumentError: See `check_header`, or the pixels are damaged.
    """
    encoded = check_header(encoded)
    image = tf.io.decode_image(encoded, channels=3, expand_animations=False)
    image.set_shape([None, None, 3])
    if exif == "apply":
        image = orient(image, exif_orientation(encoded))
    return _to_channels(image, channels)


def decode_and_crop(encoded, window_of, channels: int = 3, exif: str = "apply"):
    """A window of one image; only that window is decoded where the format allows it.

    The pixels are `decode_image`'s, but for the window's outermost ones, whose colour
    JPEG interpolates from one side only.

    Args:
        encoded: As in `decode_image`.
        window_of: Called with the upright (height, width) as (2,) int32; returns the
            window [y, x, height, width] as (4,) int32. Called in two branches of a
            `tf.cond`, so it must be a pure function.
        channels: 1 or 3.
        exif: As in `decode_image`.

    Returns:
        The window's (h, w, channels) uint8, the image's size (2,) int32 and the
        window (4,) int32.
    """
    encoded = check_header(encoded)

    def fused():
        size = tf.stack(image_dimensions(encoded))
        window = window_of(size)
        image = tf.io.decode_and_crop_jpeg(encoded, window, channels=3)
        return _to_channels(image, channels), size, window

    def whole():
        image = decode_image(encoded, channels, exif)
        size = tf.shape(image)[:2]
        window = window_of(size)
        return slice_window(image, window), size, window

    fusable = format_flags(read_head(encoded))[0]
    if exif == "apply":
        fusable &= exif_orientation(encoded) == 1
    return tf.cond(fusable, fused, whole)


def slice_window(image, window):
    """`image` (H, W, ...) inside `window` (4,) int32 [y, x, height, width]."""
    y, x, height, width = tf.unstack(window)
    return image[y : y + height, x : x + width]


def is_sixteen_bit(encoded):
    """() bool: a PNG of 16 bits per sample, of which `decode_image` keeps 8."""
    head = read_head(encoded)
    return format_flags(head)[1] & (head[24] == 16)


def read_head(encoded):
    """The first bytes, (HEAD_BYTES,) uint8, zeros behind the end."""
    padded = tf.strings.join(
        [tf.strings.substr(encoded, 0, HEAD_BYTES), bytes(HEAD_BYTES)]
    )
    head = tf.io.decode_raw(tf.strings.substr(padded, 0, HEAD_BYTES), tf.uint8)
    return tf.ensure_shape(head, [HEAD_BYTES])


def format_flags(head):
    """(5,) bool: JPEG, PNG, GIF, BMP, WebP; at most one is true."""

    def reads(magic, at=0):
        return tf.reduce_all(head[at : at + len(magic)] == list(magic))

    return tf.stack(
        [
            reads(b"\xff\xd8\xff"),
            reads(b"\x89PNG\r\n\x1a\n"),
            reads(b"GIF87a") | reads(b"GIF89a"),
            reads(b"BM"),
            reads(b"RIFF") & reads(b"WEBP", 8),
        ]
    )


def _sizes_inread_head(head):
    """(height, width) as (2,) int64 for PNG, GIF, BMP and WebP, in this order."""

    def number(start, count, big_endian=False):
        data = tf.cast(head[start : start + count], tf.int64)
        weights = [256**i for i in range(count)]
        return tf.reduce_sum(
            data * tf.constant(weights[:: -1 if big_endian else 1], tf.int64)
        )

    def pair(height, width):
        return tf.stack([height, width])

    png = pair(number(20, 4, True), number(16, 4, True))
    gif = pair(number(8, 2), number(6, 2))
    height = number(22, 4)  # signed: negative means rows from the top
    height = tf.where(height >= 2**31, 2**32 - height, height)
    old = number(14, 4) == 12
    bmp = tf.where(old, pair(number(20, 2), number(18, 2)), pair(height, number(18, 4)))
    bits = number(21, 4)
    lossy = pair(number(28, 2) % 2**14, number(26, 2) % 2**14)
    lossless = pair(bits // 2**14 % 2**14 + 1, bits % 2**14 + 1)
    extended = pair(number(27, 3) + 1, number(24, 3) + 1)
    kind = head[15]
    webp = tf.where(kind == ord("L"), lossless, lossy)
    return png, gif, bmp, tf.where(kind == ord("X"), extended, webp)


def _orientation_tag(tiff, big_endian):
    """The orientation in the first directory of `tiff` (TIFF 6.0, section 2)."""
    data = tf.io.decode_raw(tf.strings.join([tiff, bytes(16)]), tf.uint8)
    length = tf.size(data, tf.int64)

    def number(raw):  # (..., n) uint8
        raw = tf.cast(raw, tf.int64)
        raw = tf.where(big_endian, raw, tf.reverse(raw, [-1]))
        count = raw.shape[-1]
        return tf.reduce_sum(raw * [256**i for i in reversed(range(count))], axis=-1)

    def u16(values):
        return number(tf.ensure_shape(values, [2]))

    first = tf.minimum(number(tf.ensure_shape(data[4:8], [4])), length - 14)
    count = tf.minimum(u16(data[first : first + 2]), (length - first - 2) // 12)
    count = tf.maximum(count, 1)
    start = first + 2
    entries = tf.reshape(data[start : start + 12 * count], [-1, 12])
    is_tag = (number(entries[:, :2]) == ORIENTATION_TAG) & (
        number(entries[:, 2:4]) == 3
    )
    value = number(entries[:, 8:10])[tf.argmax(is_tag)]
    valid = tf.reduce_any(is_tag) & (value >= 1) & (value <= 8)
    return tf.where(valid, tf.cast(value, tf.int32), 1)


def _to_channels(image, channels: int):
    """RGB as it is, or as one channel of grey; (H, W, 3) to (H, W, channels) uint8."""
    if channels == 3:
        return image
    grey = tf.tensordot(tf.cast(image, tf.float32), GREY_WEIGHTS, 1)[..., None]
    return tf.cast(tf.round(grey), tf.uint8)
