"""YOLO's text files: data.yaml in all its forms, outlines, shares and pairs."""

import os

import numpy as np
import pytest
from pictures import encode, picture
from PIL import Image
from toy_boxes import IMAGES, NAMES, SHARED, assert_toy, write_yolo

from visionkit.data.check import check_source
from visionkit.data.rle import decode_rle
from visionkit.data.sources.yolo_txt import YoloTxt, label_path


@pytest.mark.parametrize(
    "yaml",
    [
        "train: images/train\nval: images/val\nnames: [cat, dog, emu]\n",
        "path: .\ntrain: [images/train]\nvalid: images/val\n"
        "names: {0: cat, 1: dog, 2: emu}",
        "path: /somewhere/else\ntrain: ../images/train\nval: ../images/val\n"
        "nc: 3\nnames:\n- cat\n- dog\n- emu\n",
        "train: train.txt\nval: lists/val.txt\nnames: [cat, dog, emu]\n",
    ],
)
def test_data_yaml_in_all_its_forms(tmp_path, yaml):
    write_yolo(tmp_path, yaml)
    (tmp_path / "train.txt").write_text(
        "\n".join(f"./images/train/{n}" for n in IMAGES)
    )
    (tmp_path / "lists").mkdir()
    whole = os.path.abspath(tmp_path / "images/val")
    (tmp_path / "lists/val.txt").write_text("\n".join(f"{whole}/{n}" for n in IMAGES))
    train = YoloTxt(tmp_path)
    assert_toy(train)
    assert train.info.split == "train" and not train.skipped and not train.remarks
    assert_toy(YoloTxt(tmp_path / "data.yaml", "validation"))
    assert YoloTxt(tmp_path, "val").info.split == "validation"
    assert len(YoloTxt(tmp_path, "all")) == 6
    with pytest.raises(FileNotFoundError, match=r"no test split .*Found: train, valid"):
        YoloTxt(tmp_path, "test")


def test_without_yaml_the_usual_folders(tmp_path):
    write_yolo(tmp_path, None)
    with pytest.raises(ValueError, match="does not name its classes"):
        YoloTxt(tmp_path)
    assert_toy(YoloTxt(tmp_path, classes=list(NAMES)))
    (tmp_path / "labels/classes.txt").write_text("cat\ndog\nemu\n")
    assert_toy(YoloTxt(tmp_path, "validation"))
    one = write_yolo(tmp_path / "one")
    for kind in ("images", "labels"):  # train/images, as some export
        (one / "train").mkdir(exist_ok=True)
        (one / kind / "train").rename(one / "train" / kind)
    (one / "data.yaml").write_text("train: ../train/images\nnames: [cat, dog, emu]\n")
    assert_toy(YoloTxt(one))


def test_label_path():
    assert label_path(b"x/images/train/a.b.jpg") == b"x/labels/train/a.b.txt"
    assert label_path(b"images/images/a.jpg") == b"images/labels/a.txt"
    assert label_path(b"obj_train_data/a.jpg") == b"obj_train_data/a.txt"
    assert label_path(b"my_images/a.jpg") == b"my_images/a.txt"


def test_outlines_become_boxes_or_masks(tmp_path):
    write_yolo(tmp_path)
    text = "1 0.25 0.25 0.75 0.25 0.75 0.5 0.25 0.5\n0 0.5 0.5 0.5 0.5\n"
    (tmp_path / "labels/train/a.txt").write_text(text)
    record = YoloTxt(tmp_path).record(0)
    expected = [[20, 10, 60, 20], [20, 10, 60, 30]]
    np.testing.assert_allclose(record["boxes"], expected)
    assert "instance_masks" not in record
    record = YoloTxt(tmp_path, task="instance_segmentation").record(0)
    masks = [decode_rle(mask, (40, 80)) for mask in record["instance_masks"]]
    for mask, (x1, y1, x2, y2) in zip(masks, expected, strict=True):
        box = np.zeros((40, 80), bool)
        box[y1:y2, x1:x2] = True
        np.testing.assert_array_equal(mask, box)


