"""Broken image files: by every source and in every task they are left out, counted and
named, and cost next to nothing."""

import json
import os
import time
import unicodedata

import numpy as np
import pytest
import tensorflow as tf
from broken_files import (
    BOX,
    BROKEN,
    NO_FILES,
    SIZE,
    SOURCES,
    coco,
    coco_file,
    gif,
    image_folder,
    mask_folder,
    mask_of,
    moving,
    png_bomb,
    turned,
)
from memory import bounded_memory
from pictures import encode, picture
from PIL import Image

from visionkit.data.check import check_source
from visionkit.data.decode import decode_image
from visionkit.data.headers import inspect_image
from visionkit.data.image_header import BadImage
from visionkit.data.pipeline import Order, make_dataset
from visionkit.data.report import DataReport
from visionkit.data.sources.coco import Coco
from visionkit.data.sources.image_folder import ImageFolder
from visionkit.data.sources.mask_folder import MaskFolder
from visionkit.types import Preprocessing

GOOD = [f"good{i}.jpg" for i in range(6)]
NAMES = [*GOOD, *BROKEN, *NO_FILES]
TASKS = {
    "classification": image_folder,
    "detection": coco,
    "semantic_segmentation": mask_folder,
    "instance_segmentation": lambda root, names: coco(
        root, names, "instance_segmentation"
    ),
}
read = tf.function(
    decode_image, input_signature=[tf.TensorSpec([], tf.string)], autograph=False
)


def rules_of(report):
    """Name of a file -> the rule by which it is not used."""
    return {
        os.path.basename(name): rule
        for rule, files in report.skipped.items()
        for name, _ in files
    }


@pytest.mark.parametrize("name", SOURCES)
def test_every_source_leaves_broken_images_out_and_names_them(name, tmp_path):
    source = SOURCES[name](tmp_path, NAMES)
    listed = {os.path.basename(source.record_name(i)) for i in range(len(source))}
    assert not listed & set(NO_FILES)  # a decoder would wait for a pipe
    report = DataReport(source, max_bad=1)
    found = check_source(source, report=report)
    expected = {file: rule for file, (_, rule) in BROKEN.items()}
    assert {file: rules_of(report)[file] for file in BROKEN} == expected
    # Some sources have a word of their own for what is no file at all.
    words = {"image.not_a_file", "image.unreadable", "label.missing", "mask.missing"}
    assert {rules_of(report)[file] for file in NO_FILES} <= words
    assert report.used == len(GOOD) == found.counts["used"]
    skipped = sum(map(len, report.skipped.values()))
    assert report.read == report.used + skipped == len(NAMES)
    assert found.counts["read"] == len(NAMES)
    assert json.loads(json.dumps(report.to_dict()))["used"] == len(GOOD)

    with pytest.raises(ValueError, match=r"more than `max_bad` = 1.00% .*\n.*image\."):
        check_source(source, report=DataReport(source))


@pytest.mark.parametrize(
    "task",
    [
        "classification",
        pytest.param("detection", marks=pytest.mark.faults),  # instances have boxes
        "semantic_segmentation",
        "instance_segmentation",
    ],
)
def test_every_task_trains_on_what_is_left(task, tmp_path):
    source = TASKS[task](tmp_path, [*GOOD, *BROKEN])
    report = DataReport(source, max_bad=1)
    sound = {i for i in range(len(source)) if "good" in source.record_name(i)}
    batches = make_dataset(
        source, Preprocessing(SIZE), 4, order=Order(0), report=report, with_ids=True
    )
    for images, target in batches.take(5):  # broken ones are replaced
        assert images.shape == (4, *SIZE, 3)
        assert set(target["image_id"].numpy().tolist()) <= sound
    assert set(rules_of(report)) == set(BROKEN)
    assert report.read == report.used + len(BROKEN)


