"""The doctor finds each fault of instance masks that was planted."""

import io

import numpy as np
import pytest
from pictures import MemorySource, encode, picture
from toy_boxes import SHARED

from visionkit.data.check import check_source
from visionkit.data.check_html import thumbnail, write_html
from visionkit.data.instance_masks import InstanceMasks
from visionkit.data.rle import encode_rle
from visionkit.data.sources.coco import Coco
from visionkit.data.sources.digits import Digits
from visionkit.visualize.drawing import open_image

SIZE = (60, 100)
FILES = [encode(picture(*SIZE, seed=i), "JPEG") for i in range(12)]


def rectangle(x1, y1, x2, y2, size=SIZE):
    mask = np.zeros(size, bool)
    mask[y1:y2, x1:x2] = True
    return encode_rle(mask)


def make(*changes):
    """A clean set in memory; each change is of one object in one image.

    A change is (image, object, key, value).
    """
    records = []
    for index, encoded in enumerate(FILES):
        boxes = [(5 + index, 4, 40, 30), (45, 20, 90, 50), (60, 52, 70, 58)]
        records.append(
            {
                "encoded": encoded,
                "boxes": np.array(boxes, np.float32),
                "box_labels": np.array([0, 1, index % 2], np.int32),
                "is_crowd": np.zeros(3, bool),
                "instance_masks": [rectangle(*box) for box in boxes],
            }
        )
    for image, number, key, value in changes:
        records[image][key][number] = value
    return MemorySource(records, "instance_segmentation", 2)


def findings(source, **options):
    return {
        finding.rule: finding for finding in check_source(source, **options).findings
    }


def test_clean_sets_raise_no_alarm():
    assert findings(make()) == {}
    report = check_source(Digits("instance_segmentation", "train", num_scenes=12))
    assert {f.rule for f in report.urgent} <= {"class.empty", "box.tiny"}
    assert report.counts["masks_read"] == report.counts["boxes"]
    area = check_source(make()).counts["mask_area"]
    assert (area["min"], area["max"]) == (60.0, 45 * 30.0)


@pytest.mark.parametrize(
    ("rule", "level", "value", "text"),
    [
        ("mask.rle", "error", b"\xff\xfe", "damaged"),
        ("mask.size", "error", rectangle(1, 2, 8, 9, (60, 99)), "number of pixels"),
        ("mask.empty", "warning", rectangle(0, 0, 0, 0), "no pixel"),
        ("mask.box", "warning", rectangle(5, 32, 30, 58), "where their boxes are"),
        ("mask.outside_box", "warning", rectangle(45, 10, 90, 50), "stick out"),
        ("mask.tiny", "note", rectangle(60, 52, 62, 56), "fewer than 9"),
    ],
)
def test_a_planted_fault_is_named(rule, level, value, text):
    number = 2 if rule == "mask.tiny" else 1
    changes = [(3, number, "instance_masks", value)]
    if rule == "mask.tiny":
        changes.append((3, 2, "boxes", [60, 52, 62, 56]))
    found = findings(make(*changes))
    assert set(found) == {rule}
    finding = found[rule]
    assert finding.level == level and finding.records == (3,)
    assert text in finding.message and finding.message.startswith("1 masks")
    assert finding.names[0].startswith("memory[3]: ")


def test_whole_sets_of_masks_elsewhere_are_an_error():
    every = [
        (i, n, "instance_masks", rectangle(0, 55, 9, 60))
        for i in range(12)
        for n in (0, 1)
    ]
    found = findings(make(*every))
    assert found["mask.box"].level == "error" and len(found["mask.box"].records) == 12
    crowds = [(image, number, "is_crowd", True) for image, number, *_ in every]
    assert "mask.box" not in findings(make(*every, *crowds))


def test_masks_that_overlap_are_listed():
    found = findings(make((7, 0, "instance_masks", rectangle(12, 4, 47, 30))))
    assert set(found) == {"mask.overlap", "mask.outside_box"}
    assert found["mask.overlap"].level == "note"
    assert found["mask.overlap"].names == (f"memory[7]: {2 * 10} pixels",)


def test_some_of_many_masks_are_read(monkeypatch):
    monkeypatch.setattr("visionkit.data.check_instances.MAX_READ", 4)
    source = make((5, 1, "instance_masks", b""))
    assert check_source(source).counts["masks_read"] == 12
    assert "mask.rle" not in findings(source)
    monkeypatch.setattr("visionkit.data.check._decoder", lambda: None)
    assert "mask.rle" in findings(source, deep=True)


def test_masks_are_drawn(tmp_path):
    source = make((0, 1, "instance_masks", b"\xff"))

    def shown(encoded):
        return np.asarray(open_image(io.BytesIO(encoded)), int)

    def painted(picture, box):
        """Share of the pixels in a box that are not as in the file."""
        x1, y1, x2, y2 = box
        away = np.abs(picture - shown(FILES[0])).max(axis=2) > 25
        return away[y1:y2, x1:x2].mean()

    left, right = (8, 14, 36, 28), (50, 36, 58, 46)  # within the objects, off the tags
    good, bad = shown(thumbnail(make(), 0)), shown(thumbnail(source, 0))
    assert painted(good, left) > 0.5 and painted(good, right) > 0.5
    assert painted(bad, left) > 0.5 and painted(bad, right) < 0.2
    report = check_source(source)
    write_html(tmp_path / "check.html", {"train": report}, {"train": source})
    page = (tmp_path / "check.html").read_text()
    assert "mask.rle" in page and "data:image/jpeg" in page


def test_nuclei_are_sound():
    root = SHARED / "nuclei"
    if not root.is_dir():
        pytest.skip(f"{root} is not there")
    source = Coco("instances.json", root=root, task="instance_segmentation")
    report = check_source(source)
    assert report.ok and report.counts["masks_read"] == 14988
    (overlap,) = [f for f in report.findings if f.rule == "mask.overlap"]
    assert len(overlap.records) == 3
    index = overlap.records[0]
    size = tuple(source.image_sizes()[index].tolist())
    masks = np.asarray(InstanceMasks(source.record(index)["instance_masks"], size))
    shared = int(masks.sum() - masks.any(axis=0).sum())
    assert overlap.names[0].endswith(f": {shared} pixels")
