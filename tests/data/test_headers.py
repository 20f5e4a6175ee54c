"""Headers are read like Pillow reads them, and what is bad is refused before a decoder
sees it."""

from __future__ import annotations

import contextlib
import io
import os
import struct
import time
import zlib

import numpy as np
import pytest
from PIL import Image

from visionkit.data.headers import HEAD_BYTES, BadImage, ImageHeader, inspect_image

HEIGHT, WIDTH = 37, 53


def encode(kind, mode="RGB", size=(WIDTH, HEIGHT), **options):
    noise = np.random.default_rng(0).integers(0, 255, (*size[::-1], 3), np.uint8)
    out = io.BytesIO()
    image = Image.fromarray(noise).convert(mode)
    if mode.endswith("A"):
        image.putalpha(100)  # an opaque channel may be left out
    image.save(out, kind, **options)
    return out.getvalue()


def png_of(width, height, depth=8):
    """A PNG of zeros, whatever its size, made without holding its pixels."""
    packer = zlib.compressobj(9)
    row = bytes(1 + width * depth // 8)
    data = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()

    def chunk(kind, body):
        crc = struct.pack(">I", zlib.crc32(kind + body))
        return struct.pack(">I", len(body)) + kind + body + crc

    ihdr = struct.pack(">IIBBBBB", width, height, depth, 0, 0, 0, 0)
    parts = chunk(b"IHDR", ihdr) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def rule_of(image):
    with pytest.raises(BadImage) as caught:
        inspect_image(image)
    return caught.value.rule


@pytest.mark.parametrize(
    ("kind", "mode", "options", "channels", "notes"),
    [
        ("JPEG", "RGB", {}, 3, []),
        ("JPEG", "RGB", {"progressive": True}, 3, []),
        ("JPEG", "L", {}, 1, ["image.grey"]),
        ("JPEG", "CMYK", {}, 4, ["image.cmyk"]),
        ("PNG", "RGB", {}, 3, []),
        ("PNG", "RGBA", {}, 4, ["image.alpha"]),
        ("PNG", "LA", {}, 2, ["image.alpha", "image.grey"]),
        ("PNG", "P", {}, 3, []),
        ("PNG", "1", {}, 1, ["image.grey"]),
        ("PNG", "I;16", {}, 1, ["image.16bit", "image.grey"]),
        ("GIF", "RGB", {}, 3, []),
        ("BMP", "RGB", {}, 3, []),
        ("WEBP", "RGB", {}, 3, []),
        ("WEBP", "RGB", {"lossless": True}, 3, []),
        ("WEBP", "RGBA", {}, 4, ["image.alpha"]),
    ],
)
def test_inspect_image_reads_what_was_written(kind, mode, options, channels, notes):
    header = inspect_image(encode(kind, mode, **options))
    assert (header.height, header.width) == (HEIGHT, WIDTH)
    assert (header.format, header.channels) == (kind.lower(), channels)
    assert header.orientation == 1
    assert header.notes() == notes


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_inspect_image_reads_all_orientations(kind, orientation):
    exif = Image.Exif()
    exif[0x010F] = "a maker, so that the tag is not the first"
    exif[0x0112] = orientation
    header = inspect_image(encode(kind, exif=exif))
    assert header.orientation == orientation
    upright = (WIDTH, HEIGHT) if orientation >= 5 else (HEIGHT, WIDTH)
    assert header.upright_size == upright


@pytest.mark.parametrize(
    "exif", [b"", b"II*\0", b"XX*\0\x08\0\0\0", b"MM\0*\0\0\0\x08\xff\xff" + b"\0" * 40]
)
def test_inspect_image_damaged_exif_is_upright(exif):
    jpeg = encode("JPEG")
    block = b"Exif\0\0" + exif
    app1 = b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block
    assert inspect_image(jpeg[:2] + app1 + jpeg[2:]).orientation == 1


def test_inspect_image_seeks_over_large_segments(tmp_path):
    jpeg = encode("JPEG")
    segment = b"\xff\xe2" + struct.pack(">H", 0xFFFF) + bytes(0xFFFF - 2)
    path = tmp_path / "a.jpg"
    path.write_bytes(jpeg[:2] + segment * 3 + jpeg[2:])
    assert path.stat().st_size > 10 * HEAD_BYTES
    assert inspect_image(path).width == WIDTH


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "WEBP"])
@pytest.mark.parametrize("keep", [0.5, -2])
def test_inspect_image_truncated(kind, keep, tmp_path):
    data = encode(kind, size=(301, 203))
    data = data[: int(len(data) * keep) if keep > 0 else keep]
    (tmp_path / "a").write_bytes(data)
    assert rule_of(data) == rule_of(tmp_path / "a") == "image.truncated"


