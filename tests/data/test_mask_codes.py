"""Mask files mean the same in NumPy and in the graph, and wrong values are named."""

import io

import numpy as np
import pytest
import tensorflow as tf
from pictures import MemorySource, encode, picture
from PIL import Image

from visionkit.data.image_header import BadImage
from visionkit.data.index_masks import decode_mask
from visionkit.data.mask_codes import MaskCode, encode_mask
from visionkit.data.pipeline import Order, make_dataset
from visionkit.data.report import DataReport
from visionkit.types import VOID_CLASS, Preprocessing

RNG = np.random.default_rng(0)
SIZE = (23, 37)
COLORS = np.array([[0, 0, 0], [128, 0, 0], [0, 128, 0], [7, 7, 7]], np.uint8)
IDS = RNG.integers(0, 4, SIZE).astype(np.uint8)


def palette(ids, colors=COLORS, **options):
    image = Image.fromarray(ids)
    image.putpalette(np.pad(colors, ((0, 256 - len(colors)), (0, 0))).tobytes())
    return encode(image, **options)


def pack(color):
    red, green, blue = map(int, color)
    return red * 65536 + green * 256 + blue


def by_color(others=False, colors=COLORS[:3]):
    table = tuple((pack(color), i) for i, color in enumerate(colors))
    return MaskCode((*table, (pack((224, 224, 192)), VOID_CLASS)), True, others)


def alpha(pixels):
    return np.concatenate([pixels, np.full((*SIZE, 1), 9, np.uint8)], axis=-1)


KNOWN = np.minimum(IDS, 2)
CASES = {
    "ids": (encode_mask(KNOWN), MaskCode.of_ids(3), KNOWN),
    "palette": (palette(IDS), MaskCode.of_ids(4), IDS),
    "palette of 2 bits": (palette(IDS, bits=2), MaskCode.of_ids(4), IDS),
    "one bit": (
        encode(Image.fromarray(IDS > 1)),
        MaskCode.of_ids(2),
        (IDS > 1).astype(np.uint8),
    ),
    "binary": (
        encode_mask(np.uint8(255 * (IDS > 1))),
        MaskCode(((0, 0), (255, 1))),
        (IDS > 1).astype(np.uint8),
    ),
    "sparse": (
        encode_mask(np.uint8([0, 7, 90, 200])[IDS]),
        MaskCode(((7, 0), (90, 1), (0, VOID_CLASS)), others=True),
        np.uint8([255, 0, 1, 255])[IDS],
    ),
    "colors": (encode(Image.fromarray(COLORS[KNOWN])), by_color(), KNOWN),
    "colors and alpha": (
        encode(Image.fromarray(alpha(COLORS[KNOWN]), "RGBA")),
        by_color(),
        KNOWN,
    ),
    "colors of a palette": (palette(KNOWN), by_color(), KNOWN),
    "other colors": (
        encode(Image.fromarray(COLORS[IDS])),
        by_color(others=True),
        np.uint8([0, 1, 2, 255])[IDS],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_values_become_classes(case):
    encoded, code, expected = CASES[case]
    found = code.decode(encoded)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, expected)
    in_graph = tf.function(lambda x: decode_mask(x, code))(tf.constant(encoded))
    assert in_graph.dtype == tf.uint8
    np.testing.assert_array_equal(in_graph, expected)


def sixteen_bits():
    file = io.BytesIO()
    Image.fromarray(IDS.astype(np.uint16)).save(file, "PNG")
    return file.getvalue()


BAD = {
    "value": (encode_mask(IDS), MaskCode.of_ids(3), "mask.value"),
    "colour": (encode(Image.fromarray(COLORS[IDS])), by_color(), "mask.value"),
    "rgb": (encode(Image.fromarray(COLORS[IDS])), MaskCode.of_ids(9), "mask.format"),
    "jpeg": (encode(Image.fromarray(IDS), "JPEG"), MaskCode.of_ids(9), "mask.format"),
    "deep": (sixteen_bits(), MaskCode.of_ids(9), "mask.format"),
    "deep colours": (sixteen_bits(), by_color(), "mask.format"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_has_no_class_is_refused(case):
    encoded, code, rule = BAD[case]
    with pytest.raises(BadImage) as error:
        code.decode(encoded)
    assert error.value.rule == rule
    with pytest.raises(tf.errors.InvalidArgumentError, match=rule):
        decode_mask(tf.constant(encoded), code)
    count = (IDS == 3).sum()
    told = {"value": f"3 ({count} pixels)", "colour": f"[7, 7, 7] ({count} pixels)"}
    assert told.get(case, "") in error.value.detail


def test_a_damaged_mask_is_refused():
    with pytest.raises(BadImage, match=r"mask\."):
        MaskCode.of_ids(9).decode(encode_mask(IDS)[:60])
    with pytest.raises(BadImage, match=r"mask\.empty"):
        MaskCode.of_ids(9).decode(b"")


def test_training_names_the_file_the_values_and_the_pixels(tmp_path):
    mask = np.zeros((48, 64), np.uint8)
    records = []
    for index in range(6):
        if index == 4:
            mask = mask.copy()
            mask[:3, :5] = 9
            mask[5, :2] = 77
        path = tmp_path / f"{index}.png"
        path.write_bytes(encode_mask(mask if index == 4 else np.zeros_like(mask)))
        image = encode(picture(48, 64, seed=index))
        records.append({"encoded": image, "mask_path": str(path).encode()})
    source = MemorySource(records, "semantic_segmentation", 3)
    report = DataReport(source, max_bad=0.5)
    dataset = make_dataset(
        source, Preprocessing((48, 64)), 3, order=Order(0), report=report
    )
    for _, masks in dataset.take(6):  # another record takes its place
        assert masks.shape == (3, 48, 64) and not masks.numpy().any()
    ((name, detail),) = report.skipped["mask.value"]
    assert name == "memory[4]" and "4.png" in detail
    assert "17 pixels" in detail
    assert "9 (15 pixels)" in detail and "77 (2 pixels)" in detail
