"""The VGG Image Annotator's JSON of three versions: shapes, classes and pairs."""

import json

import numpy as np
import pytest
from pictures import encode, picture
from PIL import Image

from visionkit.data.check import check_source
from visionkit.data.rle import decode_rle
from visionkit.data.sources.detect import detect_source
from visionkit.data.sources.via import Via

SIZE = (40, 60)


def points(*pairs):
    return {
        "all_points_x": [x for x, _ in pairs],
        "all_points_y": [y for _, y in pairs],
    }


POLYGON = {"name": "polygon", **points((2, 4), (22, 4), (22, 14), (2, 14))}
RECT = {"name": "rect", "x": 30, "y": 20, "width": 12, "height": 8}
CIRCLE = {"name": "circle", "cx": 45, "cy": 12, "r": 9}
ELLIPSE = {"name": "ellipse", "cx": 18, "cy": 28, "rx": 12, "ry": 5, "theta": 0.5}
POLYLINE = {"name": "polyline", **points((50, 25), (58, 25), (58, 38))}
POINT = {"name": "point", "cx": 3, "cy": 3}


def region(shape, **attributes):
    return {"shape_attributes": shape, "region_attributes": attributes}


def entries(*regions):
    """Exported annotations: one image with regions, one with none."""
    return {
        "a.png123": {
            "filename": "a.png",
            "size": 123,
            "regions": list(regions),
            "file_attributes": {},
        },
        "b.png45": {"filename": "b.png", "size": 45, "regions": []},
    }


def write(root, content, name="via.json"):
    root.mkdir(parents=True, exist_ok=True)
    for index, file in enumerate("ab"):
        pixels = encode(picture(*SIZE, seed=index))
        (root / f"{file}.png").write_bytes(pixels)
    (root / name).write_text(json.dumps(content))
    return root


def drawn(record):
    return [decode_rle(rle, SIZE) for rle in record["instance_masks"]]


def test_shapes_cover_their_pixels(tmp_path):
    shapes = (POLYGON, RECT, CIRCLE, ELLIPSE, POLYLINE)
    source = Via("via.json", root=write(tmp_path, entries(*map(region, shapes))))
    assert source.info.class_names == ("object",) and len(source) == 2
    record = source.record(0)
    ys, xs = np.indices(SIZE) + 0.5
    along = (xs - 18) * np.cos(0.5) + (ys - 28) * np.sin(0.5)
    across = (ys - 28) * np.cos(0.5) - (xs - 18) * np.sin(0.5)
    expected = [
        (xs > 2) & (xs < 22) & (ys > 4) & (ys < 14),
        (xs > 30) & (xs < 42) & (ys > 20) & (ys < 28),
        (xs - 45) ** 2 + (ys - 12) ** 2 < 81,
        (along / 12) ** 2 + (across / 5) ** 2 < 1,
        (xs < 58) & (ys > 25) & (ys - 25 < (xs - 50) * 13 / 8),
    ]
    for mask, true in zip(drawn(record), expected, strict=True):
        iou = (mask & true).sum() / (mask | true).sum()
        assert iou > (0.9 if true.sum() > 80 else 0.85)
    np.testing.assert_array_equal(drawn(record)[0], expected[0])
    boxes = record["boxes"]
    assert boxes[:2].tolist() == [[2, 4, 22, 14], [30, 20, 42, 28]]
    np.testing.assert_allclose(boxes[2], [36, 3, 54, 21], atol=0.1)
    half = [np.hypot(12 * np.cos(0.5), 5 * np.sin(0.5))]
    np.testing.assert_allclose(boxes[3][[0, 2]], [18 - half[0], 18 + half[0]], atol=0.1)
    assert source.record(1)["boxes"].shape == (0, 4)
    assert {f.rule for f in check_source(source).urgent} <= {"mask.tiny"}
    boxes = Via("via.json", root=tmp_path, task="detection")
    assert "instance_masks" not in boxes.record(0)
    painted = Via("via.json", root=tmp_path, task="semantic_segmentation")
    np.testing.assert_array_equal(painted.mask(0), np.any(drawn(record), axis=0))


TWO = (region(POLYGON, kind="dog"), region(RECT, kind="cat"))


def third():
    """The same as `TWO`, as version 3 writes it; and a note on the whole image."""
    flat = np.stack([POLYGON["all_points_x"], POLYGON["all_points_y"]], axis=1)
    metadata = {
        "1_x": {"vid": "1", "xy": [7, *flat.ravel().tolist()], "av": {"1": "0"}},
        "1_y": {"vid": "1", "xy": [2, 30, 20, 12, 8], "av": {"1": "1"}},
        "1_z": {"vid": "1", "xy": [], "av": {"2": "blurred"}},
    }
    return {
        "project": {"pid": "__VIA_PROJECT_ID__"},
        "attribute": {
            "1": {"aname": "kind", "type": 4, "options": {"0": "dog", "1": "cat"}},
            "2": {"aname": "note", "type": 1, "options": {}},
        },
        "file": {
            "1": {"fid": 1, "fname": "a.png", "type": 2, "loc": 1, "src": ""},
            "2": {"fid": 2, "fname": "b.png", "type": 2, "loc": 1, "src": ""},
        },
        "metadata": metadata,
        "view": {"1": {"fid_list": [1]}, "2": {"fid_list": ["2"]}},
    }