BOMBS = {
    "pixels": (lambda: png_bomb(20_000), "image.too_large"),
    "picture": (lambda: gif((64, 48), (16_000, 16_000)), "image.corrupt"),
    "fields": (lambda: gif((65_500, 65_500), (9, 9)), "image.too_large"),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_is_refused_before_it_is_unpacked(bomb, tmp_path):
    make, rule = BOMBS[bomb]
    data, path = make(), tmp_path / "bomb"
    path.write_bytes(data)
    with pytest.raises(tf.errors.InvalidArgumentError):
        read(tf.constant(b""))  # traced, and its first error told
    with bounded_memory(20 * 2**20):
        start = time.perf_counter()
        with pytest.raises(BadImage) as caught:
            inspect_image(path)
        assert time.perf_counter() - start < 0.05
        with pytest.raises(tf.errors.InvalidArgumentError, match=rule):
            read(tf.constant(data))
    assert caught.value.rule == rule


def test_a_jpeg_of_endless_scans_is_left_out_undecoded(tmp_path):
    """Each scan is a pass over the whole image: 100,000 of them take hours."""
    source = image_folder(tmp_path, [*GOOD, "scans.jpg"])
    name = next(tmp_path.rglob("scans.jpg"))
    plain = encode(picture(*SIZE), "JPEG")
    scan = plain[plain.rindex(b"\xff\xda") : -2]
    name.write_bytes(plain[:-2] + scan * 100_000 + plain[-2:])
    report = DataReport(source, max_bad=1)
    for images, _ in make_dataset(source, Preprocessing(SIZE), 3, report=report):
        assert images.shape == (3, *SIZE, 3)
    assert rules_of(report) == {"scans.jpg": "image.corrupt"}


def test_of_many_pictures_only_the_first_is_unpacked():
    """A decoder unpacks all pictures of a GIF, whatever it then returns."""
    frames = gif((64, 48), (64, 48), *[(4000, 4000)] * 40)
    expected = read(tf.constant(gif((64, 48), (64, 48)))).numpy()
    with bounded_memory(20 * 2**20):
        image = read(tf.constant(frames)).numpy()
    np.testing.assert_array_equal(image, expected)
    assert inspect_image(frames).notes() == ["image.animated"]


@pytest.mark.parametrize(("kind", "suffix"), [("GIF", "gif"), ("PNG", "png")])
def test_of_a_moving_image_the_first_picture_is_used_and_noted(kind, suffix):
    data = moving(kind)
    assert inspect_image(data).notes(f"a.{suffix}") == ["image.animated"]
    first = encode(picture(*SIZE, seed=0), kind)
    np.testing.assert_array_equal(read(tf.constant(data)), read(tf.constant(first)))


@pytest.mark.parametrize("file", ["lying.gif", "cut.gif", "moving.webp"])
def test_the_graph_refuses_what_the_header_tells(file):
    data, rule = BROKEN[file]
    with pytest.raises(tf.errors.InvalidArgumentError, match=rule):
        read(tf.constant(data))


@pytest.mark.parametrize("lossless", [False, True])
def test_alpha_of_a_webp_is_dropped(lossless):
    image = picture(*SIZE)
    image.putalpha(Image.fromarray(np.arange(24 * 32, dtype=np.uint8).reshape(SIZE)))
    data = encode(image, "WEBP", lossless=lossless, exact=True)
    assert inspect_image(data).notes() == ["image.alpha"]
    out = read(tf.constant(data)).numpy()
    assert out.shape == (*SIZE, 3)
    if lossless:
        np.testing.assert_array_equal(out, np.asarray(image)[..., :3])


def test_any_name_is_used_and_reported(tmp_path):
    names = [b"caf\xe9.jpg", b"a\nb.jpg", "\U0001f600.jpg".encode(), b"-rf.jpg"]
    names += [b"x" * 251 + b".jpg", b" .jpg", b"a;b|c&d$e.jpg", b"%s%n{0}.jpg"]
    for folder in (b"a", b"b"):
        os.makedirs(os.path.join(os.fsencode(tmp_path), folder))
        for seed, name in enumerate(names):
            path = os.path.join(os.fsencode(tmp_path), folder, name)
            with open(path, "wb") as file:
                data = encode(picture(*SIZE, seed=seed + 100 * len(folder)), "JPEG")
                file.write(data if folder == b"a" else data[:-2])
    source = ImageFolder(tmp_path)
    report = DataReport(source, max_bad=1)
    check_source(source, report=report)
    assert (report.used, len(report.skipped["image.truncated"])) == (8, 8)
    text = json.dumps(report.to_dict())
    text.encode("ascii")
    restored = DataReport(source, max_bad=1)
    restored.restore(json.loads(text))
    assert restored.skipped == report.skipped


def test_twins_by_capitals_and_accents_are_used_and_warned_of(tmp_path):
    composed, apart = (unicodedata.normalize(form, "é.jpg") for form in ("NFC", "NFD"))
    source = image_folder(tmp_path, ["c.jpg", "d.jpg"])
    names = (composed, apart, "A.JPG", "a.jpg")
    for seed, name in enumerate(names):
        path = tmp_path / "a" / name
        path.write_bytes(encode(picture(*SIZE, seed=50 + seed), "JPEG"))
    if len(os.listdir(tmp_path / "a")) < 5:
        pytest.skip("this file system does not tell these names apart")
    source = ImageFolder(tmp_path)
    report = check_source(source)
    assert report.counts["used"] == len(source) == 6
    (twins,) = [f for f in report.findings if f.rule == "image.name_twins"]
    assert twins.level == "warning" and len(twins.names) == 2 and report.ok
    assert sorted(os.path.basename(source.record_name(i)) for i in twins.records) == (
        sorted(names)
    )
    # An annotation with the other spelling is told what there is.
    (tmp_path / "a/A.JPG").unlink()
    content = json.dumps(coco_file(["A.jpg", "a.jpg"]))
    (tmp_path / "coco.json").write_text(content)
    (skip,) = Coco("coco.json", "a", tmp_path).skipped
    assert skip.rule == "image.missing" and "(but 'a.jpg')" in skip.detail


@pytest.mark.parametrize("task", ["semantic_segmentation", "instance_segmentation"])
def test_masks_and_boxes_lie_on_turned_images(task, tmp_path):
    """All eight orientations at once; boxes and masks are of the upright picture."""
    names = [f"{i}.png" for i in range(1, 9)]
    if task == "semantic_segmentation":
        mask_folder(tmp_path, names)
        source = MaskFolder(tmp_path, classes=["a", "b"])
    else:
        source = coco(tmp_path, names, task)
    for orientation in range(1, 9):
        path = tmp_path / f"images/{orientation}.png"
        path.write_bytes(turned(orientation))
    assert check_source(source).ok
    report = DataReport(source)
    ((images, target),) = make_dataset(source, Preprocessing(SIZE), 8, report=report)
    assert not report.bad
    bright = images.numpy()[..., 0] > 128
    x1, y1, x2, y2 = BOX
    expected = np.zeros(SIZE, bool)
    expected[y1:y2, x1:x2] = True
    np.testing.assert_array_equal(bright, np.stack([expected] * 8))
    if task == "semantic_segmentation":
        np.testing.assert_array_equal(target.numpy() == 1, bright)
    else:
        np.testing.assert_allclose(target["boxes"][:, 0], [BOX] * 8, atol=1e-3)
        assert target["masks"].numpy()[:, 0].all()


def test_masks_of_turned_images_as_they_are_stored_are_told(tmp_path):
    names = ["5.png", "6.png"]
    mask_folder(tmp_path, names)
    for name in names:
        (tmp_path / "images" / name).write_bytes(turned(int(name[0])))
        mask = Image.fromarray(np.zeros(SIZE[::-1], np.uint8))
        (tmp_path / "masks" / name).write_bytes(encode(mask))
    found = check_source(MaskFolder(tmp_path, classes=["a", "b"])).findings
    (finding,) = [f for f in found if f.rule == "mask.size"]
    assert finding.level == "error" and "set `data.exif: ignore`" in finding.names[0]


MASKS = {
    "nothing": (b"", "mask.empty"),
    "text": (b"<html>", "mask.format"),
    "cut": (mask_of(1)[:-12], "mask.truncated"),
    "bomb": (png_bomb(20_000), "mask.too_large"),
    "value": (mask_of(7), "mask.value"),
    "turned": (encode(Image.fromarray(np.zeros(SIZE[::-1], np.uint8))), "mask.size"),
    "colours": (encode(picture(*SIZE)), "mask.format"),
    "deep": (
        encode(Image.fromarray(np.zeros(SIZE, np.uint16))),
        "mask.format",
    ),
    "jpeg": (encode(Image.fromarray(np.zeros(SIZE, np.uint8)), "JPEG"), "mask.format"),
}


def test_every_broken_mask_is_left_out_and_named(tmp_path):
    mask_folder(tmp_path, [*GOOD, *(f"{name}.jpg" for name in MASKS)])
    for name, (data, _) in MASKS.items():
        (tmp_path / f"masks/{name}.png").write_bytes(data)
    source = MaskFolder(tmp_path, classes=["a", "b"])
    expected = {f"{name}.jpg": rule for name, (_, rule) in MASKS.items()}
    reports = [DataReport(source, max_bad=1) for _ in range(2)]
    check_source(source, report=reports[0])
    batches = list(make_dataset(source, Preprocessing(SIZE), 4, report=reports[1]))
    assert sum(len(images) for images, _ in batches) == len(GOOD)
    for report in reports:  # of the doctor, and of the training itself
        assert rules_of(report) == expected
        assert report.read == report.used + len(MASKS)
        assert all("masks/" in d for files in report.skipped.values() for _, d in files)
