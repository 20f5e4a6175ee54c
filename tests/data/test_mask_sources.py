"""Semantic masks out of polygons, RLE, VOC's palettes and records."""

import numpy as np
import pytest
import tensorflow as tf
from pictures import encode, picture
from PIL import Image
from toy_boxes import NAMES, coco_dict, write_coco, write_yolo

from visionkit.data.image_header import BadImage
from visionkit.data.mask_codes import encode_mask
from visionkit.data.pipeline import Order, make_dataset
from visionkit.data.report import DataReport
from visionkit.data.resize import resize_mask
from visionkit.data.sources.coco import Coco
from visionkit.data.sources.digits import Digits
from visionkit.data.sources.mask_folder import MaskFolder
from visionkit.data.sources.records import Records, write_records
from visionkit.data.sources.voc import VOC_CLASSES, Voc
from visionkit.data.sources.yolo_txt import YoloTxt
from visionkit.data.split import split_source
from visionkit.types import VOID_CLASS, Preprocessing

TASK = "semantic_segmentation"


def rectangle(x1, y1, x2, y2):
    return [[x1, y1, x2, y1, x2, y2, x1, y2]]


def coco_with_outlines(crowd=False):
    content = coco_dict()
    for item in content["annotations"]:
        x, y, width, height = item["bbox"]
        item["segmentation"] = rectangle(x, y, x + width, y + height)
        item["iscrowd"] = int(crowd and item["id"] == 4)
    return content


def expected_masks(background=True, crowd=False):
    """The toy's objects by falling area; labels as in `toy_boxes.IMAGES`."""
    first, last = int(background), 0 if background else VOID_CLASS
    a = np.full((40, 80), last)
    a[8:36, 4:40], a[:20, 40:] = first + 1, first
    c = np.full((50, 100), last)
    c[10:] = first + 2
    c[5:26, 10:31] = first
    c[5:25, 10:30] = first + 1
    if crowd:  # the crowd lies below all others
        c = np.full((50, 100), last)
        c[5:25, 10:30] = VOID_CLASS
        c[10:] = first + 2
        c[5:26, 10:31] = first
    return a, np.full((64, 48), last), c


def check_pipeline(source, expected):
    """The source's masks, and the pipeline's at the model's size."""
    preprocessing = Preprocessing((60, 90))
    dataset = make_dataset(source, preprocessing, 1)
    for index, (mask, (_, masks)) in enumerate(zip(expected, dataset, strict=True)):
        found = source.mask(index)
        assert found.dtype == np.uint8
        np.testing.assert_array_equal(found, mask)
        resized = resize_mask(tf.constant(mask, tf.uint8), preprocessing)
        np.testing.assert_array_equal(masks[0], resized)


@pytest.mark.parametrize("crowd", [False, True])
@pytest.mark.parametrize("background", [True, False])
def test_coco_paints_small_objects_on_large_ones(tmp_path, background, crowd):
    write_coco(tmp_path, coco_with_outlines(crowd))
    options = {"root": tmp_path, "task": TASK, "background": background}
    source = Coco("instances.json", **options)
    names = ("background", *NAMES) if background else NAMES
    assert source.info.class_names == names and source.info.task == TASK
    assert "boxes" not in source.record(0)
    check_pipeline(source, expected_masks(background, crowd))
    counts = np.bincount(source.mask(2).ravel(), minlength=256)
    np.testing.assert_array_equal(source.mask_counts()[2, :-1], counts[: len(names)])

    write_records(source, tmp_path / "records", progress=False)
    records = Records(tmp_path / "records")
    _, held = split_source(source, 0.34)
    for index in range(3):
        np.testing.assert_array_equal(records.mask(index), source.mask(index))
    where = int(held.indices[0])
    np.testing.assert_array_equal(held.mask(0), source.mask(where))


def test_a_set_without_any_object_is_background(tmp_path):
    content = coco_dict()
    content["annotations"] = []
    write_coco(tmp_path, content)
    source = Coco("instances.json", root=tmp_path, task=TASK)
    check_pipeline(source, [np.zeros(size) for size in ((40, 80), (64, 48), (50, 100))])


