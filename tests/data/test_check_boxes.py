"""The doctor finds each fault of boxes that was planted, and none in clean sets."""

import dataclasses
import json

import numpy as np
import pytest
from pictures import MemorySource, encode, picture
from toy_boxes import SHARED, assert_toy, coco_dict, write_coco, write_voc

from visionkit.data.check import check_data, check_source, check_splits
from visionkit.data.check_formats import FORMATS, guess_format
from visionkit.data.check_html import thumbnail, write_html
from visionkit.data.near_duplicates import fingerprints, near_pairs
from visionkit.data.sources.base import Skip
from visionkit.data.sources.coco import Coco
from visionkit.data.sources.digits import Digits
from visionkit.data.sources.voc import Voc

SIZE = (60, 100)
FILES = [encode(picture(*SIZE, seed=i), "JPEG") for i in range(30)]


def clean_boxes(rng, count, size=SIZE):
    """Boxes within an image, a few of them at its edges."""
    height, width = size
    sides = rng.uniform([8, 6], [0.6 * width, 0.6 * height], (count, 2))
    corner = rng.uniform(0, 1, (count, 2)) * ([width, height] - sides)
    at_edge = rng.random((count, 2)) < 0.15
    corner = np.where(at_edge, [width, height] - sides, corner)
    corner = np.where(rng.random((count, 2)) < 0.15, 0, corner)
    return np.concatenate([corner, corner + sides], axis=1).astype(np.float32)


def make(seed=0, files=FILES, change=None, read_as="xyxy"):
    """A clean set in memory; `change` works on its (N, 4) boxes, image by image."""
    rng = np.random.default_rng(seed)
    records = []
    for index, encoded in enumerate(files):
        boxes = clean_boxes(rng, 4)
        if change:
            boxes = change(boxes).astype(np.float32)
        labels = np.array([0, 1, 0, index % 2], np.int32)
        records.append({"encoded": encoded, "boxes": boxes, "box_labels": labels})
    source = MemorySource(records, "detection", 2)
    source.box_format = read_as
    return source


def urgent(source):
    return {finding.rule: finding for finding in check_source(source).urgent}


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("read_as", FORMATS)
def test_clean_sets_raise_no_alarm(seed, read_as):
    assert urgent(make(seed, read_as=read_as)) == {}


def test_clean_scenes_and_toys_raise_no_alarm(tmp_path):
    assert set(urgent(Digits("detection", "train", num_scenes=30))) <= {"class.empty"}
    report = check_source(Coco("instances.json", root=write_coco(tmp_path)))
    assert report.ok
    assert {f.rule for f in report.urgent} == set()
    assert report.counts["boxes"] == 5 and report.counts["classes"]["cat"] == 2
    assert report.counts["boxes_per_image"] == {"min": 0.0, "median": 2.0, "max": 3.0}
    assert [f.rule for f in report.findings] == ["image.no_objects"]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("read_as", FORMATS)
@pytest.mark.parametrize("written", FORMATS)
def test_the_format_is_guessed_from_what_fits(seed, read_as, written):
    boxes = clean_boxes(np.random.default_rng(seed), 300).astype(np.float64)
    sizes = np.broadcast_to(SIZE, (300, 2))
    numbers = FORMATS[written][0](boxes)
    guess = guess_format(FORMATS[read_as][1](numbers), sizes, read_as)
    if read_as == written:
        assert guess is None
    else:
        name, before, after = guess
        assert name == written and before < 0.98 and after == 1


def swapped(boxes):
    return boxes[:, [1, 0, 3, 2]]


def shares(boxes):
    return boxes / [*SIZE[::-1], *SIZE[::-1]]


def as_width_height(boxes):
    return FORMATS["xywh"][0](boxes)


@pytest.mark.parametrize(
    ("change", "rule", "text"),
    [
        (swapped, "box.swapped", r"as (y1, x1, y2, x2) 100% of all would fit"),
        (
            as_width_height,
            "box.format",
            r"as (x, y, width, height), x and y of the cor",
        ),
        (shares, "box.normalised", "multiply them by its width and height"),
        (lambda b: b + 1000, "box.outside", "lie outside of their images"),
        (lambda b: b[:, [2, 1, 0, 3]], "box.degenerate", "have no area"),
    ],
)
def test_whole_sets_of_wrong_boxes_are_errors(change, rule, text):
    finding = urgent(make(change=change))[rule]
    assert finding.level == "error" and text in finding.message
    assert finding.records and "memory[" in finding.names[0]


def one(row, numbers):
    """Changes one box of each fifth image."""

    def change(boxes, count=[0]):  # noqa: B006
        count[0] += 1
        boxes = boxes.copy()
        if count[0] % 15 == 0:
            boxes[row] = numbers
        return boxes

    return change


@pytest.mark.parametrize(
    ("numbers", "rule"),
    [
        ((30, 20, 30, 50), "box.degenerate"),
        ((30, 20, 31, 50), "box.tiny"),
        ((200, 20, 240, 50), "box.outside"),
        ((60, 20, 140, 50), "box.clipped"),
        ((0.2, 0.2, 0.5, 0.8), "box.normalised"),
    ],
)
def test_a_few_wrong_boxes_are_warnings_with_their_names(numbers, rule):
    found = urgent(make(change=one(1, numbers)))
    assert set(found) == {rule}
    assert found[rule].level == "warning" and len(found[rule].names) == 2
    assert found[rule].records == (14, 29)
    assert ", ".join(f"{n:g}" for n in numbers) in found[rule].names[0]


