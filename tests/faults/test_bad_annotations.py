"""Broken and hostile annotations: an error that names the place, or objects that are
left out and told; never a hang, a traceback of other kinds, or gigabytes."""

import ast
import contextlib
import json
import os
import re
import time
from pathlib import Path

import numpy as np
import pytest
from broken_files import (
    SIZE,
    coco,
    coco_file,
    csv,
    image_folder,
    instance_folder,
    mask_folder,
    via,
    voc,
    write_pictures,
    yolo_txt,
)
from memory import bounded_memory

import visionkit
from visionkit.data.image_header import BadImage
from visionkit.data.pipeline import Order, make_dataset
from visionkit.data.report import DataReport
from visionkit.data.sources.coco import Coco
from visionkit.data.sources.csv_file import Csv
from visionkit.data.sources.detect import detect_source
from visionkit.data.sources.image_folder import ImageFolder
from visionkit.data.sources.instance_folder import InstanceFolder
from visionkit.data.sources.mask_folder import MaskFolder
from visionkit.data.sources.record_format import (
    from_example,
    parse_example,
    to_example,
)
from visionkit.data.sources.records import Records, write_records
from visionkit.data.sources.via import Via
from visionkit.data.sources.voc import Voc
from visionkit.data.sources.yolo_txt import YoloTxt
from visionkit.types import Preprocessing

NAMES = ["a.jpg", "b.jpg", "c.jpg"]
INSTANCES = "instance_segmentation"
HUGE = 10**400
DIGITS = "9" * 5000


def coco_text(old="", new=""):
    text = json.dumps(coco_file(NAMES))
    assert not old or old in text
    return text.replace(old, new, 1)


def coco_with(**values):
    """A file of which the first annotation has other values."""
    content = coco_file(NAMES)
    content["annotations"][0] |= values
    return json.dumps(content)


def coco_sized(**values):
    content = coco_file(NAMES)
    content["images"][0] |= values
    return json.dumps(content)


def via_with(**values):
    regions = [{"shape_attributes": {"name": "rect"}, "region_attributes": {}}]
    return json.dumps({"a": {"filename": "a.jpg", "regions": regions} | values})


def xml_with(inner, start=""):
    return f"{start}<annotation><filename>0.jpg</filename>{inner}</annotation>"


def laughs(levels=9):
    """An entity of 10 ** `levels` entities."""
    lines = ['<!ENTITY l0 "ha">']
    lines += [f'<!ENTITY l{i} "{f"&l{i - 1};" * 10}">' for i in range(1, levels + 1)]
    return f"<!DOCTYPE a [{''.join(lines)}]>"


def nested_aliases(levels=10):
    lines = ["a0: &a0 [x, x]"]
    lines += [f"a{i}: &a{i} [{f'*a{i - 1}, ' * 9}]" for i in range(1, levels)]
    return "\n".join(lines)


BOX = "<bndbox>{}<ymin>2</ymin><xmax>9</xmax><ymax>9</ymax></bndbox>"
YAML = "train: train.txt\n"
SIDES = "filename,class,xmin,ymin,xmax,ymax,width,height\na.jpg,x,0,0,1,1,{},24\n"

