"""Tables of images: dialects, labels, splits, and no way out of the folder."""

import os

import numpy as np
import pytest
from pictures import encode, picture

from visionkit.data.pipeline import Order, make_dataset
from visionkit.data.sources import build_source
from visionkit.data.sources.csv_file import Csv
from visionkit.types import Preprocessing


@pytest.fixture
def folder(tmp_path):
    """`images/a..d.png` and `images/sub/e.png`."""
    for name in ("a", "b", "c", "d", "sub/e"):
        path = tmp_path / f"images/{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(picture(20, 30, seed=len(name))))
    return tmp_path


def write(folder, text, **options):
    path = folder / "table.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return Csv("table.csv", "images", folder, **options)


def named(source):
    """File name -> label."""
    return {
        os.fsdecode(os.path.basename(source.record(i)["path"])): source.record(i)[
            "label"
        ]
        for i in range(len(source))
    }


@pytest.mark.parametrize(
    "text",
    [
        "image,label\na.png,dog\nb.png,cat\nsub/e.png,dog\n",
        "Filename;Class\r\na.png;dog\r\nb.png;cat\r\nsub/e.png;dog\r\n",
        "\ufefflabel\tpath\ndog\ta.png\n\ncat\tb.png\ndog\tsub/e.png",
        'path,note,label\n"a.png","x, ""y""\nz",dog\nb.png,,cat\nsub/e.png,, dog \n',
        "a.png,dog\nb.png,cat\nsub/e.png,dog\n",
    ],
)
def test_dialects_mean_the_same(folder, text):
    source = write(folder, text)
    assert source.info.class_names == ("cat", "dog")
    assert not source.info.multi_label and source.skipped == []
    assert named(source) == {"a.png": 1, "b.png": 0, "e.png": 1}
    np.testing.assert_array_equal(source.labels(), [1, 0, 1])
    np.testing.assert_array_equal(source.columns()["label"], [1, 0, 1])


def test_ids_are_ordered_by_value_and_may_be_named(folder):
    text = "image,label\na.png,10\nb.png,9\nc.png,0\n"
    source = write(folder, text)
    assert source.info.class_names == ("0", "9", "10")
    assert named(source) == {"a.png": 2, "b.png": 1, "c.png": 0}
    (folder / "names.txt").write_text("sun\nmoon\nstar\n")
    text = "image,label\na.png,2\nb.png,moon\nc.png,0\n"
    source = write(folder, text, classes="names.txt")
    assert source.info.class_names == ("sun", "moon", "star")
    assert named(source) == {"a.png": 2, "b.png": 1, "c.png": 0}
    with pytest.raises(ValueError, match=r"line 2, column 'label': '3' is no known"):
        write(folder, "image,label\na.png,3\n", classes=["x", "y"])


def test_many_labels_in_a_cell_or_in_columns(folder):
    cell = write(folder, "image,label\na.png,dog|cat\nb.png,\nc.png,cat\n")
    columns = write(folder, "image,cat,dog\na.png,1,1\nb.png,0,0\nc.png,1,0\n")
    for source in (cell, columns):
        assert source.info.multi_label and source.info.class_names == ("cat", "dog")
        np.testing.assert_array_equal(source.labels(), [[1, 1], [0, 0], [1, 0]])
        assert source.record(0)["label"].dtype == np.float32
        assert source.class_counts().tolist() == [2, 1]
    one = write(folder, "image,b,a\na.png,1,0\nb.png,0,1\n", multi_label=False)
    assert one.info.class_names == ("b", "a") and one.labels().tolist() == [0, 1]
    forced = write(folder, "image,label\na.png,x\nb.png,y\n", multi_label=True)
    assert forced.labels().tolist() == [[1, 0], [0, 1]]


def test_splits_share_their_classes(folder):
    text = "image,label,split\na.png,x,train\nb.png,y,VAL\nc.png,z,training\n"
    train = write(folder, text)
    assert train.info.split == "train" and list(named(train)) == ["a.png", "c.png"]
    validation = write(folder, text, split="validation")
    assert named(validation) == {"b.png": 1}
    assert train.info.class_names == validation.info.class_names == ("x", "y", "z")
    assert len(write(folder, text, split="all")) == 3
    with pytest.raises(ValueError, match=r"no row of the split 'test'.*train, valid"):
        write(folder, text, split="test")
    with pytest.raises(ValueError, match=r"line 2, column 'split': 'fold 1' is no"):
        write(folder, text.replace("train\n", "fold 1\n", 1))
    with pytest.raises(ValueError, match="has no column `split`"):
        write(folder, "image,label\na.png,x\nb.png,y\n", split="test")
    with pytest.raises(ValueError, match="`split` must be one of train, validation"):
        write(folder, text, split="trian")


