"""One call finds out which format a folder holds, and its splits."""

import json

import numpy as np
import pytest
from pictures import encode, picture
from PIL import Image
from toy_boxes import (
    NAMES,
    SHARED,
    assert_toy,
    coco_dict,
    write_coco,
    write_csv,
    write_images,
    write_voc,
    write_yolo,
)

from visionkit.data.sources import build_source
from visionkit.data.sources.detect import detect_source
from visionkit.data.sources.digits import Digits
from visionkit.data.sources.records import write_records


def folders_of_classes(root):
    for split in ("train", "val"):
        for name in ("cat", "dog"):
            folder = root / split / name
            folder.mkdir(parents=True)
            (folder / "1.png").write_bytes(encode(picture(seed=len(str(folder)))))
    return root


def coco_splits(root):
    (root / "annotations").mkdir(parents=True)
    for split in ("train", "val"):
        write_images(root / f"{split}2017")
        path = root / f"annotations/instances_{split}2017.json"
        path.write_text(json.dumps(coco_dict()))
        (root / f"annotations/captions_{split}2017.json").write_text("{}")
    return root


def coco_export(root):
    for split in ("train", "valid", "test"):
        write_images(root / split)
        (root / split / "_annotations.coco.json").write_text(json.dumps(coco_dict()))
    return root


def table_with_split(root):
    write_csv(root)
    rows = (root / "train.csv").read_text().splitlines()
    rows = [f"{row},{'val' if row.startswith('c') else 'train'}" for row in rows[1:]]
    head = "filename,kind,xmin,xmax,ymin,ymax,split"
    (root / "train.csv").unlink()
    (root / "all.csv").write_text("\n".join([head, *rows]))
    return root


def two_tables(root):
    write_csv(root)
    (root / "pics").mkdir()
    for image in root.glob("*.png"):
        image.rename(root / "pics" / image.name)
    (root / "valid.csv").write_text((root / "train.csv").read_text())
    (root / "notes.csv").write_text("a,b,c\n1,2,3\n")
    return root