def test_an_image_of_another_size_than_its_regions_is_reported(tmp_path):
    content = coco_with_outlines()
    content["images"][0] |= {"height": 50, "width": 80}
    write_coco(tmp_path, content)
    source = Coco("instances.json", root=tmp_path, task=TASK)
    report = DataReport(source, max_bad=0.5)
    dataset = make_dataset(
        source, Preprocessing((40, 40)), 2, order=Order(0), report=report
    )
    for _ in dataset.take(3):
        pass
    ((name, detail),) = report.skipped["mask.size"]
    assert name.endswith("a.png") and "40 80" in detail
    del content["images"][1]["width"]
    write_coco(tmp_path, content)
    with pytest.raises(
        ValueError, match=r"images\[1\].height .*no `height` and `width`"
    ):
        Coco("instances.json", root=tmp_path, task=TASK)


def test_yolo_outlines_are_painted(tmp_path):
    write_yolo(tmp_path)  # boxes count as outlines
    source = YoloTxt(tmp_path, task=TASK)
    assert source.info.class_names == ("background", *NAMES)
    for index, mask in enumerate(expected_masks()):
        np.testing.assert_array_equal(source.mask(index), mask)


def test_voc_reads_indices_of_palettes_and_lists(tmp_path):
    (tmp_path / "JPEGImages").mkdir()
    (tmp_path / "SegmentationClass").mkdir()
    (tmp_path / "ImageSets/Segmentation").mkdir(parents=True)
    ids = np.random.default_rng(0).choice(np.uint8([0, 1, 15, 20, 255]), (30, 44))
    for name in ("2007_01", "2007_02", "2007_03"):
        image = encode(picture(30, 44), "JPEG")
        (tmp_path / f"JPEGImages/{name}.jpg").write_bytes(image)
        mask = Image.fromarray(ids)
        mask.putpalette(bytes(range(256)) * 3)
        path = tmp_path / f"SegmentationClass/{name}.png"
        path.write_bytes(encode(mask))
    lists = tmp_path / "ImageSets/Segmentation"
    (lists / "train.txt").write_text("2007_03\n2007_01\n")
    (lists / "val.txt").write_text("2007_02\n")
    (lists / "trainval.txt").write_text("2007_01\n2007_02\n2007_03\n")
    assert len(Voc(tmp_path, "trainval", task=TASK)) == 3
    source = Voc(tmp_path, task=TASK)
    assert source.info.class_names == ("background", *VOC_CLASSES)
    assert source.info.num_classes == 21 and source.info.class_names[15] == "person"
    assert source.record_name(0).endswith("2007_03.jpg") and len(source) == 2
    check_pipeline(source, [ids, ids])
    assert Voc(tmp_path, "validation", task=TASK).info.split == "validation"
    path.write_bytes(encode_mask(np.full((30, 44), 21, np.uint8)))
    with pytest.raises(BadImage, match=r"21 \(1320 pixels\)"):
        source.mask(0)
    (tmp_path / "labelmap.txt").write_text("road:0,0,0::\n")
    assert Voc(tmp_path, task=TASK).info.class_names == ("road",)


def test_records_hold_class_ids_whatever_the_files_held(tmp_path):
    rng = np.random.default_rng(1)
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    for index in range(4):
        encoded = encode(picture(16, 24, seed=index))
        (tmp_path / f"images/{index}.png").write_bytes(encoded)
        mask = rng.choice(np.uint8([50, 90, 7]), (16, 24))
        (tmp_path / f"masks/{index}.png").write_bytes(encode_mask(mask))
    bad = encode_mask(np.full((16, 24), 8, np.uint8))
    (tmp_path / "masks/3.png").write_bytes(bad)
    source = MaskFolder(tmp_path, classes={"x": 50, "y": 90}, void=7)
    summary = write_records(source, tmp_path / "out", progress=False)
    assert [(s.rule, s.name[-5:]) for s in summary.skipped] == [("mask.value", "3.png")]
    records = Records(tmp_path / "out")
    assert records.info.class_names == ("x", "y") and len(records) == 3
    for index in range(3):
        np.testing.assert_array_equal(records.mask(index), source.mask(index))


def test_digit_scenes_count_their_pixels():
    source = Digits(TASK, num_scenes=3)
    counts = source.mask_counts()
    assert counts.shape == (3, 12) and (counts.sum(axis=1) == 256 * 320).all()
    assert counts[:, -1].sum() == 0 and (counts[:, 0] > counts[:, 1:].sum(1)).all()
    np.testing.assert_array_equal(source.class_counts(), counts[:, :-1].sum(axis=0))
