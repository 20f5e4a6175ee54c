"""Bytes to upright pixels: Pillow is the reference, damaged bytes are the danger."""

import io
import struct
import time
import zlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps

from visionkit.data import decode, graph_headers, index_masks
from visionkit.data.headers import inspect_image


def photo(height=48, width=80, seed=0):
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (6, 10, 3), np.uint8)
    return Image.fromarray(small).resize((width, height), Image.BICUBIC)


def encode(image, format="PNG", **options):
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def with_orientation(image, orientation, format, big_endian=False):
    order = ">" if big_endian else "<"
    mark = b"MM" if big_endian else b"II"
    entries = struct.pack(order + "HHIHH", 0x0112, 3, 1, orientation, 0)
    entries = struct.pack(order + "HHII", 0x0100, 4, 1, 0x01120003) + entries
    tiff = mark + struct.pack(order + "HIH", 42, 8, 2) + entries + bytes(4)
    return encode(image, format, exif=b"Exif\0\0" + tiff)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "GIF", "BMP", "WEBP"])
def test_image_dimensions_agrees_with_pillow_for_every_format(format):
    encoded = encode(photo(33, 61), format)
    assert [int(v) for v in graph_headers.image_dimensions(encoded)] == [33, 61]
    assert decode.decode_image(encoded).shape == (33, 61, 3)


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_image_dimensions_of_lossless_and_extended_webp(mode):
    encoded = encode(photo(33, 61).convert(mode), "WEBP", lossless=True)
    assert [int(v) for v in graph_headers.image_dimensions(encoded)] == [33, 61]
    extended = encode(photo(33, 61).convert("RGBA"), "WEBP", exif=b"Exif\0\0")
    assert [int(v) for v in graph_headers.image_dimensions(extended)] == [33, 61]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