SPLITS = ({"split": "train"}, {"split": "validation"})
CASES = {
    "coco": (write_coco, "coco", {"annotations": "instances.json"}, None),
    "coco splits": (
        coco_splits,
        "coco",
        {"annotations": "annotations/instances_train2017.json"},
        {"annotations": "annotations/instances_val2017.json"},
    ),
    "coco export": (
        coco_export,
        "coco",
        {"annotations": "train/_annotations.coco.json"},
        {"annotations": "valid/_annotations.coco.json"},
    ),
    "voc": (write_voc, "voc", {"split": "train"}, {"split": "val"}),
    "yolo": (write_yolo, "yolo_txt", *SPLITS),
    "csv": (write_csv, "csv", {"annotations": "train.csv"}, None),
    "csv split": (
        table_with_split,
        "csv",
        {"annotations": "all.csv", "split": "train"},
        {"annotations": "all.csv", "split": "validation"},
    ),
    "csv two": (
        two_tables,
        "csv",
        {"annotations": "train.csv", "images": "pics"},
        {"annotations": "valid.csv", "images": "pics"},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_boxes(tmp_path, case):
    write, name, train, validation = CASES[case]
    root = write(tmp_path)
    for task in (None, "detection"):
        found = detect_source(root, task)
        assert (found.name, found.train, found.validation) == (name, train, validation)
    assert found.source.info.class_names == NAMES
    if case not in ("voc", "csv split"):
        assert_toy(found.source)
    if validation:
        held = build_source(name, root=root, **validation)
        assert held.info.class_names == NAMES
        assert held.info.split == "validation" or name == "csv"


def test_classification(tmp_path):
    found = detect_source(folders_of_classes(tmp_path / "folders"))
    assert found.name == "image_folder" and found.source.info.num_classes == 2
    assert (found.train, found.validation) == SPLITS
    table = tmp_path / "table"
    write_images(table / "x")
    (table / "labels.csv").write_text("image,label\nx/a.png,cat\nx/b.png,dog\n")
    found = detect_source(table, "classification")
    assert (found.name, found.train) == ("csv", {"annotations": "labels.csv"})
    assert found.source.info.task == "classification"


def test_records_of_any_task(tmp_path):
    for split, name in (("train", "train"), ("validation", "val")):
        source = Digits("detection", split, num_scenes=3)
        write_records(source, tmp_path / name, progress=False)
    found = detect_source(tmp_path, "detection")
    assert found.name == "records" and len(found.source) == 3
    assert (found.train, found.validation) == ({"split": "train"}, {"split": "val"})
    one = detect_source(tmp_path / "train")
    assert (one.train, one.validation) == ({}, None)
    with pytest.raises(ValueError, match="holds detection data, not classification"):
        detect_source(tmp_path, "classification")


def test_instances(tmp_path):
    content = coco_dict()
    for item in content["annotations"]:
        item["segmentation"] = [[1, 1, 9, 1, 9, 9]]
    found = detect_source(write_coco(tmp_path, content), "instance_segmentation")
    assert found.source.info.task == "instance_segmentation"
    assert "task" not in found.train


def write_pairs(root, images, masks, values):
    """Pictures and masks of one name, whose pixels are among the values."""
    for folder in (images, masks):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for index in range(4):
        pixels = np.resize(np.array(values, np.uint8), (12, 16))
        image = encode(picture(12, 16, seed=index), "JPEG")
        (root / images / f"{index}.jpg").write_bytes(image)
        mask = encode(Image.fromarray(pixels))
        (root / masks / f"{index}.png").write_bytes(mask)


def test_masks(tmp_path):
    task = "semantic_segmentation"
    write_pairs(tmp_path / "plain", "images", "masks", [0, 255])
    found = detect_source(tmp_path / "plain")
    assert (found.name, found.validation) == ("mask_folder", None)
    assert found.train == {"classes": {"background": 0, "foreground": 255}}
    assert found.source.info.task == task

    for split in ("train", "val", "test"):
        write_pairs(tmp_path / "split", f"{split}/image", f"{split}/label", [3, 9, 255])
    found = detect_source(tmp_path / "split", task)
    common = {"images": "image", "masks": "label"}
    common["classes"] = {"class 3": 3, "class 9": 9}
    assert found.train == common | {"split": "train"}
    assert found.validation == common | {"split": "val"}

    write_pairs(tmp_path / "named", "images/train", "masks/train", [0, 1])
    (tmp_path / "named/classes.txt").write_text("sky\nsea\nland")
    found = detect_source(tmp_path / "named", task)
    assert found.train == {"split": "train"} and found.source.info.num_classes == 3

    write_pairs(tmp_path / "colors", "images", "masks", [0])
    for path in (tmp_path / "colors/masks").iterdir():
        pixels = np.resize(np.uint8([[0, 0, 0], [9, 8, 7]]), (12, 16, 3))
        path.write_bytes(encode(Image.fromarray(pixels)))
    found = detect_source(tmp_path / "colors", task)
    colors = {"color 000000": [0, 0, 0], "color 090807": [9, 8, 7]}
    assert found.train == {"classes": colors}

    voc = write_voc(tmp_path / "voc")
    write_pairs(voc, "JPEGImages", "SegmentationClass", [0, 15, 255])
    lists = voc / "ImageSets/Segmentation"
    lists.mkdir()
    (lists / "train.txt").write_text("0\n1\n")
    (lists / "val.txt").write_text("2\n")
    found = detect_source(voc, task)
    assert (found.name, len(found.source)) == ("voc", 2)
    assert (found.train, found.validation) == ({"split": "train"}, {"split": "val"})
    assert found.source.info.class_names[15] == "person"
    assert detect_source(voc).source.info.task == "detection"


def test_what_is_not_there_is_said(tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no folder"):
        detect_source(tmp_path / "none")
    with pytest.raises(ValueError, match="no format that visionkit knows") as error:
        detect_source(tmp_path)
    assert "COCO" in str(error.value) and "data.yaml" in str(error.value)
    with pytest.raises(ValueError, match=r"no task 'detecton'. Did you mean 'detectio"):
        detect_source(tmp_path, "detecton")
    write_voc(tmp_path / "voc")
    with pytest.raises(ValueError, match=r"holds voc, which is not for classification"):
        detect_source(tmp_path / "voc", "classification")
    yolo = write_yolo(tmp_path / "yolo", "train: nowhere\nnames: [a]")
    with pytest.raises((ValueError, FileNotFoundError), match="train is 'nowhere'"):
        detect_source(yolo)
    folders_of_classes(tmp_path / "folders")
    with pytest.raises(ValueError, match="no format that visionkit knows"):
        detect_source(tmp_path / "folders", "detection")


@pytest.mark.parametrize(
    ("folder", "name", "count"),
    [
        ("bccd", "voc", 205),
        ("nuts", "coco", 18),
        ("nuclei", "coco", 334),
        ("sign_digits", "image_folder", 2062),
        ("membrane", "mask_folder", 30),
    ],
)
def test_real_folders(folder, name, count):
    root = SHARED / folder
    if not root.is_dir():
        pytest.skip(f"{root} is not there")
    found = detect_source(root)
    assert (found.name, len(found.source)) == (name, count)