def test_outlines_of_several_parts(tmp_path):
    """The parts of an object stand one after another, each closed by its first point;
    what joins them has no width."""
    write_yolo(tmp_path)
    parts = [(4, 6, 30, 20), (50, 24, 70, 36)]
    shares = []
    for x1, y1, x2, y2 in parts:
        for x, y in ((x1, y1), (x2, y1), (x2, y2), (x1, y2), (x1, y1)):
            shares += [x / 80, y / 40]
    line = " ".join(map(str, [1, *shares]))
    beyond = "0 -0.01 0.5 0.5 0.5 0.5 1.01 -0.01 1.01"  # tools round
    flat = "2 0.1 0.1 0.2 0.1 0.3 0.1"
    (tmp_path / "labels/train/a.txt").write_text(f"{line}\n{beyond}\n{flat}\n")
    source = YoloTxt(tmp_path, task="instance_segmentation")
    masks = [decode_rle(rle, (40, 80)) for rle in source.record(0)["instance_masks"]]
    expected = np.zeros((40, 80), bool)
    for x1, y1, x2, y2 in parts:
        expected[y1:y2, x1:x2] = True
    np.testing.assert_array_equal(masks[0], expected)
    expected[:] = False
    expected[20:, :40] = True
    np.testing.assert_array_equal(masks[1], expected)
    assert not masks[2].any()
    rules = {finding.rule for finding in check_source(source).urgent}
    assert {"mask.empty", "box.degenerate"} <= rules


def test_shares_are_of_the_upright_image(tmp_path):
    write_yolo(tmp_path)
    exif = Image.Exif()
    exif[0x0112] = 6
    file = tmp_path / "images/train/a.png"
    file.write_bytes(encode(picture(40, 80), "JPEG", exif=exif))
    (tmp_path / "labels/train/a.txt").write_text("0 0.5 0.5 1 1\n")
    assert YoloTxt(tmp_path).record(0)["boxes"].tolist() == [[0, 0, 40, 80]]
    stored = YoloTxt(tmp_path, exif="ignore").record(0)["boxes"]
    assert stored.tolist() == [[0, 0, 80, 40]]
    file.write_bytes(b"no image")  # the pipeline reports it
    assert YoloTxt(tmp_path).record(0)["boxes"].shape == (0, 4)


def test_pairs_that_are_none_are_counted(tmp_path):
    write_yolo(tmp_path)
    (tmp_path / "labels/train/b.txt").unlink()
    (tmp_path / "labels/train/classes.txt").write_text("cat\n")
    (tmp_path / "images/train/c.png").unlink()
    (tmp_path / "images/train/d.tif").write_bytes(b"II*\0")
    source = YoloTxt(tmp_path)
    assert len(source) == 2
    assert sorted(skip.rule for skip in source.skipped) == [
        "image.format",
        "image.missing",
    ]
    ((remark),) = source.remarks
    assert remark.rule == "label.missing" and remark.name.endswith("b.png")


def test_crlf_marks_and_empty_lines(tmp_path):
    write_yolo(tmp_path)
    path = tmp_path / "labels/train/a.txt"
    path.write_bytes(
        b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n") + b"\r\n"
    )
    assert_toy(YoloTxt(tmp_path))


@pytest.mark.parametrize(
    ("line", "match"),
    [
        ("0 0.5 0.5 0.1", r"a.txt, line 2: 4 values. Expected 5"),
        ("0 0.5 0.5 0.1 0.1 0.9", r"line 2: 6 values"),
        ("0 0,5 0.5 0.1 0.1", r"line 2: '0,5 |line 2: '0 0,5"),
        ("0 320 0.5 0.1 0.1", r"line 2: value 2 is 320. Expected a share .* divide"),
        ("0.5 0.5 0.5 0.1 0.1", r"line 2: '0.5' is no class id"),
        ("-1 0.5 0.5 0.1 0.1", r"line 2: '-1' is no class id"),
        ("9 0.5 0.5 0.1 0.1", r"a.txt has the class id 9. Expected one of the 3 ids"),
        ("x 0.5 0.5 0.1 0.1", r"line 2: 'x .* is not all numbers"),
    ],
)
def test_wrong_lines_are_named(tmp_path, line, match):
    write_yolo(tmp_path)
    (tmp_path / "labels/train/a.txt").write_text(f"0 0.5 0.5 0.1 0.1\n{line}\n")
    with pytest.raises(ValueError, match=match):
        YoloTxt(tmp_path)


def test_numbers_that_are_none_are_left_out(tmp_path):
    write_yolo(tmp_path)
    (tmp_path / "labels/train/a.txt").write_text("0 nan 0.5 0.1 0.1\n1 0.5 0.5 1 1\n")
    source = YoloTxt(tmp_path)
    assert source.record(0)["box_labels"].tolist() == [1]
    assert [remark.rule for remark in source.remarks] == ["box.nonfinite"]