def test_missing_files_are_counted_with_their_lines(folder):
    source = write(folder, "image,label\na.png,x\ngone.png,y\nb.png,x\n")
    ((skip),) = source.skipped
    assert (skip.name, skip.rule) == (str(folder / "images/gone.png"), "image.missing")
    assert "line 3, column 'image'" in skip.detail
    assert len(source) == 2 and source.info.class_names == ("x", "y")
    with pytest.raises(ValueError, match=r"lists no image that exists.*Pass `images`"):
        write(folder, "image,label\nq.png,x\nr.png,y\n")


@pytest.mark.parametrize(
    "path", ["/etc/x.png", "../a.png", "sub/../../a.png", "C:\\a.png", "..\\a.png"]
)
def test_paths_stay_in_the_folder(folder, path):
    with pytest.raises(
        ValueError, match=r"table.csv, line 3, column 'image': .* is an"
    ):
        write(folder, f"image,label\na.png,x\n{path},y\n")


def test_links_and_nul_do_not_lead_out(folder):
    (folder / "secret.png").write_bytes(b"x")
    (folder / "images/link.png").symlink_to(folder / "secret.png")
    (folder / "images/up").symlink_to(folder)
    (folder / "images/inner.png").symlink_to(folder / "images/a.png")
    for path in ("link.png", "up/secret.png"):
        with pytest.raises(ValueError, match=r"line 2.*is a link out of the folder"):
            write(folder, f"image,label\n{path},x\na.png,y\n")
    assert len(write(folder, "image,label\ninner.png,x\na.png,y\n")) == 2
    with pytest.raises(ValueError, match=r"line 2.*is a NUL in a path"):
        write(folder, "image,label\na\0.png,x\na.png,y\n")
    # A folder of images that is itself a link is where the user said it is.
    (folder / "elsewhere").symlink_to(folder / "images")
    (folder / "table.csv").write_text("image,label\na.png,x\nb.png,y\n")
    assert len(Csv(folder / "table.csv", folder / "elsewhere")) == 2


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "is empty"),
        ("x,y,z\n1,2,3\n", r"line 1: no column of images.*Found: x, y, z"),
        ("image,label\na.png\n", r"line 2: 1 values. Expected 2: image, label"),
        ("image,label\na.png,\nb.png,x\n", r"line 2, column 'label': '' is no label"),
        ("image,label\na.png,x\n", r"at least two classes. Found: \['x'\]"),
        ("image,label\na.png,x\na.png,y\n", r"line 3.*line 2 gives the same image"),
        ("image,a,b\na.png,1,2\n", r"line 2, column 'b': '2' is no mark.*0 or 1"),
        ("image,label,label\na.png,x,y\n", r"columns of the same name: \['label'\]"),
        ("image,a\na.png,1\n", "no columns of classes"),
        ('image,label\n"a.png,x\n', "line 2: unexpected end of data"),
        ("image,label\n,x\na.png,y\n", "line 2, column 'image': '' is no path"),
    ],
)
def test_wrong_tables_are_refused_with_their_place(folder, text, match):
    with pytest.raises(ValueError, match=match):
        write(folder, text)


def test_wrong_places_are_named(folder):
    with pytest.raises(FileNotFoundError, match=r"No such table: .*none.csv"):
        Csv("none.csv", root=folder)
    (folder / "table.csv").write_text("image,label\na.png,x\n")
    with pytest.raises(FileNotFoundError, match=r"No such folder of images: .*none"):
        Csv("table.csv", "none", folder)
    with pytest.raises(ValueError, match=r"must be different names. Twice: \['x'\]"):
        Csv("table.csv", "images", folder, classes=["x", "x"])


def test_names_that_are_not_utf8_are_read(folder):
    name = b"caf\xe9.png"
    (folder / "images/a.png").rename(folder / "images" / os.fsdecode(name))
    source = write(folder, b"image,label\n" + name + b",x\nb.png,y\n")
    assert os.path.basename(source.record(0)["path"]) == name
    assert source.record_name(0).endswith("caf\udce9.png")


def test_many_labels_travel_through_the_pipeline(folder):
    rows = [f"{n}.png,{t}" for n, t in zip("abcd", ["x|y", "", "y", "z"], strict=True)]
    (folder / "table.csv").write_text("\n".join(["image,label", *rows]))
    source = build_source("csv", annotations="table.csv", images="images", root=folder)
    expected = [[1, 1, 0], [0, 0, 0], [0, 1, 0], [0, 0, 1]]
    ((_, labels),) = make_dataset(source, Preprocessing((8, 10)), 4)
    assert labels.dtype == np.float32
    np.testing.assert_array_equal(labels, expected)
    spec = make_dataset(source, Preprocessing((8, 10)), 2, order=Order(0)).element_spec
    assert spec[1].shape == (2, 3)


