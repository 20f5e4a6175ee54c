"""Folders of masks in all their layouts, and what is wrong with them."""

import json
import shutil

import numpy as np
import pytest
from pictures import encode, picture
from PIL import Image
from toy_boxes import SHARED

from visionkit.data.check import check_source
from visionkit.data.pipeline import make_dataset
from visionkit.data.sources import build_source
from visionkit.data.sources.mask_folder import MaskFolder
from visionkit.data.split import split_source
from visionkit.types import VOID_CLASS, Preprocessing

SIZES = {"a": (20, 30), "b": (24, 16), "c": (20, 20)}
CLASSES = {"road": 3, "tree": 7}


def mask_of(name, values=(3, 7, 255)):
    rng = np.random.default_rng(ord(name))
    return rng.choice(np.array(values, np.uint8), SIZES[name])


def write(images, masks, names="abc", values=(3, 7, 255), suffix=".jpg", mask="{}.png"):
    for folder in (images, masks):
        folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        kind = "JPEG" if suffix == ".jpg" else "PNG"
        image = encode(picture(*SIZES[name], seed=ord(name)), kind)
        (images / f"{name}{suffix}").write_bytes(image)
        pixels = Image.fromarray(mask_of(name, values))
        (masks / mask.format(name)).write_bytes(encode(pixels))


def classes_of(name):
    lookup = np.full(256, VOID_CLASS, np.uint8)
    lookup[[3, 7]] = 0, 1
    return lookup[mask_of(name)]


def names_of(source):
    return [source.record_name(i).rpartition("/")[2][0] for i in range(len(source))]


def test_masks_are_found_by_name_and_read_by_a_table(tmp_path):
    write(tmp_path / "images", tmp_path / "masks")
    (tmp_path / "images/d.png").write_bytes(encode(picture()))
    (tmp_path / "masks/e.png").write_bytes(encode(picture()))
    source = build_source("mask_folder", root=str(tmp_path), classes=CLASSES)
    assert source.info.class_names == ("road", "tree") and len(source) == 3
    (skip,), (remark,) = source.skipped, source.remarks
    assert (skip.rule, remark.rule) == ("mask.missing", "mask.no_image")
    assert skip.name.endswith("d.png") and remark.name.endswith("e.png")
    counts = np.zeros(3, int)
    for index, name in enumerate("abc"):
        np.testing.assert_array_equal(source.mask(index), classes_of(name))
        values, number = np.unique(classes_of(name), return_counts=True)
        counts[np.where(values == VOID_CLASS, 2, values)] += number
    np.testing.assert_array_equal(source.mask_counts().sum(axis=0), counts)
    np.testing.assert_array_equal(source.class_counts(), counts[:2])
    preprocessing = Preprocessing((24, 32))
    for images, target in make_dataset(source, preprocessing, 1, with_ids=True):
        assert images.shape == (1, 24, 32, 3)
        values = np.unique(target["segmentation_masks"])
        assert set(values) <= {0, 1, VOID_CLASS}
    # At its own size the pipeline's mask is the source's, in a part of it, too.
    (held,) = (part for part in split_source(source, 0.34) if len(part) == 1)
    ((_, mask),) = make_dataset(held, Preprocessing(held.mask(0).shape), 1)
    np.testing.assert_array_equal(mask[0], held.mask(0))


def test_layouts_of_splits(tmp_path):
    inner, outer, listed = (tmp_path / n for n in ("inner", "outer", "listed"))
    for split, names in (("train", "ab"), ("val", "c")):
        write(inner / "images" / split, inner / "masks" / split, names)
        write(outer / split / "images", outer / split / "masks", names)
    write(listed / "images", listed / "masks")
    (listed / "ImageSets/Segmentation").mkdir(parents=True)
    (listed / "ImageSets/Segmentation/train.txt").write_text("b\na\n")
    (listed / "ImageSets/Segmentation/val.txt").write_text(
        "images/c.jpg masks/c.png\nnone\n"
    )
    for root in (inner, outer, listed):
        train, held, all_ = (
            MaskFolder(root, classes=CLASSES, split=split)
            for split in (None, "validation", "all")
        )
        assert sorted(names_of(train)) == ["a", "b"] and train.info.split == "train"
        assert names_of(held) == ["c"] and held.info.split == "validation"
        assert sorted(names_of(all_)) == ["a", "b", "c"]
        np.testing.assert_array_equal(held.mask(0), classes_of("c"))
        with pytest.raises(FileNotFoundError, match=r"has no split 'test'\. Found: "):
            MaskFolder(root, classes=CLASSES, split="test")
    assert names_of(MaskFolder(listed, classes=CLASSES)) == ["b", "a"]
    assert [skip.rule for skip in held.skipped] == ["image.missing"]
    (listed / "ImageSets/Segmentation/val.txt").write_text("../a.jpg ../b.png")
    with pytest.raises(ValueError, match=r"val\.txt: .*an absolute path, or one with"):
        MaskFolder(listed, classes=CLASSES, split="val")


