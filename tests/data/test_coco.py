"""COCO files: ids, crowds, masks, proposals, and what is wrong with its place."""

import copy
import json

import numpy as np
import pytest
from toy_boxes import SHARED, assert_toy, coco_dict, write_coco

from visionkit.data.rle import decode_rle, encode_rle
from visionkit.data.sources.coco import Coco
from visionkit.data.sources.records import Records, write_records
from visionkit.data.split import split_source


def load(tmp_path, content=None, **options):
    return Coco("instances.json", root=write_coco(tmp_path, content), **options)


def test_gaps_close_and_empty_images_stay(tmp_path):
    source = load(tmp_path)
    assert_toy(source)
    assert source.category_ids == (3, 7, 90) and source.image_ids == [5, 15, 25]
    assert source.record(0)["area"].tolist() == [504.0, 400.0]
    np.testing.assert_array_equal(source.image_sizes(), [[40, 80], [64, 48], [50, 100]])
    assert source.skipped == [] and source.remarks == []


def test_crowds_and_missing_areas(tmp_path):
    content = coco_dict()
    content["annotations"][0]["iscrowd"] = 1
    del content["annotations"][1]["area"]
    record = load(tmp_path, content).record(0)
    assert record["is_crowd"].tolist() == [True, False]
    assert record["area"].tolist() == [504.0, 800.0]


def test_classes_select_and_reorder(tmp_path):
    source = load(tmp_path, classes=["emu", "cat"])
    assert source.info.class_names == ("emu", "cat") and len(source) == 3
    assert source.category_ids == (90, 3)
    assert source.record(0)["box_labels"].tolist() == [1]
    assert source.record(2)["box_labels"].tolist() == [0, 1]
    with pytest.raises(ValueError, match=r"no class in the data 'catt'. Did you mean"):
        load(tmp_path, classes=["catt"])


def test_missing_images_and_stray_annotations_are_counted(tmp_path):
    content = coco_dict()
    content["images"][1]["file_name"] = "gone.png"
    content["annotations"][2]["image_id"] = 999
    content["annotations"][3]["id"] = 1
    content["annotations"][4]["bbox"][2] = float("nan")
    source = load(tmp_path, content)
    assert len(source) == 2 and source.image_ids == [5, 25]
    ((skip),) = source.skipped
    assert skip.rule == "image.missing" and skip.name.endswith("images/gone.png")
    assert "images[1].file_name (id 15)" in skip.detail
    rules = {remark.rule: remark for remark in source.remarks}
    assert "annotations[2].image_id" in rules["label.no_image"].name
    assert "annotations[4].bbox (id 5)" in rules["box.nonfinite"].name
    assert "1 annotations" in rules["label.duplicate_id"].detail
    assert source.record(1)["boxes"].shape == (1, 4)


def edit(section, index, **values):
    return lambda content: content[section][index].update(values)


def changed(change):
    content = coco_dict()
    change(content)
    return content


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (
            lambda c: c["annotations"][1].pop("bbox"),
            r"annotations\[1\].bbox \(id 2\) is m",
        ),
        (
            lambda c: c["annotations"][1].update(bbox=None),
            r"bbox \(id 2\) is None. Exp",
        ),
        (
            lambda c: c["annotations"][1].update(bbox=[1, 2, 3]),
            r"\[1, 2, 3\]. Expected f",
        ),
        (
            lambda c: c["annotations"][0].update(bbox=["1", 2, 3, 4]),
            r"\['1', 2, 3, 4\]",
        ),
        (
            lambda c: c["annotations"][0].update(category_id=1),
            r"unknown in this file: 1",
        ),
        (
            lambda c: c["annotations"][0].update(category_id=None),
            "the id of a category",
        ),
        (edit("images", 2, id=5), r"images\[0\].id .* no other has"),
        (
            lambda c: c["images"][0].update(file_name=3),
            r"images\[0\].file_name .* a text",
        ),
        (lambda c: c.pop("images"), r"no list `images`.*Found: \['annotations', 'cat"),
        (lambda c: c["images"].append(7), r"images\[3\] is 7, not an object"),
        (lambda c: c["categories"][0].update(name="dog"), r"\['dog'\] twice"),
        (
            lambda c: c["images"][0].update(file_name="../a.png"),
            r"images\[0\].*absolute p",
        ),
        (
            lambda c: c["images"][0].update(file_name="/etc/passwd"),
            r"id 5\) is '/etc/pas",
        ),
        (
            lambda c: c["images"][0].update(file_name="C:\\a.png"),
            "an absolute path, or",
        ),
        (edit("images", 0, file_name="x\\a.png"), "with backslashes"),
        (edit("images", 0, file_name="a\0.png"), "a NUL in a path"),
    ],
)
def test_wrong_entries_are_named(tmp_path, change, match):
    with pytest.raises(ValueError, match=match):
        load(tmp_path, changed(change), images="images")