# Fault -> (source, file, its text, what the error says).
REFUSED = {
    "JSON cut off": (
        coco,
        "coco.json",
        coco_text()[:500],
        r"column \d+, byte \d+ of 500",
    ),
    "JSON: a key twice": (
        coco,
        "coco.json",
        coco_text()[:-1] + ', "images": []}',
        r"coco.json has an object with the keys \['images'\] twice",
    ),
    "JSON: 100,000 lists": (coco, "coco.json", "[" * 100_000, "nested too deeply"),
    "JSON: 5,000 digits": (
        coco,
        "coco.json",
        coco_text("[4", "[" + DIGITS),
        "json can",
    ),
    "COCO: half a character": (
        coco,
        "coco.json",
        coco_text('"a.jpg"', r'"\ud800.jpg"'),
        r"images\[0\].file_name \(id 0\) .*no text that a file can be called",
    ),
    "COCO: a number too large": (
        coco,
        "coco.json",
        coco_with(bbox=[1, 2, HUGE, 3]),
        r"annotations\[0\].bbox \(id 0\)",
    ),
    "COCO: a box of a box": (
        coco,
        "coco.json",
        coco_with(bbox=[[1], 2, 3, 4]),
        r"annotations\[0\].bbox \(id 0\) .* four numbers",
    ),
    "COCO: no category": (
        coco,
        "coco.json",
        coco_with(category_id=[1]),
        r"annotations\[0\].category_id",
    ),
    "VIA: a number for regions": (
        via,
        "via.json",
        via_with(regions=5),
        "of the type int",
    ),
    "VIA: no name": (via, "via.json", via_with(filename=None), "filename None"),
    "VIA: a list for an image": (via, "via.json", '{"a": [1]}', "no file of VIA"),
    "XML: entities": (
        voc,
        "Annotations/0.xml",
        xml_with("&l9;", laughs()),
        "0.xml is refused: DTDForbidden",
    ),
    "XML: no number": (
        voc,
        "Annotations/0.xml",
        xml_with(f"<object><name>a</name>{BOX.format('<xmin>1,5</xmin>')}</object>"),
        r"0.xml: object\[0\]/bndbox/xmin is '1,5'",
    ),
    "XML: too large": (
        voc,
        "Annotations/0.xml",
        " " * 11_000_000,
        r"0.xml has 11,000,000 bytes. Expected a.* at most 10,485,760",
    ),
    "YOLO: no id": (
        yolo_txt,
        "labels/a.txt",
        "nan .5 .5 .1 .1",
        "'nan' is no class id",
    ),
    "YOLO: an endless id": (yolo_txt, "labels/a.txt", "inf .5 .5 .1 .1", "'inf' is no"),
    "YOLO: a large id": (
        yolo_txt,
        "labels/a.txt",
        "1e300 .5 .5 .1 .1",
        "'1e300' is no",
    ),
    "YOLO: two encodings": (yolo_txt, "data.yaml", b"names: [caf\xe9]", "is not UTF-8"),
    "YAML: ids without end": (
        yolo_txt,
        "data.yaml",
        f"{YAML}nc: 100000000",
        "most 100000",
    ),
    "YAML: a key twice": (
        yolo_txt,
        "data.yaml",
        f"{YAML}names: [a]\nnames: [b]",
        "the key 'names' stands twice",
    ),
    "YAML: deep": (yolo_txt, "data.yaml", f"{YAML}names: {'[' * 500_000}", "20 deep"),
    "YAML: aliases": (yolo_txt, "data.yaml", nested_aliases(), "has aliases"),
    "YAML: a tag of Python": (
        yolo_txt,
        "data.yaml",
        f"{YAML}names: !!python/object/apply:os.getcwd []",
        "data.yaml is no YAML: could not determine a constructor",
    ),
    "YAML: no date": (
        yolo_txt,
        "data.yaml",
        f"{YAML}names: [2001-99-99]",
        "is no YAML",
    ),
    "table: an endless side": (
        csv,
        "table.csv",
        SIDES.format("1e400"),
        "'width': '1e400'",
    ),
    "table: a side beyond": (
        csv,
        "table.csv",
        SIDES.format("1e11"),
        "no side of an image",
    ),
    "table: no side": (csv, "table.csv", SIDES.format("nan"), "'nan' is no side"),
    "classes: aliases": (mask_folder, "classes.yaml", nested_aliases(), "has aliases"),
    "classes: deep": (mask_folder, "classes.json", "[" * 100_000, "nested too deeply"),
    "classes: cut off": (
        mask_folder,
        "classes.json",
        '{"a": 1',
        "classes.json is no JSON",
    ),
    "classes: twice": (
        mask_folder,
        "classes.json",
        '{"a": 1, "a": 2}',
        r"\['a'\] twice",
    ),
    "classes: Latin-1": (
        mask_folder,
        "classes.txt",
        b"caf\xe9",
        "txt is not UTF-8: byte 3",
    ),
    "classes: no colour": (mask_folder, "labelmap.txt", "a:x,y", "'a:x,y' is no class"),
}