def test_masks_beside_their_images(tmp_path):
    suffixed, typed, city = (tmp_path / n for n in ("suffixed", "typed", "city"))
    write(suffixed, suffixed, suffix=".png", mask="{}_mask.png")
    write(typed, typed)
    for name in "abc":
        write(city / "left/x", city / "fine/x", name, mask="{}_fine_ids.png")
        (city / f"left/x/{name}.jpg").rename(city / f"left/x/{name}_left.jpg")
    beside = {"images": ".", "masks": "."}
    sources = (
        MaskFolder(suffixed, **beside, classes=CLASSES, mask_suffix="_mask"),
        MaskFolder(typed, **beside, classes=CLASSES),
        MaskFolder(city, "left", "fine", CLASSES, None, None, "_left", "_fine_ids"),
    )
    for source in sources:
        assert names_of(source) == ["a", "b", "c"]
        assert source.skipped == [] and list(source.remarks) == []
        for index, name in enumerate("abc"):
            np.testing.assert_array_equal(source.mask(index), classes_of(name))


@pytest.mark.parametrize("form", ["list", "json", "yaml", "turned", "colors", "cvat"])
def test_forms_of_classes(tmp_path, form):
    values = (0, 1, 255) if form == "list" else (3, 7, 255)
    write(tmp_path / "images", tmp_path / "masks", values=values)
    classes, void = None, None
    if form == "list":
        (tmp_path / "classes.txt").write_text("road\n\ntree\n")
    elif form == "json":
        (tmp_path / "classes.json").write_text(json.dumps(CLASSES))
    elif form == "yaml":
        (tmp_path / "c.yaml").write_text("classes: {7: tree, 3: road, 255: sky}")
        classes, void = "c.yaml", "sky"
    elif form == "turned":
        classes, void = {3: "road", 7: "tree", 0: "sky", 9: "sea"}, [0, "sea", 255]
    else:
        for name in "abc":
            mask = Image.fromarray(mask_of(name)).convert("RGB")
            (tmp_path / f"masks/{name}.png").write_bytes(encode(mask))
        classes, void = {"road": [3, 3, 3], "tree": [7, 7, 7]}, [[255, 255, 255]]
        if form == "cvat":
            text = "# label:color_rgb:parts:actions\nroad:3,3,3::\ntree:7,7,7::\n"
            (tmp_path / "labelmap.txt").write_text(text + "void:255,255,255::")
            classes, void = None, "void"
    source = MaskFolder(tmp_path, classes=classes, void=void)
    assert set(source.info.class_names) == {"road", "tree"}
    road = source.info.class_names.index("road")
    expected = mask_of("a", values)
    np.testing.assert_array_equal(source.mask(0) == road, expected == values[0])
    np.testing.assert_array_equal(source.mask(0) == VOID_CLASS, expected == 255)


def test_binary_masks_need_no_classes(tmp_path):
    write(tmp_path / "images", tmp_path / "masks", values=(0, 255))
    for classes in (None, ["membrane", "cell"], {"membrane": 0, "cell": 255}):
        source = MaskFolder(tmp_path, classes=classes)
        np.testing.assert_array_equal(source.mask(1), mask_of("b", (0, 255)) == 255)
    assert MaskFolder(tmp_path).info.class_names == ("background", "foreground")
    void = MaskFolder(tmp_path, classes=["membrane", "cell"], void=255)
    np.testing.assert_array_equal(void.mask(1), mask_of("b", (0, 255)))
    shifted = MaskFolder(tmp_path, classes=["one"], void=[0])
    assert shifted.mask_code.table == ((0, VOID_CLASS), (1, 0))


