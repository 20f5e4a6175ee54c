"""The dataset doctor finds what was planted, and its counts add up."""

from __future__ import annotations

import io
import json
import os

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from visionkit.data.check import check_source, check_splits
from visionkit.data.check_report import printable
from visionkit.data.sources.digits import Digits
from visionkit.data.sources.image_folder import ImageFolder


def encode(seed, kind="PNG", mode="RGB", **options):
    noise = np.random.default_rng(seed).integers(0, 255, (24, 40, 3), np.uint8)
    out = io.BytesIO()
    Image.fromarray(noise).convert(mode).save(out, kind, **options)
    return out.getvalue()


def write(root, files):
    for name, data in files.items():
        path = os.path.join(os.fsencode(root), os.fsencode(name))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(data)
    return ImageFolder(root)


def clean(cats=4, dogs=3):
    return {f"cat/{i}.png": encode(i) for i in range(cats)} | {
        f"dog/{i}.png": encode(1000 + i) for i in range(dogs)
    }


def by_rule(report):
    return {finding.rule: finding for finding in report.findings}


def text_of(report):
    console = Console(file=io.StringIO(), width=120)
    report.print(console)
    return console.file.getvalue()


def test_clean_set_has_no_findings(tmp_path):
    report = check_source(write(tmp_path, clean()))
    assert report.ok and not report.findings
    assert report.counts["classes"] == {"cat": 4, "dog": 3}
    assert report.counts["width"] == {"min": 40, "median": 40.0, "max": 40}
    assert report.counts["height"]["max"] == 24
    assert "nothing found" in text_of(report)


def test_every_fault_is_counted_and_named(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    source = write(
        tmp_path,
        clean(cats=30)
        | {
            "cat/empty.jpg": b"",
            "cat/page.jpg": b"<html>",
            "dog/cut.jpg": encode(2007, "JPEG")[:-40],
            "dog/scan.tif": b"II*\0",
            "cat/turned.jpg": encode(2008, "JPEG", exif=exif),
            "cat/caf\udce9\n.jpg": encode(2009),
            "cat/copy.png": encode(0),
            "dog/as a cat [red].png": encode(1),
        },
    )
    report = check_source(source, name="train")
    found = by_rule(report)
    counts = report.counts
    assert counts["read"] == counts["used"] + sum(counts["skipped"].values()) == 41
    assert counts["skipped"] == dict.fromkeys(("image.empty", "image.truncated"), 1) | {
        "image.format": 2
    }
    assert counts["notes"] == {"image.exif_rotated": 1, "image.extension": 1}
    assert counts["height"]["max"] == 40  # the turned image, upright
    assert found["image.extension"].level == "note"
    assert found["image.extension"].names[0].endswith("caf\udce9\n.jpg")
    assert found["duplicate.exact"].message.startswith("2 images")
    assert "(cat) = " in found["label.conflict"].names[0]
    assert found["image.format"].level == "error"  # more than 1 % cannot be used
    assert not report.ok
    assert report.findings[0].level == "error"

    assert json.loads(json.dumps(report.to_dict())) == report.to_dict()
    text = text_of(report)
    assert "caf\\udce9\\n.jpg" in text and "as a cat [red].png" in text
    text.encode("utf-8")


def test_few_bad_images_are_a_warning(tmp_path):
    source = write(tmp_path, clean(cats=150, dogs=50) | {"cat/x.jpg": b"text"})
    report = check_source(source)
    assert report.ok
    assert by_rule(report)["image.format"].level == "warning"


def test_imbalance_and_empty_classes(tmp_path):
    (tmp_path / "emu").mkdir()
    with pytest.warns(UserWarning, match="emu"):
        source = write(tmp_path, clean(cats=22, dogs=2))
    report = check_source(source)
    found = by_rule(report)
    assert "'cat' (22) has 11.0 times the images of 'dog' (2)" in (
        found["class.imbalance"].message
    )
    assert found["class.empty"].names == ("emu",)
    assert report.counts["imbalance"] == 11.0


def test_leaks_between_splits(tmp_path):
    train = write(tmp_path / "train", clean())
    files = {"cat/new.png": encode(2050), "cat/old.png": encode(2)}
    held = write(tmp_path / "val", files | {"dog/wrong.png": encode(3)})
    report = check_splits(train, held)
    found = by_rule(report)
    assert not report.ok
    assert report.counts == {"train": 7, "validation": 3, "shared": 2}
    assert [name.count("=") for name in found["leak.exact"].names] == [1, 1]
    (conflict,) = found["label.conflict"].names
    assert conflict.endswith("wrong.png") and "3.png = " in conflict
    assert "leak.exact" in text_of(report)
    assert check_splits(Digits(split="train"), Digits(split="validation")).ok


def test_deep_finds_damage_in_the_pixels(tmp_path):
    pytest.importorskip("visionkit.data.decode")
    damaged = bytearray(encode(3))
    damaged[len(damaged) // 2] ^= 0xFF  # the chunk's checksum is wrong now
    source = write(tmp_path, clean() | {"cat/damaged.png": bytes(damaged)})
    assert check_source(source).counts["used"] == 8
    report = check_source(source, deep=True)
    assert report.counts["skipped"] == {"image.corrupt": 1}
    assert "damaged.png" in by_rule(report)["image.corrupt"].names[0]


def test_masks_get_the_common_rules_and_their_own():
    source = Digits("semantic_segmentation", num_scenes=4)
    report = check_source(source, name="validation")
    assert report.ok
    assert report.counts["read"] == report.counts["used"] == 4
    assert report.counts["masks_read"] == 4 and report.counts["void"] == "0.00%"
    assert sum(report.counts["classes"].values()) == 4 * 256 * 320


def test_printable():
    assert printable("a\udcff\n\x1b[31m é") == "a\\udcff\\n\\x1b[31m é"