def test_twins_are_found_and_crowds_left_alone():
    source = make()
    boxes = source.records[3]["boxes"]
    boxes[2] = boxes[0]  # both of class 0
    near = source.records[4]["boxes"]
    near[2] = near[0] + [0.2, 0, 0.2, 0]
    other = source.records[5]["boxes"]
    other[1] = other[0]  # of another class
    found = urgent(source)
    assert set(found) == {"box.duplicate", "box.near_duplicate"}
    assert found["box.duplicate"].records == (3,)
    assert found["box.near_duplicate"].records == (4,)
    for record in source.records:
        record["is_crowd"] = np.array([True, False, False, False])
    assert urgent(source) == {}


def test_labels_empty_images_and_balance():
    source = make()
    source.records[2]["box_labels"][0] = 7
    for record in source.records[5:25]:
        record["boxes"] = np.zeros((0, 4), np.float32)
        record["box_labels"] = np.zeros(0, np.int32)
    found = urgent(source)
    assert found["label.out_of_range"].level == "error"
    assert "labels outside of 0 to 1: [7]" in found["label.out_of_range"].message
    assert "20 of 30 images have no objects" in found["image.no_objects"].message
    for record in source.records:
        record["box_labels"] = np.zeros(len(record["boxes"]), np.int32)
    source.records[0]["box_labels"][0] = 1
    assert "'class 0' (39) has 39.0 times the boxes of" in (
        urgent(source)["class.imbalance"].message
    )


def turned(orientation=6):
    from PIL import Image

    exif = Image.Exif()
    exif[0x0112] = orientation
    files = [encode(picture(*SIZE, seed=i), "JPEG", exif=exif) for i in range(3)]
    return files + FILES[3:]


def test_turned_files_with_boxes_of_the_stored_frame():
    finding = urgent(make(files=turned()))["image.exif_boxes"]
    assert finding.level == "error" and "`data.exif: ignore`" in finding.message
    assert set(finding.records) <= {0, 1, 2} and finding.records
    assert "image.exif_boxes" not in urgent(make(files=turned(3)))  # the same frame


def test_sizes_that_the_annotations_give(tmp_path):
    content = coco_dict()
    content["images"][0] |= {"height": 80, "width": 160}
    source = Coco("instances.json", root=write_coco(tmp_path, content))
    finding = urgent(source)["image.size"]
    assert "e.g. 80x40 and not 160x80" in finding.message and finding.records == (0,)
    (tmp_path / "images/a.png").write_bytes(turned()[0])
    content["images"][0] |= {"height": SIZE[0], "width": SIZE[1]}
    source = Coco("instances.json", root=write_coco(tmp_path / "x", content))
    (tmp_path / "x/images/a.png").write_bytes(turned()[0])
    found = urgent(source)
    assert found["image.exif_boxes"].records == (0,) and "image.size" not in found


def test_remarks_are_told_and_many_are_an_error():
    source = make()
    source.remarks = [Skip("a", "box.nonfinite", "left out: nan")]
    assert urgent(source)["box.nonfinite"].level == "warning"
    source.remarks *= 20
    assert urgent(source)["box.nonfinite"].level == "error"
    source.remarks = [Skip("t.csv", "box.shares", "...")]
    assert urgent(source) == {}
    assert [f.rule for f in check_source(source).findings] == ["box.shares"]


def test_bccd_has_the_flaws_it_is_known_for():
    root = SHARED / "bccd"
    if not root.is_dir():
        pytest.skip(f"{root} is not there")
    found = urgent(Voc(root, "all", one_based=False))
    flat = found["box.degenerate"]
    assert [n.partition(":")[0][-20:-4] for n in flat.names] == [
        "BloodImage_00338",
        "BloodImage_00343",
    ]
    assert found["box.near_duplicate"].records
    assert not [f for f in found.values() if f.level == "error"]


def test_pictures_that_look_the_same_are_leaks():
    train = make(files=[encode(picture(*SIZE, seed=i)) for i in range(20)])
    again = [encode(picture(*SIZE, seed=i).resize((130, 78)), "JPEG") for i in (3, 8)]
    held = make(files=[FILES[25], *again, encode(picture(*SIZE, seed=5))])
    report = check_splits(train, held, deep=True)
    found = {finding.rule: finding.names for finding in report.findings}
    assert found["leak.exact"] == ("memory[5] = memory[3]",)
    assert found["leak.near"] == ("memory[3] = memory[1]", "memory[8] = memory[2]")
    assert "leak.near" not in str(check_splits(train, held).findings)
    from PIL import Image

    blank = make(files=[encode(Image.new("RGB", (40, 30), "white")), b"no image"])
    assert near_pairs(fingerprints(blank), fingerprints(blank)) == []
    assert near_pairs(fingerprints(make(files=[])), fingerprints(blank)) == []


def test_the_page_shows_pictures_and_escapes_names(tmp_path):
    source = make(change=one(1, (30, 20, 30, 50)))
    source.info = dataclasses.replace(source.info, class_names=("<b>", "x\udcff"))
    source.remarks = [Skip("<script>", "box.nonfinite", "\udcff")]
    reports = check_data(source, make(seed=1))
    write_html(tmp_path / "check.html", reports, {"train": source})
    text = (tmp_path / "check.html").read_text()
    assert text.count("data:image/jpeg;base64,") == 2
    assert "<script>" not in text and "&lt;script&gt;" in text and "\\udcff" in text
    assert "box.degenerate" in text and "train and validation" in text
    assert thumbnail(make(files=[b"no image"]), 0) is None
    assert json.loads(json.dumps(reports["train"].to_dict()))["findings"]


def test_the_training_reads_what_the_doctor_passes(tmp_path):
    assert_toy(Voc(write_voc(tmp_path), "all"))
    source = Voc(tmp_path, "all")
    assert check_source(source).ok