def test_what_stands_for_the_foreground_may_be_rare(tmp_path):
    """A hundred masks, one of which has any."""
    images, masks = tmp_path / "images", tmp_path / "masks"
    write(images, masks, "ab", values=(0, 0))
    for i in range(98):
        shutil.copy(images / "a.jpg", images / f"a{i}.jpg")
        shutil.copy(masks / "a.png", masks / f"a{i}.png")
    write(images, masks, "b", values=(0, 255))
    source = MaskFolder(tmp_path, classes=["background", "defect"])
    assert source.mask_code.table == ((0, 0), (255, 1))


def test_wrong_classes_are_refused(tmp_path):
    write(tmp_path / "images", tmp_path / "masks")
    with pytest.raises(
        ValueError, match=r"classes of the masks .* not known.*3, 7, 255"
    ):
        MaskFolder(tmp_path)
    for classes, void, message in (
        ({"a": 3, "b": 3}, None, "'a' and 'b' have the same value 3"),
        ({"a": 300}, None, r"'a' must be a whole number in 0..255.*300"),
        ({"a": [1, 2, 3], "b": 4}, None, r"'b' must be \[red, green, blue\]"),
        (["a", "a"], None, "Twice"),
        (["road"], "rod", "There is no class for `void` 'rod'"),
        ({"a": 3}, 3, "1 to 255 classes that are not void. Received: 0"),
    ):
        with pytest.raises(ValueError, match=message):
            MaskFolder(tmp_path, classes=classes, void=void)
    with pytest.raises(FileNotFoundError, match="No such file of classes"):
        MaskFolder(tmp_path, classes="none.txt")
    with pytest.raises(
        FileNotFoundError, match=r"No such folder of masks.*see `masks`"
    ):
        MaskFolder(tmp_path, masks="none", classes=CLASSES)
    (tmp_path / "others").mkdir()
    with pytest.raises(ValueError, match=r"No image in .* has a mask"):
        MaskFolder(tmp_path, masks="others", classes=CLASSES)


def test_the_doctor_finds_what_was_planted(tmp_path):
    write(tmp_path / "images", tmp_path / "masks")
    source = MaskFolder(tmp_path, classes=CLASSES)
    report = check_source(source)
    assert report.ok and not report.urgent
    assert report.counts["classes"]["road"] == source.class_counts()[0]
    assert report.counts["masks_read"] == 3

    (tmp_path / "masks/a.png").write_bytes(encode(Image.fromarray(mask_of("b"))))
    odd = mask_of("b")
    odd[0, :4] = 9
    (tmp_path / "masks/b.png").write_bytes(encode(Image.fromarray(odd)))
    void = np.full(SIZES["c"], 255, np.uint8)
    (tmp_path / "masks/c.png").write_bytes(encode(Image.fromarray(void)))
    (tmp_path / "masks/z.png").write_bytes(encode(Image.fromarray(void)))
    found = check_source(MaskFolder(tmp_path, classes=CLASSES))
    by_rule = {finding.rule: finding for finding in found.urgent}
    rules = ["class.empty", "mask.no_image", "mask.size", "mask.value", "mask.void"]
    assert sorted(by_rule) == rules
    assert "the mask is 16x24, its image 30x20" in by_rule["mask.size"].names[0]
    assert "masks/b.png: 4 pixels" in by_rule["mask.value"].names[0]
    assert "9 (4 pixels)" in by_rule["mask.value"].names[0]
    assert not found.ok and by_rule["mask.void"].level == "warning"


def test_membrane():
    root = SHARED / "membrane"
    if not root.is_dir():
        pytest.skip(f"{root} is not there")
    source = MaskFolder(root, "image", "label", ["membrane", "cell"], split="train")
    assert len(source) == 30 and source.mask(0).shape == (512, 512)
    share = source.class_counts() / source.class_counts().sum()
    assert share[1] == pytest.approx(0.78, abs=0.01)


def test_coco128():
    root = SHARED / "coco128"
    if not root.is_dir():
        pytest.skip(f"{root} is not there")
    source = MaskFolder(
        root,
        "images/train2017",
        "semantic_segmentation/masks/train2017",
        "semantic_segmentation/config.yaml",
        "unlabeled",
    )
    assert len(source) == 100 and len(source.skipped) == 28
    assert source.info.num_classes == 129
    assert source.info.class_names[0] == "person"
    assert source.info.class_names[-1] == "rug-merged"
    with Image.open(source.record(0)["mask_path"].decode()) as image:
        values = np.asarray(image)
    np.testing.assert_array_equal(source.mask(0) == VOID_CLASS, values == 0)
    np.testing.assert_array_equal(source.mask(0) == 128, values == 200)