@pytest.mark.parametrize(
    ("yaml", "match"),
    [
        ("train: images/train\nnames: [yes, no]", r"names\[0\] is True.*need quotes"),
        ("train: images/train\nnames: [a, a]", r"\['a'\] more than once"),
        ("train: images/train\nnames: {a: 1}", "names has the id 'a'"),
        ("train: images/train\nnames: []", "Expected a list, or a dict"),
        ("train: 5\nnames: [a]", "train is 5. Expected a path"),
        ("names: [a]", "none of the keys train, val and test"),
        ("train: [images/train\nnames: [a]", "is no YAML"),
        ("x: &x [a]\ntrain: images/train\nnames: *x", "has aliases"),
        ("train: !!python/name:os.system ''\nnames: [a]", "is no YAML"),
    ],
)
def test_wrong_yaml_is_named(tmp_path, yaml, match):
    write_yolo(tmp_path, yaml)
    with pytest.raises(ValueError, match=match):
        YoloTxt(tmp_path)


def test_nothing_leads_out_of_the_folder(tmp_path):
    write_yolo(tmp_path / "set")
    write_yolo(tmp_path / "other")
    for entry in (
        "/etc",
        "../../other/images/train",
        "images/../../other/images/train",
    ):
        yaml = f"train: {entry}\nnames: [cat, dog, emu]\n"
        (tmp_path / "set/data.yaml").write_text(yaml)
        with pytest.raises(FileNotFoundError, match="no such folder or file in"):
            YoloTxt(tmp_path / "set")
    (tmp_path / "set/data.yaml").write_text("train: t.txt\nnames: [cat, dog, emu]\n")
    for line in ("../other/images/train/a.png", "/etc/passwd"):
        (tmp_path / "set/t.txt").write_text(f"images/train/a.png\n{line}\n")
        with pytest.raises(
            ValueError, match=r"t.txt, line 2: .* is an absolute path, or"
        ):
            YoloTxt(tmp_path / "set")


def test_classes_select_and_reorder(tmp_path):
    write_yolo(tmp_path)
    source = YoloTxt(tmp_path, classes=["emu", "cat"])
    assert source.info.class_names == ("emu", "cat") and len(source) == 3
    assert source.record(2)["box_labels"].tolist() == [0, 1]


@pytest.mark.parametrize(
    ("kind", "task", "files"),
    [
        ("object_detection", "detection", 126),
        ("instance_segmentation", "instance_segmentation", 100),
    ],
)
def test_coco128_equals_an_independent_parse(tmp_path, kind, task, files):
    root = (SHARED / "coco128").resolve()
    if not root.is_dir():
        pytest.skip(f"{root} is not there")
    # Where it comes from, the images are a link beside the labels.
    (tmp_path / "images").symlink_to(root / "images")
    (tmp_path / "labels").symlink_to(root / kind / "labels")
    text = (root / kind / "config.yaml").read_text()
    (tmp_path / "config.yaml").write_text(text)
    source = YoloTxt(tmp_path, task=task)
    assert len(source) == 128 and source.info.num_classes >= 80
    total = 0
    for index in range(len(source)):
        image = source.record_name(index)
        stem = os.path.splitext(os.path.basename(image))[0]
        path = root / kind / f"labels/train2017/{stem}.txt"
        lines = path.read_text().splitlines() if path.exists() else []
        with Image.open(image) as opened:
            width, height = opened.size
        expected = []
        for line in lines:
            _, *values = map(float, line.split())
            if len(values) == 4:
                x, y, w, h = values
                box = [x - w / 2, y - h / 2, x + w / 2, y + h / 2]
            else:
                xs, ys = values[::2], values[1::2]
                box = [min(xs), min(ys), max(xs), max(ys)]
            expected.append(np.array(box) * [width, height, width, height])
        boxes = source.record(index)["boxes"]
        np.testing.assert_allclose(boxes, np.reshape(expected, (-1, 4)), atol=1e-3)
        total += len(boxes)
    strays = [skip for skip in source.skipped if skip.rule == "image.missing"]
    assert len(source.remarks) == 128 - files
    if task == "detection":
        assert total == 929 and len(strays) == 2  # 12 more boxes are of no image
        assert len(source.remarks) == 2
