"""PNGs of instances in their usual layouts: numbers, classes, and one file each."""

import numpy as np
import pytest
from pictures import encode, picture
from PIL import Image
from toy_boxes import voc_xml, write_coco

from visionkit.data.check import check_source
from visionkit.data.rle import decode_rle
from visionkit.data.sources import build_source
from visionkit.data.sources.detect import detect_source
from visionkit.data.sources.instance_folder import InstanceFolder

SIZE = (30, 44)
TASK = "instance_segmentation"


def shapes(count):
    """(count, H, W) bool, discs in a row that do not touch."""
    ys, xs = np.indices(SIZE)
    centres = [(8 + 5 * i, 6 + 10 * i) for i in range(count)]
    return np.array([(ys - y) ** 2 + (xs - x) ** 2 < 20 for y, x in centres])


def numbered(numbers, dtype=np.uint8):
    """An image in which shape i has number i."""
    out = np.zeros(SIZE, dtype)
    for number, shape in zip(numbers, shapes(len(numbers)), strict=True):
        out[shape] = number
    return out


def write(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    path.write_bytes(encode(image))


def write_image(path, seed=0):
    write(path, picture(*SIZE, seed=seed))


def assert_shapes(record, count):
    """The record has the first `count` shapes, in any order."""
    expected = {
        (*np.nonzero(s)[1][[0, -1]], s.sum()): (tight(s), s) for s in shapes(count)
    }
    assert len(record["boxes"]) == len(record["instance_masks"]) == count
    for box, area, rle in zip(
        record["boxes"], record["area"], record["instance_masks"], strict=True
    ):
        mask = decode_rle(rle, SIZE)
        true_box, true_mask = expected.pop((*np.nonzero(mask)[1][[0, -1]], mask.sum()))
        np.testing.assert_array_equal(mask, true_mask)
        assert box.tolist() == true_box and area == mask.sum()


def tight(mask):
    ys, xs = np.nonzero(mask)
    return [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]


@pytest.mark.parametrize("kind", ["grey", "grey16", "palette", "colours", "alpha"])
def test_numbers_in_every_kind_of_png(tmp_path, kind):
    write_image(tmp_path / "images/a.png")
    ids = numbered([3, 1, 200])
    colours = np.zeros((256, 3), np.uint8)
    colours[[3, 1, 200]] = [[255, 0, 0], [0, 9, 0], [1, 0, 255]]
    alpha = np.full((*SIZE, 1), 255, np.uint8)
    pixels = {
        "grey": ids,
        "grey16": ids.astype(np.uint16) * 300,
        "palette": Image.fromarray(ids, "P"),
        "colours": colours[ids],
        "alpha": np.concatenate([colours[ids], alpha], axis=2),
    }[kind]
    if kind == "palette":
        pixels.putpalette(bytes(range(256)) * 3)
    write(tmp_path / "masks/a.png", pixels)
    source = InstanceFolder(tmp_path)
    assert source.info.class_names == ("object",) and source.info.task == TASK
    assert_shapes(source.record(0), 3)
    assert source.image_sizes().tolist() == [list(SIZE)]
    assert check_source(source).ok


def write_pedestrians(root):
    for index in range(3):
        write_image(root / f"PNGImages/{index}.png", index)
        write(root / f"PedMasks/{index}_mask.png", numbered(range(1, index + 2)))
    return root


def write_cityscapes(root):
    for split in ("train", "val"):
        name = f"{split}/bonn/bonn_000000_000019"
        write_image(root / f"leftImg8bit/{name}_leftImg8bit.png")
        ids = numbered([26000, 26001, 24], np.uint16)
        ids[-1] = 7  # road
        write(root / f"gtFine/{name}_gtFine_instanceIds.png", ids)
        write(root / f"gtFine/{name}_gtFine_labelIds.png", np.zeros(SIZE, np.uint8))
    return root


def write_nuclei(root, split=""):
    for index in range(3):
        folder = root / split / f"id{index}"
        write_image(folder / f"images/id{index}.png", index)
        for number, shape in enumerate(shapes(index + 1)):
            write(folder / f"masks/{number}.png", shape.astype(np.uint8) * 255)
    return root


def write_folders(root):
    for split in ("train", "val"):
        write_image(root / f"{split}/images/a.png")
        for number, shape in enumerate(shapes(2)):
            write(root / f"{split}/masks/a/{number}.png", shape)
    return root


def test_numbered_pedestrians_are_found(tmp_path):
    found = detect_source(write_pedestrians(tmp_path))
    assert found.name == "instance_folder" and found.validation is None
    assert found.source.info.class_names == ("pedestrian",)
    for index in range(3):
        assert_shapes(found.source.record(index), index + 1)
    boxes = detect_source(tmp_path, "detection").source
    assert boxes.info.task == "detection" and "instance_masks" not in boxes.record(0)
    task = "semantic_segmentation"
    painted = build_source(found.name, root=tmp_path, task=task, **found.train)
    assert painted.info.class_names == ("background", "pedestrian")
    np.testing.assert_array_equal(painted.mask(2), shapes(3).any(axis=0))


def test_classes_in_the_numbers(tmp_path):
    found = detect_source(write_cityscapes(tmp_path))
    assert (found.train["split"], found.validation["split"]) == ("train", "val")
    source = found.source
    names = source.info.class_names
    assert len(names) == 8 and source.info.split == "train"
    record = source.record(0)
    assert_shapes(record, 3)
    told = [names[label] for label in record["box_labels"]]
    assert dict(zip(told, record["is_crowd"].tolist(), strict=True)) == {
        "person": True,
        "car": False,
    }
    options = {"divisor": 1000, "image_suffix": "_leftImg8bit", "split": "val"}
    options |= {"images": "leftImg8bit", "masks": "gtFine"}
    options["mask_suffix"] = "_gtFine_instanceIds"
    cars = InstanceFolder(tmp_path, **options)  # classes are those with instances
    assert cars.info.class_names == ("class 26",) and len(cars.record(0)["boxes"]) == 2
    one = InstanceFolder(tmp_path, classes={"rider": 25}, **options)
    assert len(one) == 1 and one.record(0)["boxes"].shape == (0, 4)
    with pytest.raises(ValueError, match="a table only beside a `divisor`"):
        InstanceFolder(tmp_path, classes={"car": 26})
    with pytest.raises(ValueError, match="all instances are of one class"):
        InstanceFolder(tmp_path, classes=["car", "bus"])
    with pytest.raises(ValueError, match="`divisor` must be above 1"):
        InstanceFolder(tmp_path, divisor=0)


@pytest.mark.parametrize("split", ["", "stage1_train"])
def test_a_file_per_instance(tmp_path, split):
    write_nuclei(tmp_path, split)
    found = detect_source(tmp_path)
    assert (found.name, found.validation) == ("instance_folder", None)
    assert found.train == ({"split": split} if split else {})
    assert found.source.info.split == ("train" if split else "all")
    for index in range(3):
        assert_shapes(found.source.record(index), index + 1)
    with pytest.raises(FileNotFoundError, match="no split 'test'"):
        InstanceFolder(tmp_path, split="test")


def test_a_folder_of_masks_per_image(tmp_path):
    found = detect_source(write_folders(tmp_path), TASK)
    assert (found.train, found.validation) == ({"split": "train"}, {"split": "val"})
    assert_shapes(found.source.record(0), 2)
    assert len(InstanceFolder(tmp_path, split="all")) == 2


def test_pairs_are_instances_only_if_asked(tmp_path):
    for index in range(2):
        write_image(tmp_path / f"images/{index}.png", index)
        ids = numbered([1, 2]).astype(np.uint16) * (1 + 1500 * index)
        write(tmp_path / f"masks/{index}.png", ids)
    found = detect_source(tmp_path, TASK)
    assert (found.name, found.train) == ("instance_folder", {"divisor": 1000})
    write(tmp_path / "masks/1.png", numbered([1, 2]))
    write(tmp_path / "masks/0.png", numbered([1, 2]))
    assert detect_source(tmp_path, TASK).train == {}
    assert detect_source(tmp_path).name == "mask_folder"


def test_annotations_beside_pairs_are_better(tmp_path):
    write_image(tmp_path / "images/a.png")
    write(tmp_path / "masks/a.png", numbered([1, 2]))
    (tmp_path / "a.xml").write_text(voc_xml("a.png", SIZE, [(1, 2, 9, 9)], ["cat"]))
    assert detect_source(tmp_path, "detection").name == "voc"
    assert detect_source(tmp_path, TASK).name == "instance_folder"  # VOC has no masks
    write_coco(tmp_path)
    assert detect_source(tmp_path, "detection").name == "coco"
    with pytest.raises(ValueError, match=r"looks like coco, but: .* none of 5 "):
        detect_source(tmp_path, TASK)


def test_instances_may_overlap_and_masks_may_be_grey(tmp_path):
    ys, xs = np.indices(SIZE)
    masks = [ys < 20, xs < 30]
    write_image(tmp_path / "images/a.png")
    for number, mask in enumerate(masks):
        soft = np.where(mask, 250, 90).astype(np.uint8)
        write(tmp_path / f"masks/a/{number}.png", soft)
    source = InstanceFolder(tmp_path)
    found = [decode_rle(rle, SIZE) for rle in source.record(0)["instance_masks"]]
    np.testing.assert_array_equal(found, masks)
    report = check_source(source)
    (note,) = [f for f in report.findings if f.rule == "mask.overlap"]
    assert note.level == "note" and note.names[0].endswith(f": {20 * 30} pixels")


def test_what_cannot_be_used_is_told(tmp_path):
    write_nuclei(tmp_path)
    write(tmp_path / "id2/masks/3.png", np.zeros(SIZE, np.uint8))
    write(tmp_path / "id2/masks/4.png", np.ones((5, 6), np.uint8))
    (tmp_path / "id2/masks/5.png").write_bytes(b"no image")
    write_image(tmp_path / "id3/images/b.png")  # no folder of masks
    write_image(tmp_path / "id4/images/c.png", 9)
    (tmp_path / "id4/masks").mkdir()
    (tmp_path / "id5/images").mkdir(parents=True)
    source = InstanceFolder(tmp_path)
    assert [len(source.record(i)["boxes"]) for i in range(len(source))] == [1, 2, 3, 0]
    rules = [skip.rule for skip in source.skipped]
    assert sorted(rules) == ["image.missing", "mask.missing"]
    remarks = [remark.rule for remark in source.remarks]
    assert remarks == ["mask.empty", "mask.size", "mask.format"]
    assert source.image_sizes()[3].tolist() == list(SIZE)
    assert {f.rule for f in check_source(source).urgent} >= set(remarks)

    pairs = write_pedestrians(tmp_path / "pairs")
    mask = pairs / "PedMasks/1_mask.png"
    mask.write_bytes(mask.read_bytes()[:60])
    source = detect_source(pairs).source
    assert len(source) == 2 and source.skipped[0].rule.startswith("mask.")
    with pytest.raises(ValueError, match="No mask of the 1 images can be used"):
        write_image(tmp_path / "bad/images/a.png")
        write(tmp_path / "bad/masks/a.png", picture(*SIZE))
        (tmp_path / "bad/masks/a.png").write_bytes(encode(picture(*SIZE), "JPEG"))
        InstanceFolder(tmp_path / "bad")
    with pytest.raises(FileNotFoundError, match="No such folder"):
        InstanceFolder(tmp_path / "none")
    with pytest.raises(ValueError, match=r"for .*Received: task='classification'"):
        InstanceFolder(tmp_path, task="classification")


def test_masks_that_are_no_png_are_told(tmp_path):
    for name in "abc":
        write_image(tmp_path / f"images/{name}.png")
        (tmp_path / f"masks/{name}").mkdir(parents=True)
    for name in ("a/1.jpg", "a/2.tif", "b/1.bmp"):
        (tmp_path / "masks" / name).write_bytes(b"any")
    write(tmp_path / "masks/b/2.png", shapes(1)[0])
    source = InstanceFolder(tmp_path)
    assert [len(source.record(i)["boxes"]) for i in range(len(source))] == [1, 0]
    names = [source.record_name(i)[-5:] for i in range(2)]
    assert names == ["b.png", "c.png"]  # c: an empty folder
    told = [(remark.name[-7:], remark.rule) for remark in source.remarks]
    files = ["/a/1.jpg", "/a/2.tif", "/b/1.bmp"]
    assert told == [(file[1:], "mask.format") for file in files]
    (skip,) = source.skipped
    assert skip.name.endswith("a.png") and skip.rule == "mask.format"
    assert "2 files" in skip.detail


def test_numbers_of_many_instances_are_no_classes(tmp_path):
    many = np.arange(30 * 44, dtype=np.uint16).reshape(SIZE)
    write_image(tmp_path / "images/a.png")
    write(tmp_path / "masks/a.png", np.minimum(many, 1200))
    assert detect_source(tmp_path, TASK).train == {}


def test_instances_without_a_class_are_counted(tmp_path):
    ids = numbered([24001, 26000, 26001], np.uint16)
    ids[-1] = 7  # road: no instance
    write_image(tmp_path / "images/a.png")
    write(tmp_path / "masks/a.png", ids)
    assert not InstanceFolder(tmp_path, divisor=1000).remarks
    (remark,) = InstanceFolder(tmp_path, divisor=1000, classes={"man": 24}).remarks
    assert remark.rule == "label.other_class"
    assert remark.detail.startswith("2 instances") and remark.detail.endswith(": 26")


def test_lists_of_images_with_a_folder_of_masks_each(tmp_path):
    for name in ("a.b", "c", "in/d", "e", "f"):
        write_image(tmp_path / f"images/{name}.png")
        write(tmp_path / f"masks/{name}/1.png", shapes(1)[0])
    lines = "a.b\nc 1\nimages/in/d.png\nimages/e.png masks/e\nnone\n"
    (tmp_path / "train.txt").write_text(lines)
    source = InstanceFolder(tmp_path)
    names = [source.record_name(i).split("images/")[1] for i in range(len(source))]
    assert names == ["a.b.png", "c.png", "in/d.png", "e.png"]
    (skip,) = source.skipped
    assert skip.name.endswith("none") and skip.rule == "image.missing"
    assert skip.detail.startswith("listed in ")


def test_a_number_can_be_void(tmp_path):
    ids = numbered([1, 2])
    ids[-3:] = 255
    write_image(tmp_path / "images/a.png")
    pixels = Image.fromarray(ids, "P")
    pixels.putpalette(bytes(range(256)) * 3)
    write(tmp_path / "masks/a.png", pixels)
    assert_shapes(InstanceFolder(tmp_path, void=255).record(0), 2)
    assert len(InstanceFolder(tmp_path).record(0)["boxes"]) == 3
    write_folders(tmp_path / "each")
    with pytest.raises(ValueError, match="each instance has a PNG of its own"):
        InstanceFolder(tmp_path / "each", void=255)