@pytest.mark.parametrize(
    ("text", "match"),
    [
        (b"", "is no JSON, or cut off: line 1, column 1"),
        (b'{"images": [', "is no JSON, or cut off"),
        (b"[1]", "no list `images`"),
        (b"[" * 100_000, "nested too deeply|no JSON"),
        (b'{"images": "caf\xe9"}', "is not UTF-8: byte 15 is 233"),
    ],
)
def test_damaged_files_are_refused(tmp_path, text, match):
    (tmp_path / "x.json").write_bytes(text)
    with pytest.raises(ValueError, match=match):
        Coco("x.json", root=tmp_path)
    with pytest.raises(FileNotFoundError, match="No such annotation file"):
        Coco("y.json", root=tmp_path)


def test_a_byte_order_mark_is_allowed(tmp_path):
    write_coco(tmp_path)
    path = tmp_path / "instances.json"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert_toy(Coco("instances.json", root=tmp_path))


def test_links_do_not_lead_out(tmp_path):
    write_coco(tmp_path)
    (tmp_path / "secret.png").write_bytes(b"x")
    (tmp_path / "images/a.png").unlink()
    (tmp_path / "images/a.png").symlink_to(tmp_path / "secret.png")
    with pytest.raises(ValueError, match=r"images\[0\].file_name.*a link out of"):
        Coco("instances.json", "images", tmp_path)
    # A folder of images that is itself a link is where the user said it is.
    (tmp_path / "images/a.png").unlink()
    (tmp_path / "images/a.png").symlink_to(tmp_path / "images/b.png")
    (tmp_path / "elsewhere").symlink_to(tmp_path / "images")
    assert len(Coco("instances.json", "elsewhere", tmp_path)) == 3


@pytest.mark.parametrize(
    "folder", ["images", "train2017", "images/train", "annotations", "train"]
)
def test_images_are_found_in_the_usual_places(tmp_path, folder):
    write_coco(tmp_path)
    (tmp_path / "annotations").mkdir()
    text = (tmp_path / "instances.json").read_text()
    (tmp_path / "annotations/instances_train2017.json").write_text(text)
    (tmp_path / "images").rename(tmp_path / "moved")
    (tmp_path / folder).parent.mkdir(exist_ok=True)
    if (tmp_path / folder).exists():
        for file in (tmp_path / "moved").iterdir():
            file.rename(tmp_path / folder / file.name)
    else:
        (tmp_path / "moved").rename(tmp_path / folder)
    source = Coco("annotations/instances_train2017.json", root=tmp_path)
    assert_toy(source)
    assert source.info.split == "train"


def masks_of(source, index):
    size = source.image_sizes()[index]
    return [decode_rle(m, size) for m in source.record(index)["instance_masks"]]


def test_masks_of_all_three_kinds(tmp_path):
    content = coco_dict()
    mask = np.zeros((40, 80), bool)
    mask[8:36, 4:40] = True
    runs = np.diff(np.flatnonzero(np.diff(mask.T.reshape(-1), prepend=1, append=2)))
    first, second, third, fourth, fifth = content["annotations"]
    first["segmentation"] = {"size": [40, 80], "counts": encode_rle(mask).decode()}
    second["segmentation"] = {"size": [40, 80], "counts": runs.tolist()}
    third["segmentation"] = [[0, 10, 100, 10, 100, 50, 0, 50]]
    fourth["segmentation"] = [
        [10, 5, 20, 5, 20, 25, 10, 25],
        [20, 5, 30, 5, 30, 25, 20, 25],
        [40, 40, 50, 45],  # no area
    ]
    fifth["segmentation"] = [[1, 2, 3, 4]]
    source = load(tmp_path, content, task="instance_segmentation")
    assert source.info.task == "instance_segmentation"
    for found in masks_of(source, 0):
        np.testing.assert_array_equal(found, mask)
    expected = np.zeros((2, 50, 100), bool)
    expected[0, 10:], expected[1, 5:25, 10:30] = True, True
    np.testing.assert_array_equal(masks_of(source, 2), expected)
    ((remark),) = source.remarks
    assert (
        remark.rule == "mask.polygon" and "annotations[4].segmentation" in remark.name
    )

    first["segmentation"]["counts"] = "xx"
    fifth["segmentation"] = [10**400]  # no float
    broken = load(tmp_path, content, task="instance_segmentation")
    assert [r.rule for r in broken.remarks] == ["mask.rle", "mask.polygon"]
    first["segmentation"] = {"size": [80, 40], "counts": "1"}
    with pytest.raises(ValueError, match=r"annotations\[0\].*mask.size: .*\[80, 40\]"):
        load(tmp_path, content, task="instance_segmentation")
    with pytest.raises(
        ValueError, match=r"is for detection and .*instance_segmentation"
    ):
        load(tmp_path, task="classification")