BUILD = {
    coco: lambda root: Coco("coco.json", "images", root),
    csv: lambda root: Csv("table.csv", "images", root),
    image_folder: ImageFolder,
    instance_folder: InstanceFolder,
    mask_folder: MaskFolder,
    via: lambda root: Via("via.json", root=root),
    voc: Voc,
    yolo_txt: YoloTxt,
}


@pytest.mark.parametrize("fault", REFUSED)
def test_a_broken_file_is_refused_with_its_place(fault, tmp_path):
    write, file, text, message = REFUSED[fault]
    write(tmp_path, NAMES)
    data = text if isinstance(text, bytes) else text.encode()
    (tmp_path / file).write_bytes(data)
    with bounded_memory(100 * 2**20):
        start = time.process_time()
        with pytest.raises(ValueError, match=message) as caught:
            BUILD[write](tmp_path)
        assert time.process_time() - start < 1
    assert file.rpartition("/")[2] in str(caught.value)


# Fault -> (task, text of coco.json or of via.json, the rules of what is left out).
LEFT_OUT = {
    "a box of 1e300": (coco_with(bbox=[1, 1, 1e300, 1]), ["box.nonfinite"]),
    "a box of 1e39": (coco_with(bbox=[1, 1, 1e39, 1]), ["box.nonfinite"]),
    "a box of Infinity": (coco_with(bbox=[1, 1, float("inf"), 1]), ["box.nonfinite"]),
    "an area of 1e300": (coco_with(area=1e300), []),
    "a size that is none": (coco_with(segmentation={"size": 5}), ["mask.rle"]),
    "no size": (coco_with(segmentation={"counts": [768]}), ["mask.rle"]),
    "long runs": (
        coco_with(segmentation={"size": [*SIZE], "counts": [2**63]}),
        ["mask.rle"],
    ),
    "a ring of 5": (coco_with(segmentation=[[1, 2, 3, 4, 5]]), ["mask.polygon"]),
    "a ring of rings": (coco_with(segmentation=[[[1, 2]] * 3]), ["mask.polygon"]),
    "a ring far away": (coco_with(segmentation=[[1, 1, 1e18, 1, 1, 1e18]]), []),
    "shapes that are none": (
        via_with(regions=[5, {"shape_attributes": [1], "region_attributes": "x"}]),
        ["mask.polygon", "mask.polygon"],
    ),
    "a circle without end": (
        via_with(regions=[{"shape_attributes": {"name": "circle", "cx": HUGE}}]),
        ["mask.polygon"],
    ),
}


@pytest.mark.parametrize("fault", LEFT_OUT)
def test_broken_objects_are_left_out_and_told(fault, tmp_path):
    text, rules = LEFT_OUT[fault]
    write_pictures(tmp_path / "images", NAMES)
    (tmp_path / "file.json").write_text(text)
    kind = Via if '"filename"' in text else Coco
    with bounded_memory(50 * 2**20):
        source = kind("file.json", "images", tmp_path, INSTANCES)
    assert [remark.rule for remark in source.remarks] == rules
    assert len(source.record(0)["boxes"]) == (kind is Coco and not rules)
    if rules:
        assert "annotations[0]" in source.remarks[0].name or kind is Via
    else:
        assert 0 < source.record(0)["area"][0] < SIZE[0] * SIZE[1]