def test_inspect_image_truncated_although_its_thumbnail_is_whole():
    jpeg, thumbnail = encode("JPEG"), encode("JPEG", size=(20, 10))
    block = b"Exif\0\0" + thumbnail
    app1 = b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block
    assert rule_of(jpeg[:2] + app1 + jpeg[2:-400]) == "image.truncated"


@pytest.mark.parametrize("garbage", [b"x" * 100, b"x" * 3_000_000])
def test_inspect_image_trailing_garbage_is_no_truncation(garbage, tmp_path):
    (tmp_path / "a.jpg").write_bytes(encode("JPEG") + garbage)
    assert inspect_image(tmp_path / "a.jpg").width == WIDTH


@pytest.mark.parametrize(
    ("data", "rule", "detail"),
    [
        (b"", "image.empty", "0 bytes"),
        (b"<html>404</html>", "image.format", 'starts with "<htm"'),
        (b"\0\1\2\3", "image.format", "starts with 00 01 02 03"),
        (b"II*\0" + bytes(50), "image.format", "TIFF.*convert it to JPEG or PNG"),
        (b"\0\0\0\x20ftypavif", "image.format", "AVIF"),
        (b"\0\0\0\x20ftypheic", "image.format", "HEIC"),
        (b"RIFF\4\0\0\0WAVE", "image.format", 'starts with "RIFF"'),
        (b"\xff\xd8\xff", "image.truncated", "header"),
        (b"\xff\xd8\xff\xd9", "image.corrupt", "frame header"),
        (b"\xff\xd8\xff\xe0\0\4ab!!!!", "image.corrupt", "byte 8"),
        (b"\x89PNG\r\n\x1a\n" + bytes(40), "image.corrupt", "damaged header"),
        (b"RIFF\x0c\0\0\0WEBPABCD\0\0\0\0", "image.corrupt", "ABCD"),
    ],
)
def test_inspect_image_refuses(data, rule, detail):
    with pytest.raises(BadImage, match=detail) as caught:
        inspect_image(data)
    assert caught.value.rule == rule


def test_inspect_image_12_bit_jpeg_is_refused():
    jpeg = bytearray(encode("JPEG"))
    jpeg[jpeg.index(b"\xff\xc0") + 4] = 12
    assert rule_of(bytes(jpeg)) == "image.format"


def test_inspect_image_refuses_a_bomb_at_once(tmp_path):
    path = tmp_path / "bomb.png"
    path.write_bytes(png_of(20_000, 20_000, depth=1))
    start = time.perf_counter()
    assert rule_of(path) == "image.too_large"
    assert time.perf_counter() - start < 0.05
    assert rule_of(png_of(1, 20)) == "image.too_small"
    assert rule_of(png_of(20_000, 2)) == "image.too_large"


def test_inspect_image_what_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "fifo.jpg")
    assert rule_of(tmp_path / "fifo.jpg") == "image.not_a_file"  # and does not hang
    assert rule_of(tmp_path) == "image.not_a_file"
    assert rule_of(tmp_path / "missing.jpg") == "image.unreadable"
    assert rule_of("a\0b.jpg") == "image.unreadable"


def test_inspect_image_random_damage_never_escapes():
    """Whatever the bytes are: a header or a `BadImage`, nothing else."""
    rng = np.random.default_rng(0)
    for kind in ("JPEG", "PNG", "GIF", "BMP", "WEBP"):
        original = encode(kind)
        for _ in range(150):
            data = bytearray(original[: rng.integers(1, len(original))])
            for at in rng.integers(0, min(len(data), 80), 4):
                data[at] = rng.integers(256)
            with contextlib.suppress(BadImage):
                assert isinstance(inspect_image(bytes(data)), ImageHeader)


def test_notes_of_a_wrong_extension():
    header = inspect_image(encode("PNG"))
    assert header.notes("a/b.PNG") == []
    assert header.notes(b"caf\xe9.jpg") == ["image.extension"]


@pytest.mark.parametrize(
    ("stuffing", "rule"),
    [
        (b"\xff" * 40_000_000, "image.corrupt"),
        (b"\xff\xd0" * 10_000_000, "image.corrupt"),
        (b"\xff\xfe\0\2" * 1_000_000, "image.corrupt"),
        (b"\xff" * 100_000, None),
    ],
    ids=["fill", "restarts", "comments", "a little fill"],
)
def test_inspect_image_walks_no_endless_header(stuffing, rule):
    jpeg = encode("JPEG")
    jpeg = jpeg[:2] + stuffing + jpeg[2:]
    start = time.perf_counter()
    if rule:
        assert rule_of(jpeg) == rule
    else:
        assert inspect_image(jpeg).width == WIDTH
    assert time.perf_counter() - start < 5


def test_inspect_image_walks_no_endless_png():
    png = encode("PNG")
    chunks = (bytes(4) + b"teSt" + bytes(4)) * 1_000_000
    assert rule_of(png[:33] + chunks + png[33:]) == "image.corrupt"