def test_proposals_travel_sorted_and_through_records(tmp_path):
    rows = [
        {"image_id": 25, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.1},
        {"image_id": 5, "category_id": 1, "bbox": [5, 6, 7, 8], "score": 0.5},
        {"image_id": 25, "category_id": 1, "bbox": [9, 8, 7, 6], "score": 0.9},
        {"image_id": 77, "category_id": 1, "bbox": [0, 0, 1, 1], "score": 0.9},
    ]
    (tmp_path / "rpn.json").write_text(json.dumps(rows))
    source = load(tmp_path, proposals="rpn.json")
    expected = [[[5, 6, 12, 14]], [], [[9, 8, 16, 14], [1, 2, 4, 6]]]
    write_records(source, tmp_path / "records", progress=False)
    _, held = split_source(source, 0.4)
    records = Records(tmp_path / "records")
    for index, boxes in enumerate(expected):
        for found in (source, records):
            proposals = found.record(index)["proposals"]
            assert proposals.dtype == np.float32 and proposals.shape == (len(boxes), 4)
            np.testing.assert_array_equal(proposals, np.reshape(boxes, (-1, 4)))
    for found in (source, records, held):
        elements = found.raw_dataset().as_numpy_iterator()
        for index, element in enumerate(elements):
            record = found.record(index)
            np.testing.assert_array_equal(element["proposals"], record["proposals"])
            np.testing.assert_array_equal(element["boxes"], record["boxes"])
        objects, columns = found.objects(), found.columns()
        assert {"boxes", "proposals", "row_splits", "proposal_splits"} <= set(objects)
        for key, value in objects.items():
            np.testing.assert_array_equal(value, columns[key])

    named = [row | {"file_name": "x/c.jpg", "image_id": 0} for row in rows]
    (tmp_path / "rpn.json").write_text(json.dumps(named))
    assert len(load(tmp_path, proposals="rpn.json").record(2)["proposals"]) == 4
    (tmp_path / "rpn.json").write_text(json.dumps(rows[3:]))
    with pytest.raises(ValueError, match=r"no proposal for any of the 3 images.*77"):
        load(tmp_path, proposals="rpn.json")
    (tmp_path / "rpn.json").write_text(json.dumps([{"image_id": 5, "bbox": [1]}]))
    with pytest.raises(ValueError, match=r"proposals\[0\].bbox .* is \[1\]. Expected"):
        load(tmp_path, proposals="rpn.json")


def test_many_images_are_columns_in_seconds(tmp_path):
    content = coco_dict()
    image, objects = content["images"][0], content["annotations"][:2]
    content["images"] = [image | {"id": i} for i in range(20_000)]
    content["annotations"] = [
        copy.copy(o) | {"image_id": i, "id": 2 * i + k, "segmentation": [[1.5] * 8]}
        for i in range(20_000)
        for k, o in enumerate(objects)
    ]
    import time

    write_coco(tmp_path, content)
    start = time.process_time()
    source = Coco("instances.json", root=tmp_path)
    assert time.process_time() - start < 10  # about 0.4 s
    assert source.columns()["boxes"].shape == (40_000, 4)


@pytest.mark.parametrize(
    ("file", "counts"),
    [
        ("nuts/trainval.json", {"date": 71, "fig": 41, "hazelnut": 53}),
        ("nuclei/instances.json", {"nucleus": 14_988}),
    ],
)
def test_real_sets_equal_an_independent_parse(file, counts):
    path = SHARED / file
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    raw = json.loads(path.read_text())
    source = Coco(path)
    assert len(source) == len(raw["images"]) and not source.skipped
    found = dict(zip(source.info.class_names, source.class_counts(), strict=True))
    assert found == counts
    for index in (0, len(source) // 2, len(source) - 1):
        image = raw["images"][index]
        own = [a for a in raw["annotations"] if a["image_id"] == image["id"]]
        record = source.record(index)
        assert record["path"].endswith(image["file_name"].encode())
        expected = [[a, b, a + c, b + d] for a, b, c, d in (o["bbox"] for o in own)]
        np.testing.assert_allclose(record["boxes"], expected)
        np.testing.assert_allclose(record["area"], [o["area"] for o in own])


def test_an_area_left_out_is_that_of_the_mask(tmp_path):
    content = coco_dict()
    for row in content["annotations"]:
        row.pop("area", None)
        x, y, width, height = row["bbox"]
        row["segmentation"] = [[x, y, x + width, y, x, y + height]]  # half of the box
    source = load(tmp_path, content, task="instance_segmentation")
    areas = [mask.sum() for mask in masks_of(source, 0)]
    record = source.record(0)
    assert record["area"].tolist() == areas
    halves = (record["boxes"][:, 2:] - record["boxes"][:, :2]).prod(axis=1) / 2
    np.testing.assert_allclose(areas, halves, rtol=0.1)


def test_real_polygons_are_masks_of_their_areas():
    path = SHARED / "nuts/trainval.json"
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    source = Coco(path, task="instance_segmentation")
    masks, record = masks_of(source, 0), source.record(0)
    areas = np.array([mask.sum() for mask in masks])
    np.testing.assert_allclose(areas, record["area"], rtol=0.02)
    for mask, box in zip(masks, record["boxes"], strict=True):
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        tight = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
        np.testing.assert_allclose(tight, box, atol=2)
