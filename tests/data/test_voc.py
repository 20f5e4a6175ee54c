"""VOC: pixels from 1, splits, and XML that is not trusted."""

import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from toy_boxes import IMAGES, NAMES, SHARED, assert_toy, voc_xml, write_voc

from visionkit.data.sources.voc import Voc


def test_splits_classes_and_pixels(tmp_path):
    write_voc(tmp_path)
    train = Voc(tmp_path)
    assert_toy(train, ["a.png", "b.png"])
    assert train.info.split == "train"
    for name in ("val", "validation"):
        held = Voc(tmp_path, name)
        assert_toy(held, ["c.png"])
        assert held.info.split == "validation"
    assert_toy(Voc(tmp_path, "all"))
    assert held.record(0)["is_difficult"].tolist() == [True, False, False]
    np.testing.assert_array_equal(train.image_sizes(), [[40, 80], [64, 48]])
    written = Voc(tmp_path, one_based=False).record(0)["boxes"]
    np.testing.assert_array_equal(written, train.record(0)["boxes"] + [1, 1, 0, 0])
    with pytest.raises(FileNotFoundError, match=r"no split 'test'. Found: train, val"):
        Voc(tmp_path, "test")


def test_classes_select_and_read_only_their_split(tmp_path):
    write_voc(tmp_path)
    (tmp_path / "Annotations/c.xml").write_text("broken")
    source = Voc(tmp_path, classes=["emu", "dog"])
    assert source.info.class_names == ("emu", "dog")
    assert source.record(0)["box_labels"].tolist() == [1]
    with pytest.raises(ValueError, match=r"c.xml is no XML, or cut off"):
        Voc(tmp_path)


def test_own_folders_and_folders_of_splits(tmp_path):
    write_voc(tmp_path / "own")
    (tmp_path / "own/Annotations").rename(tmp_path / "own/xml")
    (tmp_path / "own/JPEGImages").rename(tmp_path / "own/png")
    assert_toy(Voc(tmp_path / "own", "all", images="png", annotations="xml"))
    for split in ("train", "valid"):
        folder = tmp_path / "export" / split
        folder.mkdir(parents=True)
        for kind in ("png/*.png", "xml/*.xml"):
            for file in (tmp_path / "own").glob(kind):
                (folder / file.name).write_bytes(file.read_bytes())
    assert_toy(Voc(tmp_path / "export"))
    assert Voc(tmp_path / "export", "validation").info.split == "validation"


def test_what_is_missing_is_counted(tmp_path):
    write_voc(tmp_path)
    (tmp_path / "Annotations/b.xml").unlink()
    (tmp_path / "ImageSets/Main/train.txt").write_text("a\nb\nc\nd\n")
    (tmp_path / "JPEGImages/c.png").unlink()
    source = Voc(tmp_path)
    assert len(source) == 1 and source.info.class_names == NAMES
    rules = [skip.rule for skip in source.skipped]
    assert rules == ["label.missing", "image.missing", "label.missing"]
    (tmp_path / "JPEGImages/a.png").unlink()
    with pytest.raises(ValueError, match=r"lists no image that exists in .*JPEGImages"):
        Voc(tmp_path)


def test_the_filename_is_a_second_way_to_the_image(tmp_path):
    write_voc(tmp_path)
    path = tmp_path / "Annotations/a.xml"
    size, boxes, labels = IMAGES["a.png"]
    names = [NAMES[i] for i in labels]
    (tmp_path / "JPEGImages/a.png").rename(tmp_path / "JPEGImages/other.png")
    path.write_text(voc_xml("other.png", size, boxes, names))
    assert Voc(tmp_path).record(0)["path"].endswith(b"other.png")
    path.write_text(voc_xml("../../x.png", size, boxes, names))
    with pytest.raises(ValueError, match=r"a.xml: filename is '../../x.png', an absol"):
        Voc(tmp_path)


BOMB = (
    '<!DOCTYPE a [<!ENTITY x "aaaaaaaaaa"><!ENTITY y "&x;&x;&x;&x;">]>'
    "<annotation><filename>&y;</filename></annotation>"
)
EXTERNAL = (
    '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]>'
    "<annotation><filename>&x;</filename></annotation>"
)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        (BOMB, "a.xml is refused: DTDForbidden"),
        (EXTERNAL, "a.xml is refused"),
        ("no xml", "a.xml is no XML, or cut off"),
        ("<html/>", "is a <html>. Expected an <annotation>"),
        ("<annotation><object/></annotation>", r"object\[0\]/name is missing"),
        (
            "<annotation><object><name>x</name></object></annotation>",
            r"object\[0\]/bndbox/xmin is ''. Expected a number",
        ),
        (
            voc_xml("a.png", (9, 9), [(0, 0, "1,5", 3)], ["x"]),
            r"object\[0\]/bndbox/xmax is '1,5'",
        ),
    ],
)
def test_hostile_and_damaged_files_are_refused(tmp_path, text, match):
    write_voc(tmp_path)
    (tmp_path / "Annotations/a.xml").write_text(text)
    with pytest.raises(ValueError, match=match):
        Voc(tmp_path)


def test_zeros_and_numbers_that_are_none_are_remarked(tmp_path):
    write_voc(tmp_path)
    boxes = [(-1, 4, 8, 9), (2, 3, float("nan"), 9), (2.5, 3, 7, 8)]
    text = voc_xml("a.png", (40, 80), boxes, ["cat"] * 3)
    (tmp_path / "Annotations/a.xml").write_text(text)
    source = Voc(tmp_path)
    assert [r.rule for r in source.remarks] == ["box.zero_based", "box.nonfinite"]
    np.testing.assert_array_equal(source.record(0)["boxes"][1], [2.5, 3, 7, 8])


def test_bccd_equals_an_independent_parse():
    root = SHARED / "bccd"
    if not root.is_dir():
        pytest.skip(f"{root} is not there")
    sources = {split: Voc(root, split) for split in ("train", "val", "test")}
    assert [len(source) for source in sources.values()] == [205, 87, 72]
    total = 0
    for split, source in sources.items():
        names = (root / f"ImageSets/Main/{split}.txt").read_text().split()
        assert source.info.class_names == ("Platelets", "RBC", "WBC")
        for index, name in enumerate(names):
            tree = ElementTree.parse(root / f"Annotations/{name}.xml")
            expected = [
                [int(box.find(k).text) for k in ("xmin", "ymin", "xmax", "ymax")]
                for box in tree.iter("bndbox")
            ]
            found = source.record(index)["boxes"]
            np.testing.assert_array_equal(found, np.subtract(expected, [1, 1, 0, 0]))
            total += len(found)
    assert total == 4888
    counts = sum(source.class_counts() for source in sources.values())
    assert counts.tolist() == [361, 4155, 372]