@pytest.mark.parametrize("task", ["semantic_segmentation", INSTANCES])
def test_no_mask_is_drawn_at_a_size_that_no_image_has(task, tmp_path):
    write_pictures(tmp_path / "images", NAMES)
    (tmp_path / "coco.json").write_text(coco_sized(height=60_000, width=60_000))
    with (
        bounded_memory(20 * 2**20),
        pytest.raises(ValueError, match=r"60000 x 60000 pixels .*at most 50,000,000"),
    ):
        Coco("coco.json", "images", tmp_path, task)


def test_a_file_may_be_no_larger_than_what_can_be_held(tmp_path):
    coco(tmp_path, NAMES)
    os.truncate(tmp_path / "coco.json", 3 * 2**30)  # no byte of it is written
    with (
        bounded_memory(20 * 2**20),
        pytest.raises(
            ValueError, match=r"coco.json has 3,221,225,472 bytes. .* at most"
        ),
    ):
        Coco("coco.json", "images", tmp_path)


def test_ids_of_classes_may_have_gaps_of_any_size(tmp_path):
    yolo_txt(tmp_path, NAMES)
    (tmp_path / "labels/b.txt").write_text("2000000000 .5 .5 .2 .2\n")
    (tmp_path / "data.yaml").write_text(f"{YAML}names: {{0: a, 2000000000: b}}")
    with bounded_memory(50 * 2**20):
        source = YoloTxt(tmp_path)
    assert source.columns()["box_labels"].tolist() == [0, 1, 0]


# What may stand where a file should -> (source, file).
FILES = {
    "COCO": (coco, "coco.json"),
    "VIA": (via, "via.json"),
    "table": (csv, "table.csv"),
    "VOC": (voc, "Annotations/0.xml"),
    "VOC's list": (voc, "ImageSets/Main/train.txt"),
    "YOLO's labels": (yolo_txt, "labels/a.txt"),
    "YOLO's list": (yolo_txt, "train.txt"),
    "YOLO's YAML": (yolo_txt, "data.yaml"),
    "list of masks": (mask_folder, "train.txt"),
    "list of instances": (instance_folder, "train.txt"),
}


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir], ids=["pipe", "folder"])
@pytest.mark.parametrize("case", FILES)
def test_what_is_no_file_is_refused_and_not_waited_for(case, make, tmp_path):
    write, name = FILES[case]
    write(tmp_path, NAMES)
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    make(path)
    expected = rf"{re.escape(name)} is no regular file, but a folder, a pipe or"
    if make is os.mkdir and case in ("VOC's list", "YOLO's list"):
        expected = "holds no XML file|lists no image"  # which may be a folder
    with pytest.raises((ValueError, FileNotFoundError), match=expected):
        BUILD[write](tmp_path)
    with contextlib.suppress(ValueError, OSError):  # it may find another format
        detect_source(tmp_path)


OUTSIDE = (
    "/etc/passwd",
    "../x.jpg",
    "a/../../x.jpg",
    "C:\\x.jpg",
    "a\0.jpg",
    "out.jpg",
)


@pytest.mark.parametrize("name", OUTSIDE)
@pytest.mark.parametrize("write", [coco, csv, via, voc, yolo_txt])
def test_no_annotation_leads_out_of_the_images(write, name, tmp_path):
    """`out.jpg` is a link; the others are written as they are."""
    root = tmp_path / "set"
    root.mkdir()
    write(root, NAMES)
    (tmp_path / "x.jpg").write_bytes(b"x")
    for folder in ("images", "JPEGImages", ""):
        if (root / folder).is_dir():
            (root / folder / "out.jpg").symlink_to(tmp_path / "x.jpg")
    files = {
        coco: ("coco.json", json.dumps(coco_file([name, "b.jpg"]))),
        csv: ("table.csv", f"image,label\nb.jpg,x\n{name},y\n"),
        via: ("via.json", via_with(filename=name)),
        voc: ("Annotations/z.xml", xml_with("").replace("0.jpg", name)),
        yolo_txt: ("train.txt", f"images/b.jpg\nimages/{name}\n"),
    }
    file, text = files[write]
    if write is yolo_txt and name.startswith("/"):
        text = f"images/b.jpg\n{name}\n"  # may be absolute, if it stays inside
    (root / file).write_text(text)
    with pytest.raises(ValueError, match=re.escape(file.rpartition("/")[2])) as caught:
        BUILD[write](root)
    text = str(caught.value)
    told = ("absolute path", "NUL", "a link out of", "backslashes", "cut off")
    assert any(word in text for word in told), text  # XML with a NUL is cut off