BOXES = {
    "corners": "filename,class,xmin,ymin,xmax,ymax\n"
    "a.png,dog,2,3,12,18\na.png,cat,0,0,30,20\nb.png,,,,,\n",
    "mixed order": "xmax;xmin;ymax;ymin;Class;Image\n"
    "12;2;18;3;dog;a.png\n30;0;20;0;cat;a.png\n;;;;;b.png\n",
    "corner and size": "image,label,x,y,w,h\n"
    "a.png,dog,2,3,10,15\na.png,cat,0,0,30,20\nb.png,,,,,\n",
    "centre and size": "image,kind,cx,cy,width,height\n"
    "a.png,dog,7,10.5,10,15\na.png,cat,15,10,30,20\nb.png,,,,,\n",
    "no header": "a.png,2,3,12,18,dog\na.png,0,0,30,20,cat\nb.png,,,,,\n",
    "sizes": "filename,width,height,class,xmin,ymin,xmax,ymax\n"
    "a.png,30,20,dog,2,3,12,18\na.png,30,20,cat,0,0,30,20\nb.png,30,20,,,,,\n",
    "shares": "image,label,x1,y1,x2,y2\n"
    f"a.png,dog,{2 / 30},{3 / 20},0.4,0.9\na.png,cat,0,0,1,1\nb.png,,,,,\n",
}


@pytest.mark.parametrize("dialect", BOXES)
def test_boxes_in_all_dialects_mean_the_same(folder, dialect):
    source = write(folder, BOXES[dialect])
    assert source.info.task == "detection"
    assert source.info.class_names == ("cat", "dog") and len(source) == 2
    record = source.record(0)
    np.testing.assert_allclose(
        record["boxes"], [[2, 3, 12, 18], [0, 0, 30, 20]], atol=1e-4
    )
    assert record["box_labels"].tolist() == [1, 0]
    assert source.record(1)["boxes"].shape == (0, 4)
    assert source.labels() is None and source.class_counts().tolist() == [1, 1]
    shares = [remark.rule for remark in source.remarks]
    assert shares == (["box.shares"] if dialect == "shares" else [])
    for element in source.raw_dataset().as_numpy_iterator():
        boxes = source.record(int(element["index"]))["boxes"]
        np.testing.assert_array_equal(element["boxes"], boxes)
    assert (source.image_sizes() is not None) == (dialect == "sizes")


def test_boxes_without_classes_and_with_one_pixel(folder):
    text = "image,x1,y1,x2,y2\na.png,0,0,1,1\n"
    shares = write(folder, text)
    assert shares.info.class_names == ("object",)
    assert shares.record(0)["boxes"].tolist() == [[0, 0, 30, 20]]
    pixels = write(folder, text, normalised=False)
    assert pixels.record(0)["boxes"].tolist() == [[0, 0, 1, 1]]


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("a.png,dog,1,2,3,x", r"line 2, column 'ymax': 'x' is no number"),
        ("a.png,dog,1,2,,4", r"line 2, column 'xmax': '' is no number"),
        (
            "a.png,,1,2,3,4\na.png,dog,1,2,3,4",
            r"line 2, column 'class': '' is no known",
        ),
        ("../a.png,dog,1,2,3,4", r"line 2, column 'image': .* is an absolute path, or"),
    ],
)
def test_wrong_boxes_are_named(folder, text, match):
    with pytest.raises(ValueError, match=match):
        write(folder, f"image,class,xmin,ymin,xmax,ymax\n{text}\n")


def test_boxes_of_missing_files_and_no_numbers_are_counted(folder):
    rows = "a.png,x,nan,1,2,3\ngone.png,x,1,2,3,4\nb.png,y,1,2,3,4\n"
    text = f"image,class,x1,y1,x2,y2\n{rows}"
    source = write(folder, text)
    assert [skip.rule for skip in source.skipped] == ["image.missing"]
    assert [remark.rule for remark in source.remarks] == ["box.nonfinite"]
    assert len(source) == 2 and source.class_counts().tolist() == [0, 1]
    with pytest.raises(
        ValueError, match=r"'w' is no known class. Expected one of y, x"
    ):
        write(folder, text.replace("b.png,y", "b.png,w"), classes=["y", "x"])
    with pytest.raises(ValueError, match="has no columns of boxes"):
        write(folder, "image,label\na.png,x\nb.png,y\n", task="detection")


def test_bccd_table_equals_its_annotations():
    from toy_boxes import SHARED

    from visionkit.data.sources.voc import Voc

    root = SHARED / "bccd"
    if not root.is_dir():
        pytest.skip(f"{root} is not there")
    table = Csv("test.csv", "JPEGImages", root)
    annotated = Voc(root, "all", one_based=False)
    assert table.info.class_names == annotated.info.class_names
    assert len(table) == 364 and len(table.objects()["boxes"]) == 4888
    ours = {table.record_name(i): table.record(i) for i in range(364)}
    for index in range(364):
        record = annotated.record(index)
        other = ours[annotated.record_name(index)]
        np.testing.assert_array_equal(record["boxes"], other["boxes"])
        np.testing.assert_array_equal(record["box_labels"], other["box_labels"])