def layouts():
    plain = entries(*TWO)
    first = entries()
    first["a.png123"]["regions"] = {"0": TWO[0], "1": TWO[1]}
    options = {"kind": {"type": "radio", "options": {"dog": "", "cat": "", "emu": ""}}}
    ticked = entries(region(POLYGON, kind={"dog": True, "cat": False}), TWO[1])
    return {
        "export": (plain, ("cat", "dog")),
        "version 1": (first, ("cat", "dog")),
        "list": (list(plain.values()), ("cat", "dog")),
        "project": (
            {
                "_via_settings": {},
                "_via_img_metadata": ticked,
                "_via_attributes": {"region": options, "file": {}},
            },
            ("dog", "cat", "emu"),
        ),
        "version 3": (third(), ("dog", "cat")),
    }


@pytest.mark.parametrize("layout", layouts())
def test_layouts(tmp_path, layout):
    content, names = layouts()[layout]
    if layout == "list":  # which some tools write
        source = Via("via.json", root=write(tmp_path, {"_via_img_metadata": content}))
    else:
        found = detect_source(write(tmp_path, content))
        assert (found.name, found.train) == ("via", {"annotations": "via.json"})
        source = found.source
    assert source.info.class_names == names and len(source) == 2
    record = source.record(0)
    assert [names[i] for i in record["box_labels"]] == ["dog", "cat"]
    assert record["boxes"].tolist() == [[2, 4, 22, 14], [30, 20, 42, 28]]
    assert drawn(record)[1].sum() == 96 and not source.skipped and not source.remarks
    chosen = Via("via.json", root=tmp_path, classes=["cat", "horse"])
    assert chosen.info.class_names == ("cat", "horse")
    assert chosen.record(0)["box_labels"].tolist() == [0]


def test_splits_of_folders(tmp_path):
    for split in ("train", "val"):
        write(tmp_path / split, entries(*TWO), "via_region_data.json")
    found = detect_source(tmp_path, "instance_segmentation")
    assert found.train == {"annotations": "train/via_region_data.json"}
    assert found.validation == {"annotations": "val/via_region_data.json"}
    assert found.source.info.split == "train" and len(found.source) == 2
    names = [found.source.record_name(i) for i in range(2)]
    assert all("/train/" in name for name in names)


def test_outlines_are_on_the_upright_image(tmp_path):
    write(tmp_path, entries(region(RECT)))
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "a.png").write_bytes(encode(picture(60, 40), "JPEG", exif=exif))
    record = Via("via.json", root=tmp_path).record(0)
    assert drawn(record)[0][20:28, 30:42].all()
    stored = Via("via.json", root=tmp_path, exif="ignore").record(0)
    assert decode_rle(stored["instance_masks"][0], (60, 40))[20:28, 30:40].all()
    (tmp_path / "a.png").write_bytes(b"no image")  # the pipeline reports it
    assert Via("via.json", root=tmp_path).record(0)["boxes"].shape == (0, 4)


def test_what_cannot_be_used_is_told(tmp_path):
    broken = {"name": "polygon", "all_points_x": [1, 2, 3], "all_points_y": [1, 2]}
    content = entries(*TWO, region(RECT), region(POINT, kind="dog"))
    endless = {**ELLIPSE, "ry": float("inf")}
    content["a.png123"]["regions"] += [region(broken, kind="dog"), {}]
    content["a.png123"]["regions"] += [region(endless, kind="dog")]
    content["c.png9"] = {"filename": "c.png", "regions": []}
    source = Via("via.json", root=write(tmp_path, content))
    assert len(source) == 2 and len(source.record(0)["boxes"]) == 2
    assert [skip.rule for skip in source.skipped] == ["image.missing"]
    rules = [remark.rule for remark in source.remarks]
    wrong = ["mask.polygon", "mask.polygon", "label.no_class", "mask.polygon"]
    assert rules == ["label.no_class", *wrong]
    assert "a.png, region 2" in source.remarks[0].name
    assert {f.rule for f in check_source(source).urgent} >= set(rules)

    write(tmp_path, entries(region(RECT, colour="red", size="big")))
    with pytest.raises(ValueError, match="several attributes: colour, size"):
        Via("via.json", root=tmp_path)
    source = Via("via.json", root=tmp_path, attribute="size")
    assert source.info.class_names == ("big",)
    with pytest.raises(ValueError, match=r"'colur'. Did you mean 'colour'"):
        Via("via.json", root=tmp_path, attribute="colur")
    for content in ({}, {"x": 1}, [1], {"images": [], "annotations": []}):
        write(tmp_path, content)
        with pytest.raises(ValueError, match=r"via.json is no file of VIA"):
            Via("via.json", root=tmp_path)
    write(tmp_path, {"k": {"filename": "../a.png", "regions": []}})
    with pytest.raises(ValueError, match=r"a.png' is an absolute path, or"):
        Via("via.json", root=tmp_path)
    write(tmp_path, {"k": {"filename": "z.png", "regions": []}})
    with pytest.raises(ValueError, match="lists no image that exists"):
        Via("via.json", root=tmp_path)


def test_chosen_classes_are_compared_with_the_file(tmp_path):
    write(tmp_path, entries(*TWO))
    with pytest.raises(ValueError, match=r"'Cat'. Did you mean 'cat'"):
        Via("via.json", root=tmp_path, classes=["Cat"])
    source = Via("via.json", root=tmp_path, classes=["dog", "Cat"])
    (remark,) = source.remarks
    assert remark.rule == "label.absent" and "Did you mean 'cat'" in remark.detail
    write(tmp_path, entries())  # nothing was drawn: nothing is lost
    assert len(Via("via.json", root=tmp_path, classes=["Cat"])) == 2