EMPTY = {
    "COCO": (coco, "coco.json", json.dumps(coco_file([])), "no image"),
    "VIA": (via, "via.json", "{}", "is no file of VIA"),
    "table": (csv, "table.csv", "image,label\n", "at least two classes"),
    "VOC's list": (voc, "ImageSets/Main/train.txt", "", "lists no image that exists"),
    "YOLO's list": (yolo_txt, "train.txt", "", "lists no image that exists"),
    "list of masks": (mask_folder, "train.txt", "", "No image in .* has a mask"),
    "list of instances": (
        instance_folder,
        "train.txt",
        "",
        "No image in .* has a mask",
    ),
}


@pytest.mark.parametrize("case", EMPTY)
def test_a_set_without_an_image_is_an_error(case, tmp_path):
    write, file, text, message = EMPTY[case]
    write(tmp_path, NAMES)
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_text(text)
    with pytest.raises(ValueError, match=message):
        MaskFolder(tmp_path, classes=["a", "b"]) if write is mask_folder else (
            BUILD[write](tmp_path)
        )


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """The folder of records of six images in two shards."""
    root = tmp_path_factory.mktemp("records")
    source = image_folder(root / "images", [f"{i}.jpg" for i in range(6)])
    write_records(source, root / "records", shards=2, progress=False)
    return root / "records"


def copy_of(shards, tmp_path):
    for path in shards.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


@pytest.mark.parametrize("order", [None, Order(0)], ids=["scoring", "training"])
def test_records_that_do_not_fit_their_checksum_are_left_out(shards, order, tmp_path):
    """Their files are as long as they should be, and their images can be decoded."""
    root = copy_of(shards, tmp_path)
    shard = sorted(root.glob("*.tfrecord"))[1]
    data = bytearray(shard.read_bytes())
    data[-5] ^= 1  # the last byte of the last record
    data[9] ^= 1  # the checksum of the first one's length
    shard.write_bytes(data)
    source = Records(root)
    damaged = json.loads((root / "index.json").read_text())["shards"][1]["indices"]
    damaged = {damaged[0], damaged[-1]}
    report = DataReport(source, max_bad=0.5)
    batches = make_dataset(
        source, Preprocessing(SIZE), 2, order=order, report=report, with_ids=True
    )
    ids = [i for _, target in batches.take(6) for i in target["image_id"].numpy()]
    assert set(ids) == set(range(6)) - damaged
    details = [detail for _, detail in report.skipped["record.damaged"]]
    assert len(details) == 2 and all(str(shard) in detail for detail in details)
    assert {int(re.search(r"Record (\d+)", d)[1]) for d in details} == damaged
    assert report.read == report.used + 2 == 6


@pytest.mark.parametrize("order", [None, Order(0)], ids=["scoring", "training"])
def test_what_fits_its_checksum_and_is_no_example_is_left_out(shards, order, tmp_path):
    import tensorflow as tf

    root = copy_of(shards, tmp_path)
    shard = sorted(root.glob("*.tfrecord"))[0]
    data = [record.numpy() for record in tf.data.TFRecordDataset(str(shard))]
    with tf.io.TFRecordWriter(str(shard)) as writer:
        for record in [b"\xff" * len(data[0]), *data[1:]]:
            writer.write(record)
    source = Records(root)
    report = DataReport(source, max_bad=0.5)
    batches = make_dataset(
        source, Preprocessing(SIZE), 1, order=order, report=report, with_ids=True
    )
    ids = [i for _, target in batches.take(6) for i in target["image_id"].numpy()]
    broken = json.loads((root / "index.json").read_text())["shards"][0]["indices"][0]
    assert set(ids) == set(range(6)) - {broken}
    [(name, detail)] = report.skipped["record.damaged"]
    assert str(broken) in name and "no record with encoded" in detail


