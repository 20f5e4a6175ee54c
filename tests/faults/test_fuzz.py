"""Every parser, fed with what no one writes: it answers, or refuses with words.

Small valid inputs are broken: values become other types and extremes, keys go, bytes
are flipped, cut and put in. Of each parser the errors it may raise are known, and what
holds of its result; nothing else may come out, in bounded time and memory.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import json
import os
import signal
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from memory import bounded_memory
from pictures import encode, picture
from toy_boxes import (
    IMAGES,
    NAMES,
    coco_dict,
    voc_xml,
    write_coco,
    write_csv,
    write_images,
    write_voc,
    write_yolo,
    yolo_lines,
)

from visionkit.data.headers import MAX_PIXELS, inspect_image
from visionkit.data.image_header import BadImage
from visionkit.data.mask_codes import MaskCode
from visionkit.data.rle import decode_rle, encode_rle
from visionkit.data.sources.coco import Coco
from visionkit.data.sources.csv_file import Csv
from visionkit.data.sources.mask_classes import read_mask_classes
from visionkit.data.sources.proposals import read_proposals
from visionkit.data.sources.records import Records, write_records
from visionkit.data.sources.via import Via
from visionkit.data.sources.voc import Voc
from visionkit.data.sources.yolo_txt import YoloTxt
from visionkit.training.checkpoint import CheckpointError, CheckpointStore
from visionkit.training.recipe import load_recipe
from visionkit.training.recipe_files import RecipeError, find_recipe

FEW, MANY = 40, 2000  # inputs for a parser, in the default suite and with `faults`
HANG = 30  # seconds that one input may take on a machine that is busy with others
MEMORY = 300 * 2**20  # bytes that a parser may take for all its inputs

NUMBERS = [
    *(0, -1, 1, 2**31, 2**63, -(2**63), 10**400, 1e-300, 1e308),
    *(float("nan"), float("inf"), -float("inf")),
]
TEXTS = ["", " ", "1", "nan", "../../x", "/etc/passwd", "a\0b", "\ud800", "x" * 5000]
OTHERS = [
    None,
    True,
    False,
    [],
    {},
    [[]],
    [None],
    [0],
    [0] * 4,
    {"": None},
    [{"a": {}}],
]
EXTREMES = st.one_of(
    st.sampled_from([*NUMBERS, *TEXTS, *OTHERS]),
    st.integers(-5, 300),
    st.floats(),
    st.text(max_size=8),
)
TOKENS = [
    *(
        b"",
        b"\0",
        b"\xff",
        b"\xef\xbb\xbf",
        b"nan",
        b"inf",
        b"1e999",
        b"-1",
        b"9" * 400,
    ),
    *(
        b"<!DOCTYPE a [<!ENTITY b 'c'>]>",
        b"&b;",
        b"&#0;",
        b"<a/>",
        b"]]>",
        b"*a",
        b"&a",
    ),
    *(
        b"!!python/object:os.system {}",
        b"{",
        b"[" * 2000,
        b"\n",
        b"\r",
        b'"',
        b"'",
        b",",
    ),
    *(b"2001-99-99", b"0o9", b"0x", b"1:99", b"? [a]: b", b"!!int x", b"!!binary x"),
    *(b";", b"\t", b":", b"- ", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\0\0"),
]


@st.composite
def broken_bytes(draw, sound: bytes):
    """`sound` with up to three pieces replaced, cut out, doubled or put in."""
    data = sound
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(data)))
        stop = min(start + draw(st.sampled_from([0, 1, 1, 4, 20, 10**6])), len(data))
        piece = draw(
            st.one_of(
                st.sampled_from(TOKENS),
                st.binary(max_size=6),
                st.just(data[start:stop]),
            )
        )
        data = data[:start] + piece * draw(st.sampled_from([1, 1, 2])) + data[stop:]
    return data


@st.composite
def broken_json(draw, sound):
    """The text of `sound` with up to three values replaced, dropped or doubled."""
    document = copy.deepcopy(sound)
    for _ in range(draw(st.integers(1, 3))):
        holders = [node for node in walk(document) if isinstance(node, dict | list)]
        node = draw(st.sampled_from([h for h in holders if len(h)] or [None]))
        if node is None:
            break
        keys = list(node) if isinstance(node, dict) else range(len(node))
        key = draw(st.sampled_from(list(keys)))
        action = draw(st.sampled_from(["replace"] * 4 + ["drop", "double"]))
        if action == "replace":
            node[key] = copy.deepcopy(draw(EXTREMES))  # it may be broken in its turn
        elif action == "drop":
            del node[key]
        elif isinstance(node, list):
            node.append(copy.deepcopy(node[key]))
    return json.dumps(document).encode("utf-8", "surrogatepass")


def walk(node):
    yield node
    children = node.values() if isinstance(node, dict) else node
    if isinstance(node, dict | list):
        for child in list(children):
            yield from walk(child)


def damage(document) -> st.SearchStrategy[bytes]:
    """Broken JSON: as a document most often, as bytes sometimes."""
    text = json.dumps(document).encode()
    structure = broken_json(document)
    return st.one_of(structure, structure, broken_bytes(text), st.binary(max_size=60))


def spoil(*sound: bytes) -> st.SearchStrategy[bytes]:
    """One of the byte strings, broken, or any bytes."""
    broken = [broken_bytes(data) for data in sound]
    return st.one_of(*broken, st.binary(max_size=60))


# ------------------------------------------------------------------------- parsers


@dataclasses.dataclass(frozen=True)
class Parser:
    """What is read, and how.

    Attributes:
        prepare: Given a folder: puts into it what the input needs beside it, and
            returns the function that reads an input and checks the result.
        inputs: The broken ones.
        errors: What may be raised.
        names: What each error must say, one of several between `|`, e.g. the file:
            so that it is no error of a library passed on.
        sound: An input that is read without any error.
    """

    prepare: Callable[[Path], Callable[[bytes], Any]]
    inputs: st.SearchStrategy[bytes]
    errors: tuple[type[Exception], ...]
    names: str
    sound: bytes


def check_source(source, *, masks: bool = False):
    """What holds of every source of boxes, whatever its files say."""
    assert len(source) == source.info.num_examples > 0
    columns = source.objects()
    boxes, labels = columns["boxes"], columns["box_labels"]
    assert boxes.shape == (len(labels), 4) and boxes.dtype == np.float32
    assert np.isfinite(boxes).all()
    assert ((labels >= 0) & (labels < source.info.num_classes)).all()
    splits = columns["row_splits"]
    assert splits[0] == 0 and splits[-1] == len(labels) and (np.diff(splits) >= 0).all()
    names = source.info.class_names
    assert len(set(names)) == len(names) and all(isinstance(n, str) for n in names)
    for index in range(len(source)):
        record = source.record(index)
        assert isinstance(record["path"], bytes)
        if masks:
            sizes = source.image_sizes()
            if sizes is None:  # the format has none
                size = inspect_image(os.fsdecode(record["path"])).upright_size
            else:
                size = tuple(sizes[index].tolist())
            for rle in record["instance_masks"]:
                decode_rle(rle, size)
    for skip in (*source.skipped, *getattr(source, "remarks", ())):
        assert skip.rule and skip.detail


def source_parser(
    write, file: str, build, sound: bytes, inputs, check=check_source, names=""
):
    """A parser of one file of a data set."""

    def prepare(folder):
        write(folder)

        def read(data):
            (folder / file).write_bytes(data)
            check(build(folder))

        return read

    errors = (ValueError, FileNotFoundError)
    return Parser(prepare, inputs, errors, names or Path(file).name, sound)


def with_polygons():
    content = coco_dict()
    first, second, *rest = content["annotations"]
    first["segmentation"] = [[4, 8, 40, 8, 40, 36, 4, 36]]
    second["segmentation"] = {"size": [40, 80], "counts": [1600, 20, 1580]}
    for annotation in rest:
        annotation["segmentation"] = {"size": [50, 100], "counts": "d0X]1"}
    return content


def coco(task: str) -> Parser:
    content = coco_dict() if task == "detection" else with_polygons()

    def check(source):
        check_source(source, masks=task == "instance_segmentation")
        listed = json.loads(
            (
                Path(source.record(0)["path"].decode()).parents[1] / "instances.json"
            ).read_bytes()
        )["images"]
        missing = [s for s in source.skipped if s.rule == "image.missing"]
        assert len(source) + len(missing) == len(listed)

    return source_parser(
        write_coco,
        "instances.json",
        lambda folder: Coco("instances.json", "images", folder, task),
        json.dumps(content).encode(),
        damage(content),
        check,
    )


def voc() -> Parser:
    size, boxes, labels = IMAGES["a.png"]
    text = voc_xml("a.png", size, boxes, [NAMES[i] for i in labels]).encode()
    return source_parser(
        write_voc, "Annotations/a.xml", lambda f: Voc(f, "all"), text, spoil(text)
    )


def yolo_labels() -> Parser:
    text = yolo_lines(*IMAGES["a.png"]).encode() + b"1 0.1 0.1 0.5 0.1 0.5 0.5\n"
    return source_parser(
        write_yolo, "labels/train/a.txt", lambda f: YoloTxt(f), text, spoil(text)
    )


def yolo_config() -> Parser:
    text = b"path: .\ntrain: images/train\nval: [images/val]\nnc: 3\n"
    texts = text + b"names: [cat, dog, emu]\n", text + b"names: {0: cat, 1: d, 2: e}\n"
    return source_parser(
        write_yolo,
        "data.yaml",
        lambda folder: YoloTxt(folder),
        texts[0],
        spoil(*texts),
        names="data.yaml|labels/train",  # of ids that have no name
    )


def csv_boxes() -> Parser:
    rows = b"filename,kind,xmin,xmax,ymin,ymax\na.png,cat,1,9,2,8\nb.png,,,,,\n"
    return source_parser(
        write_csv, "train.csv", lambda f: Csv("train.csv", root=f), rows,
        spoil(rows), check_table,
    )  # fmt: skip


def csv_labels() -> Parser:
    rows = b"image,label,split\na.png,cat,train\nb.png,dog,train\nc.png,cat,val\n"
    return source_parser(
        write_csv, "train.csv", lambda f: Csv("train.csv", root=f), rows,
        spoil(rows), check_table,
    )  # fmt: skip


def check_table(source):
    if source.info.task == "detection":
        check_source(source)
    else:
        labels = source.labels()
        assert len(labels) == len(source) > 0
        assert source.info.multi_label or labels.max() < source.info.num_classes


VIA = {
    "a.png123": {
        "filename": "a.png",
        "size": 123,
        "regions": [
            {
                "shape_attributes": {"name": "rect", "x": 3, "y": 2, "width": 12,
                                     "height": 8},
                "region_attributes": {"kind": "nut"},
            },
            {
                "shape_attributes": {"name": "polygon", "all_points_x": [2, 22, 9],
                                     "all_points_y": [4, 4, 14]},
                "region_attributes": {"kind": {"bolt": True, "nut": False}},
            },
            {
                "shape_attributes": {"name": "ellipse", "cx": 18, "cy": 28, "rx": 12,
                                     "ry": 5, "theta": 0.5},
                "region_attributes": {"kind": "nut"},
            },
        ],
    },
    "b.png45": {"filename": "b.png", "size": 45, "regions": {}},
}  # fmt: skip
VIA_3 = {
    "project": {"pid": "x"},
    "attribute": {"1": {"aname": "kind", "options": {"0": "nut", "1": "bolt"}}},
    "file": {"1": {"fid": "1", "fname": "a.png"}, "2": {"fid": "2", "fname": "b.png"}},
    "view": {"1": {"fid_list": ["1"]}, "2": {"fid_list": ["2"]}},
    "metadata": {
        "1_a": {"vid": "1", "xy": [2, 3, 4, 10, 12], "av": {"1": "0"}},
        "1_b": {"vid": "1", "xy": [7, 3, 4, 10, 12, 4, 9], "av": {"1": "1"}},
    },
}


def via(content) -> Parser:
    return source_parser(
        write_images,
        "via.json",
        lambda folder: Via("via.json", root=folder),
        json.dumps(content).encode(),
        damage(content),
        lambda source: check_source(source, masks=True),
    )


def class_file(name: str, text: bytes) -> Parser:
    def prepare(folder):
        def read(data):
            (folder / name).write_bytes(data)
            names, code = read_mask_classes(name, None, folder, lambda: {0, 1})
            assert 1 <= len(names) <= 255 and len(set(names)) == len(names)
            assert set(code.columns[1].tolist()) <= {*range(len(names)), 255}

        return read

    return Parser(prepare, spoil(text), (ValueError,), "", text)


def proposals() -> Parser:
    content = [
        {"image_id": 5, "bbox": [1, 2, 3, 4], "score": 0.5},
        {"image_id": 6, "bbox": [1, 2, 3, 4.5], "score": 0.25},
    ]

    def prepare(folder):
        def read(data):
            (folder / "p.json").write_bytes(data)
            found = read_proposals(folder / "p.json", [5, 6])
            assert np.isfinite(found["proposals"]).all()
            assert found["proposal_splits"][-1] == len(found["proposals"])

        return read

    errors = (ValueError, FileNotFoundError)
    text = json.dumps(content).encode()
    return Parser(prepare, damage(content), errors, "p.json", text)


def recipe() -> Parser:
    text = find_recipe("digits_yolo_n").read_bytes()

    def prepare(folder):
        def read(data):
            (folder / "recipe_of_mine.yaml").write_bytes(data)
            found = load_recipe(folder / "recipe_of_mine.yaml")
            assert load_recipe(found.to_dict()).to_dict() == found.to_dict()

        return read

    return Parser(prepare, spoil(text), (RecipeError,), "recipe", text)


def override() -> Parser:
    text = b"train.epochs=5"

    def prepare(_):
        return lambda data: load_recipe("digits_lenet5", [data.decode("latin-1")])

    words = [
        b"augment.0=",
        b"train=",
        b"data.train.root=",
        b"=",
        b"model.image_size=[8",
    ]
    return Parser(prepare, spoil(text, *words), (RecipeError,), "", text)


def rest() -> Parser:
    rows = {
        "signature_name": "serving_default",
        "instances": [{"a": [1, 2], "b": {"b64": "AAA="}}, {"a": [3, 4], "b": "x"}],
    }
    columns = {"inputs": {"a": [[1, 2], [3, 4]], "b": ["x", {"b64": "AAA="}]}}

    def prepare(_):
        import tensorflow as tf

        from visionkit.serving.server import json_tensors

        kinds = [
            {"a": tf.float32, "b": tf.string},
            {"a": tf.uint8, "b": tf.string},
            {"a": tf.int64},
            {"b": tf.string},
            {"a": tf.bool},
        ]

        @dataclasses.dataclass
        class Info:
            dtype: int

        def read(data):
            document = json_tensors.read_json(data)
            json_tensors.read_signature_name(document)
            for kind in kinds:
                inputs = {n: Info(t.as_datatype_enum) for n, t in kind.items()}
                with contextlib.suppress(json_tensors.ServingError):
                    _, arrays = json_tensors.read_tensors(document, inputs)
                    for name, array in arrays.items():
                        assert array.dtype == kind[name].as_numpy_dtype

        return read

    from visionkit.serving.server.errors import ServingError

    text = json.dumps(rows).encode()
    inputs = st.one_of(damage(rows), damage(columns))
    return Parser(prepare, inputs, (ServingError,), "", text)


def rle() -> Parser:
    mask = np.zeros((30, 40), bool)
    mask[4:20, 7:30] = mask[25:, 3:5] = True

    def prepare(_):
        def read(data):
            found = decode_rle(data, mask.shape)
            assert found.shape == mask.shape and found.dtype == bool
            np.testing.assert_array_equal(
                decode_rle(encode_rle(found), mask.shape), found
            )

        return read

    text = encode_rle(mask)
    return Parser(prepare, spoil(text), (ValueError,), "RLE", text)


def files_of(*formats) -> list[bytes]:
    exif = picture(24, 20).getexif()
    exif[0x0112] = 6
    return [encode(picture(24, 20), f, exif=exif) for f in formats]


def headers() -> Parser:
    def prepare(folder):
        def read(data):
            (folder / "x.img").write_bytes(data)
            header = inspect_image(data)
            assert inspect_image(folder / "x.img") == header
            assert 0 < header.height * header.width <= MAX_PIXELS
            assert 1 <= header.orientation <= 8 and 1 <= header.channels <= 4
            header.notes("x.jpg")

        return read

    files = [*files_of("JPEG", "PNG", "WEBP"), encode(picture(24, 20), "GIF")]
    files += [
        encode(picture(24, 20), "BMP"),
        encode(picture(24, 20), "WEBP", lossless=True),
    ]
    return Parser(prepare, spoil(*files), (BadImage,), "image.", files[0])


def mask_files() -> Parser:
    from PIL import Image

    ids = np.arange(24 * 20, dtype=np.uint8).reshape(24, 20) % 3
    grey, palette = Image.fromarray(ids), Image.fromarray(ids)
    palette.putpalette(list(range(9)))
    one = Image.fromarray(ids > 0)
    files = [encode(grey), encode(palette), encode(palette, bits=2), encode(one)]
    codes = [
        MaskCode.of_ids(3),
        MaskCode(((0x000102, 0), (0x030405, 1)), colors=True, others=True),
    ]

    def prepare(_):
        def read(data):
            for code in codes:
                with contextlib.suppress(BadImage):
                    found = code.decode(data)
                    assert found.ndim == 2 and found.dtype == np.uint8
                    assert set(np.unique(found)) <= {0, 1, 2, 255}

        return read

    return Parser(prepare, spoil(*files), (), "", files[0])


def records(file: str) -> Parser:
    """A shard or the index of written records, the other one sound."""

    def prepare(folder):
        write_coco(folder / "coco")
        write_records(Coco("instances.json", "images", folder / "coco"), folder / "r")
        shard = next((folder / "r").glob("*.tfrecord*"))
        path = shard if file == "shard" else folder / "r" / "index.json"
        sound = path.read_bytes()

        def read(data):
            # The input says what to break in a file that is not known before.
            path.write_bytes(break_at(sound, data))
            source = Records(folder / "r")
            for index in range(len(source)):
                record = source.record(index)
                assert record["boxes"].shape == (len(record["box_labels"]), 4)
                source.record_name(index)

        return read

    errors = (ValueError, FileNotFoundError)
    inputs = st.binary(min_size=4, max_size=12)
    return Parser(prepare, inputs, errors, "r", b"\0\0\0\0")


def break_at(sound: bytes, data: bytes) -> bytes:
    """`sound` with the rest of `data` where its first four bytes say."""
    at = int.from_bytes(data[:3]) % len(sound)
    put = data[4:]
    if data[3] % 4 == 3:
        return sound[:at] + put  # cut off
    length = len(put) if data[3] % 4 < 2 else 2 * len(put)
    return sound[:at] + put + sound[at + length :]


def keras_file() -> Parser:
    """A `.keras` archive: what is known of it before Keras sees it."""

    def prepare(folder):
        import keras

        from visionkit.tasks.archives import inspect_archive

        inputs = keras.Input((4,))
        keras.Model(inputs, keras.layers.Dense(2)(inputs)).save(folder / "a.keras")
        sound = (folder / "a.keras").read_bytes()

        def read(data):
            (folder / "a.keras").write_bytes(break_at(sound, data))
            found = inspect_archive(folder / "a.keras")
            assert found.values == 10 and not found.modules

        return read

    inputs = st.binary(min_size=4, max_size=12)
    return Parser(prepare, inputs, (ValueError,), "a.keras", b"\0\0\0\0")


def keras_config() -> Parser:
    """The config of a sound `.keras` archive, broken: the model is built, or not."""

    def prepare(folder):
        import keras

        import visionkit as vk

        x = inputs = keras.Input((8, 8, 3), name="images")
        x = keras.layers.Conv2D(4, 3, 2, "same")(x)
        backbone = keras.Model(inputs, {"P1": x}, name="tiny")
        vk.ImageClassifier(backbone, 2).save(folder / "a.keras")
        with zipfile.ZipFile(folder / "a.keras") as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        document = json.loads(members["config.json"])

        def read(data):
            text = data if data != b"{}" else members["config.json"]
            choice = np.random.default_rng(list(data[:16]))
            if data != b"{}":
                text = json.dumps(break_json(copy.deepcopy(document), choice)).encode()
            with zipfile.ZipFile(folder / "a.keras", "w") as archive:
                for name, content in (members | {"config.json": text}).items():
                    archive.writestr(name, content)
            model = vk.load(folder / "a.keras")
            assert all(np.isfinite(w).all() for w in model.get_weights())

        return read

    return Parser(prepare, st.binary(min_size=16), (ValueError,), "a.keras", b"{}")


def break_json(document, choice):
    """One value of a JSON document replaced, as a generator of numbers chooses."""
    nodes = [n for n in walk(document) if isinstance(n, dict | list) and len(n)]
    node = nodes[choice.integers(len(nodes))]
    keys = list(node) if isinstance(node, dict) else range(len(node))
    key = keys[choice.integers(len(keys))]
    values = [None, True, -1, 0, 10**9, 1e300, "", "x", [], {}, [1], {"a": 1}]
    node[key] = values[choice.integers(len(values))]
    return document


def checkpoint() -> Parser:
    def prepare(folder):
        store = CheckpointStore(folder)
        weights = {"w": np.arange(6, dtype=np.float32)}
        data = store.save(1, weights, {"epoch": 1})
        paths = [data, data.with_suffix(".json")]
        sound = [path.read_bytes() for path in paths]

        def read(data):
            for path, content in zip(paths, sound, strict=True):
                path.write_bytes(content)
            which = data[3] & 1
            paths[which].write_bytes(break_at(sound[which], data))
            np.testing.assert_array_equal(store.load().arrays["w"], weights["w"])

        return read

    inputs = st.binary(min_size=4, max_size=12)
    return Parser(prepare, inputs, (CheckpointError,), "checkpoint-", b"\0\0\0\0")


PARSERS = {
    "coco": lambda: coco("detection"),
    "coco instances": lambda: coco("instance_segmentation"),
    "voc": voc,
    "yolo labels": yolo_labels,
    "yolo config": yolo_config,
    "csv boxes": csv_boxes,
    "csv labels": csv_labels,
    "via": lambda: via(VIA),
    "via 3": lambda: via(VIA_3),
    "classes.json": lambda: class_file("c.json", b'{"names": {"a": 0, "b": 1}}'),
    "classes.yaml": lambda: class_file("c.yaml", b"classes:\n  a: 0\n  b: 7\n"),
    "labelmap.txt": lambda: class_file("labelmap.txt", b"a:0,0,0::\nb:1,2,3::\n"),
    "proposals": proposals,
    "recipe": recipe,
    "override": override,
    "rest": rest,
    "rle": rle,
    "image headers": headers,
    "mask files": mask_files,
    "records shard": lambda: records("shard"),
    "records index": lambda: records("index"),
    "keras archive": keras_file,
    "keras config": keras_config,
    "checkpoint": checkpoint,
}


@contextlib.contextmanager
def no_hang():
    """A block that takes longer than `HANG` is stopped with an error."""

    def stop(*_):
        raise TimeoutError(f"no answer in {HANG} s")

    handler = signal.signal(signal.SIGALRM, stop)
    signal.alarm(HANG)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, handler)


def fuzz(parser: Parser, folder: Path, examples: int, same: bool) -> None:
    """Give a parser as many broken inputs; `same` ones each time."""
    read = parser.prepare(folder)
    read(parser.sound)  # or everything would be refused, and nothing tested

    @settings(
        max_examples=examples,
        derandomize=same,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.generate, Phase.shrink),  # to explain is slow
        print_blob=True,
    )
    @given(parser.inputs)
    def attempt(data):
        try:
            with no_hang():
                read(data)
        except parser.errors as error:
            said = any(name in str(error) for name in parser.names.split("|"))
            assert said, f"{error!r} does not say where"

    with bounded_memory(MEMORY):
        attempt()


@pytest.mark.parametrize("name", PARSERS)
def test_broken_inputs_are_read_or_refused(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fuzz(PARSERS[name](), tmp_path, FEW, same=True)


@pytest.mark.faults
@pytest.mark.parametrize("name", PARSERS)
def test_many_broken_inputs_are_read_or_refused(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    examples = int(os.environ.get("VISIONKIT_FUZZ_EXAMPLES", MANY))
    fuzz(PARSERS[name](), tmp_path, examples, same=False)


def test_the_fuzzer_finds_what_is_planted(tmp_path):
    """A parser that passes on a library's error, and one that fails at a byte."""

    def read(data):
        if b"\xff" in data:
            raise KeyError(data)
        if len(data) < 3:
            raise ValueError("no place")

    def planted(errors, names):
        return Parser(lambda _: read, spoil(b"abcd"), errors, names, b"abcd")

    with pytest.raises(KeyError):
        fuzz(planted((ValueError,), "no"), tmp_path, 500, same=True)
    with pytest.raises(AssertionError, match="does not say where"):
        fuzz(planted((ValueError, KeyError), "file"), tmp_path, 500, same=True)