@pytest.mark.parametrize("channels", [1, 3])
def test_decode_image_agrees_with_pillow_for_every_png_mode(mode, channels):
    image = photo()
    if mode == "I;16":
        grey = np.asarray(image.convert("L")).astype(np.uint16) * 257
        image = reference = Image.fromarray(grey)
        reference = Image.fromarray((grey // 257).astype(np.uint8))
    else:
        image = reference = image.convert(mode)
    reference = reference.convert("RGB").convert("RGB" if channels == 3 else "L")
    out = decode.decode_image(encode(image), channels).numpy().astype(int)
    expected = np.asarray(reference).reshape(48, 80, channels)
    assert abs(out - expected).max() <= 1
    assert bool(graph_headers.is_sixteen_bit(encode(image))) == (mode == "I;16")


@pytest.mark.parametrize("format", ["JPEG", "PNG"])
@pytest.mark.parametrize("big_endian", [False, True])
def test_all_orientations_match_exif_transpose(format, big_endian):
    read = tf.function(decode.decode_image)
    for orientation in range(1, 9):
        encoded = with_orientation(photo(), orientation, format, big_endian)
        image = Image.open(io.BytesIO(encoded))
        upright = np.asarray(ImageOps.exif_transpose(image)).astype(int)
        assert int(decode.exif_orientation(encoded)) == orientation
        assert inspect_image(encoded).orientation == orientation
        out = read(tf.constant(encoded)).numpy()
        assert out.shape == upright.shape
        assert abs(out - upright).max() <= (0 if format == "PNG" else 4)
        stored = decode.decode_image(encoded, exif="ignore")
        assert stored.shape == (48, 80, 3)


def test_exif_orientation_survives_any_bytes():
    rng = np.random.default_rng(0)
    sound = with_orientation(photo(), 6, "JPEG")
    start = sound.index(b"II*\0")
    orientation = tf.function(decode.exif_orientation)
    for size in range(40):  # cut anywhere in the block
        assert 1 <= int(orientation(tf.constant(sound[: start + size]))) <= 8
    for _ in range(100):
        data = bytearray(sound[: start + 60])
        for position in rng.integers(start + 2, start + 50, 3):
            data[position] = rng.integers(256)
        assert 1 <= int(orientation(tf.constant(bytes(data)))) <= 8
    for data in (b"", b"Exif\0\0MM\0*" + b"\xff" * 30, b"eXIfII*\0" + bytes(70000)):
        assert int(orientation(tf.constant(data))) == 1


def test_decode_and_crop_equals_the_decoded_image_inside():
    encoded = encode(photo(96, 160), "JPEG", quality=90)
    whole = decode.decode_image(encoded).numpy()
    window = tf.constant([13, 37, 41, 66])
    out, size, _ = decode.decode_and_crop(encoded, lambda size: window)
    np.testing.assert_array_equal(size, [96, 160])
    np.testing.assert_array_equal(out[1:-1, 1:-1], whole[14:53, 38:102])


def test_decode_and_crop_takes_the_window_in_the_upright_frame():
    encoded = with_orientation(photo(48, 80), 6, "PNG")
    upright = decode.decode_image(encoded).numpy()
    sizes = []

    def window_of(size):
        sizes.append(size)
        return tf.constant([3, 5, 60, 20])

    out, size, _ = decode.decode_and_crop(encoded, window_of)
    np.testing.assert_array_equal(size, [80, 48])
    np.testing.assert_array_equal(out, upright[3:63, 5:25])


def png_header(height, width):
    ihdr = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    start = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + ihdr
    return start + struct.pack(">I", zlib.crc32(ihdr)) + bytes(400_000)


@pytest.mark.parametrize(
    ("encoded", "rule"),
    [
        (b"", "image.empty"),
        (b"<html>", "image.format"),
        (b"II*\0" + bytes(50), "image.format"),
        (png_header(20_000, 20_000), "image.too_large"),
        (png_header(2**31 + 5, 3), "image.too_large"),
        (png_header(20_000, 100), "image.too_large"),
        (png_header(1, 5_000), "image.too_small"),
        (png_header(0, 5_000), "image.too_small"),
    ],
)
def test_check_header_refuses_before_decoding(encoded, rule):
    read = tf.function(decode.decode_image, autograph=False)
    with pytest.raises(tf.errors.InvalidArgumentError, match=rule):
        decode.decode_image(encoded)
    with pytest.raises(tf.errors.InvalidArgumentError, match=rule):
        read(tf.constant(encoded))
    begin = time.perf_counter()
    with pytest.raises(tf.errors.InvalidArgumentError):
        read(tf.constant(encoded))
    assert time.perf_counter() - begin < 0.5


@pytest.mark.parametrize("format", ["JPEG", "PNG"])
def test_truncated_image_raises(format):
    encoded = encode(photo(), format)
    with pytest.raises(tf.errors.InvalidArgumentError):
        decode.decode_image(encoded[: len(encoded) // 2])


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("palette", [True, False])
def test_index_mask_keeps_indices(bits, palette):
    rng = np.random.default_rng(bits)
    mask = rng.integers(0, 2**bits, (20, 31), np.uint8)
    if palette:
        image = Image.fromarray(mask, "P")
        image.putpalette(rng.integers(0, 256, 3 * 2**bits).tolist())
        encoded = encode(image, bits=bits, transparency=0)
    elif bits == 1:
        encoded = encode(Image.fromarray(mask.astype(bool)))
    else:
        mask = rng.integers(0, 256, (20, 31), np.uint8)
        encoded = encode(Image.fromarray(mask))
    out = tf.function(index_masks.decode_index_mask)(tf.constant(encoded))
    np.testing.assert_array_equal(out, mask)


def test_index_mask_of_colours_or_jpeg_is_refused():
    for encoded in (encode(photo()), encode(photo(), "JPEG")):
        with pytest.raises(tf.errors.InvalidArgumentError, match=r"mask\.format"):
            index_masks.decode_index_mask(encoded)


def test_decoder_runs_in_map_fn_and_a_saved_model(tmp_path):
    images = [encode(photo(24, 40)), encode(photo(24, 40), "JPEG")]

    class Module(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
        def read(self, encoded):
            spec = tf.TensorSpec([None, None, 3], tf.uint8)
            return tf.map_fn(decode.decode_image, encoded, fn_output_signature=spec)

    tf.saved_model.save(Module(), str(tmp_path))
    out = tf.saved_model.load(str(tmp_path)).read(tf.constant(images))
    np.testing.assert_array_equal(out[1], decode.decode_image(images[1]))