@pytest.mark.parametrize("missing", ["encoded", "boxes", "box_labels", "label"])
def test_a_record_without_a_feature_is_one_without_an_image(missing):
    import tensorflow as tf

    boxes, labels = np.ones((2, 4), np.float32), np.zeros(2, np.int32)
    record = {"encoded": b"x", "label": 1, "boxes": boxes, "box_labels": labels}
    keys = tuple(record)
    example = tf.train.Example.FromString(to_example(record, b"name"))
    assert parse_example(example.SerializeToString(), keys)["encoded"] == b"x"
    del example.features.feature[missing]
    serialized = example.SerializeToString()
    for broken in (serialized, serialized[:-3], b""):
        with pytest.raises(BadImage, match=r"record.damaged: no record with encoded"):
            from_example(broken, keys)
    assert parse_example(serialized, keys)["encoded"] == b""


INDICES = {
    "a shard elsewhere": (
        lambda index: index["shards"][0].update(name="../x"),
        r"'../x' is no name of a file",
    ),
    "a record twice": (
        lambda index: index["shards"][0]["indices"].__setitem__(0, 5),
        "do not hold 6 records",
    ),
    "too many": (
        lambda index: index["info"].update(num_examples=10**10),
        "do not hold 10000000000 records",
    ),
}


@pytest.mark.parametrize("fault", INDICES)
def test_an_index_that_does_not_fit_its_shards_is_refused(fault, shards, tmp_path):
    root = copy_of(shards, tmp_path)
    change, message = INDICES[fault]
    index = json.loads((root / "index.json").read_text())
    change(index)
    (root / "index.json").write_text(json.dumps(index))
    with (
        bounded_memory(20 * 2**20),
        pytest.raises(ValueError, match=rf"index.json is damaged: .*{message}"),
    ):
        Records(root)


# Calls that run code of a file, or fill a disk or the memory -> what to use.
UNSAFE = {
    "extractall": "no archive of a user is unpacked",
    "unpack_archive": "no archive of a user is unpacked",
    "safe_load": "sources.yaml_file.read_yaml, or recipe_files.parse_yaml",
    "full_load": "sources.yaml_file.read_yaml",
    "unsafe_load": "sources.yaml_file.read_yaml",
}
NO_IMPORT = {"pickle", "joblib", "dill", "shelve", "marshal", "tarfile", "xml"}
OWN_TEXT = {"training/new.py"}  # reads back what it wrote


def test_files_are_read_by_safe_readers_alone():
    package = Path(visionkit.__file__).parent
    for file in package.rglob("*.py"):
        name = str(file.relative_to(package))
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.Import | ast.ImportFrom):
                module = getattr(node, "module", None) or ""
                names = [module] if module else [alias.name for alias in node.names]
                roots = {n.partition(".")[0] for n in names}
                assert not roots & NO_IMPORT, f"{name} imports {roots & NO_IMPORT}"
            if not isinstance(node, ast.Call):
                continue
            called = getattr(node.func, "attr", "")
            owner = getattr(getattr(node.func, "value", None), "id", "")
            assert called not in UNSAFE or name in OWN_TEXT, f"{name}: {UNSAFE[called]}"
            keywords = {word.arg for word in node.keywords}
            if (owner, called) == ("np", "load"):
                assert "allow_pickle" in keywords, f"{name}: np.load may run code"
            if (owner, called) == ("yaml", "load"):
                assert "Loader" in keywords, f"{name}: yaml.load needs a strict loader"
