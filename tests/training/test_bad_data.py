"""Bad files neither kill a training nor vanish; too many of them stop it."""

import io
import json
import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from visionkit.tasks.__main__ import main

BAD = {
    "empty.jpg": "image.empty",
    "page.jpg": "image.format",
    "cut.jpg": "image.truncated",
    "corrupt.png": "image.corrupt",
    "dot.png": "image.too_small",
    "bomb.png": "image.too_large",
    "folder.jpg": "image.not_a_file",
    "pipe.jpg": "image.not_a_file",
}
USED_AS_THEY_ARE = ("grey", "alpha", "palette", "cmyk", "deep")


def jpeg(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG")
    return file.getvalue()


def png_of(width, height):
    """A PNG of zeros, tiny however large it says it is."""

    def chunk(kind, data):
        crc = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc)

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    squeezer, body = zlib.compressobj(9), b""
    for _ in range(height):
        body += squeezer.compress(bytes(width + 1))
    body += squeezer.flush()
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", body)
        + chunk(b"IEND", b"")
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two classes, one of them not named in UTF-8, and a bad file of each kind."""
    root = tmp_path_factory.mktemp("bad") / "images"
    rng = np.random.default_rng(0)
    for index, name in enumerate((b"bright", b"caf\xe9 [dark]")):
        path = os.path.join(os.fsencode(root), name)
        os.makedirs(path)
        for i in range(24):
            pixels = rng.integers(0, 90, (30, 44, 3), dtype=np.uint8) + 160 * (
                1 - index
            )
            with open(os.path.join(path, b"%02d.JPG" % i), "wb") as file:
                file.write(jpeg(pixels.astype(np.uint8)))
    bright = root / "bright"
    good = (bright / "00.JPG").read_bytes()
    noise = rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)
    Image.fromarray(noise).save(bright / "corrupt.png")
    data = bytearray((bright / "corrupt.png").read_bytes())
    data[200:260] = bytes(60)
    (bright / "corrupt.png").write_bytes(data)
    (bright / "empty.jpg").write_bytes(b"")
    (bright / "page.jpg").write_bytes(b"<html><body>404</body></html>")
    (bright / "cut.jpg").write_bytes(good[: len(good) // 2])
    (bright / "dot.png").write_bytes(png_of(1, 1))
    (bright / "bomb.png").write_bytes(png_of(20_000, 20_000))
    (bright / "folder.jpg").mkdir()
    os.mkfifo(bright / "pipe.jpg")
    image = Image.fromarray(noise // 4 + 180)
    image.convert("L").save(bright / "grey.png")
    image.convert("RGBA").save(bright / "alpha.png")
    image.convert("P").save(bright / "palette.png")
    image.convert("CMYK").save(bright / "cmyk.jpg")
    deep = (np.asarray(image.convert("L")).astype(np.uint16)) << 8
    Image.fromarray(deep).save(bright / "deep.png")
    return root


def recipe(folder, **data):
    return json.dumps(
        {
            "task": "classification",
            "model": {"backbone": "lenet5", "image_size": [32, 32]},
            "data": {
                "source": "image_folder",
                "root": str(folder),
                "batch_size": 8,
                **data,
            },
            "augment": ["crop", "flip"],
            "train": {"epochs": 2, "optimizer": "adam", "tensorboard": False},
        }
    )


def test_every_bad_file_is_counted_and_named(folder, tmp_path):
    file = tmp_path / "recipe.yaml"
    file.write_text(recipe(folder, max_bad=0.3))
    assert main(["train", str(file), "--out", str(tmp_path / "run")]) == 0
    report = json.loads((tmp_path / "run" / "data_report.json").read_text())
    found, read, used = {}, 0, 0
    for split in report.values():
        skipped = sum(map(len, split["skipped"].values()))
        assert split["read"] == split["used"] + skipped
        read, used = read + split["read"], used + split["used"]
        for rule, files in split["skipped"].items():
            found |= {os.path.basename(name): rule for name, _ in files}
    assert found == BAD
    good = 48 + len(USED_AS_THEY_ARE)
    assert (read, used) == (good + len(BAD), good)
    notes = [split["notes"] for split in report.values()]
    assert sum(note.get("image.16bit", 0) for note in notes) == 1

    # The class that is not UTF-8 lives on through every file and answer.
    dark = os.fsdecode(b"caf\xe9 [dark]")
    answers = tmp_path / "answers.json"
    image = os.path.join(folder, dark, "00.JPG")
    run, out = str(tmp_path / "run"), str(tmp_path / "saved_model")
    assert main(["evaluate", run, "data.max_bad=0.3"]) == 0
    assert main(["export", run, "--out", out]) == 0
    for model in (run, out):
        assert main(["predict", model, image, "--json", str(answers)]) == 0
        assert dark in json.loads(answers.read_text())[0]["label_names"]


def test_too_many_bad_files_stop_the_run_with_the_list(folder, tmp_path, capsys):
    file = tmp_path / "recipe.yaml"
    file.write_text(recipe(folder))
    assert main(["train", str(file), "--out", str(tmp_path / "run")]) == 1
    error = capsys.readouterr().err
    assert "max_bad" in error and "empty.jpg: image.empty" in error
    assert "Traceback" not in error


def test_check_lists_them_and_fails(folder, tmp_path, capsys):
    file = tmp_path / "recipe.yaml"
    file.write_text(recipe(folder, max_bad=0.3))
    findings = tmp_path / "findings.json"
    assert main(["check", str(file), "--deep", "--json", str(findings)]) == 1
    text = findings.read_text()
    for name in BAD:
        assert name in text
    assert "Traceback" not in capsys.readouterr().err


def test_one_class_and_no_image_are_errors(tmp_path, capsys):
    file = tmp_path / "recipe.yaml"
    (tmp_path / "images" / "cats").mkdir(parents=True)
    file.write_text(recipe(tmp_path / "images"))
    assert main(["train", str(file), "--out", str(tmp_path / "run")]) == 1
    assert "images" in capsys.readouterr().err
    Image.new("RGB", (20, 30)).save(tmp_path / "images" / "cats" / "a.png")
    assert main(["train", str(file), "--out", str(tmp_path / "run2")]) == 1
    assert "cats" in capsys.readouterr().err
