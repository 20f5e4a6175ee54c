"""One small set of boxes, written in every format."""

import json
from pathlib import Path

import numpy as np
from pictures import encode, picture

SHARED = Path(__file__).parents[2] / "../shared/data"

NAMES = ("cat", "dog", "emu")

# File -> (height, width), boxes xyxy in whole pixels, labels. One has no objects.
IMAGES = {
    "a.png": ((40, 80), [(4, 8, 40, 36), (40, 0, 80, 20)], [1, 0]),
    "b.png": ((64, 48), [], []),
    "c.png": (
        (50, 100),
        [(0, 10, 100, 50), (10, 5, 30, 25), (10, 5, 31, 26)],
        [2, 1, 0],
    ),
}


def write_images(folder):
    folder.mkdir(parents=True, exist_ok=True)
    for name, (size, _, _) in IMAGES.items():
        (folder / name).write_bytes(encode(picture(*size, seed=len(name))))


def coco_dict(ids=(3, 7, 90)):
    """A COCO file with gaps in its ids."""
    images, annotations = [], []
    for number, (name, (size, boxes, labels)) in enumerate(IMAGES.items()):
        image = {"id": 10 * number + 5, "file_name": name}
        images.append(image | {"height": size[0], "width": size[1]})
        for (x1, y1, x2, y2), label in zip(boxes, labels, strict=True):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image["id"],
                    "category_id": ids[label],
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": (x2 - x1) * (y2 - y1) / 2,
                    "iscrowd": 0,
                }
            )
    categories = [{"id": i, "name": n} for i, n in zip(ids, NAMES, strict=True)]
    return {
        "images": images,
        "annotations": annotations,
        "categories": categories[::-1],  # order in the file does not matter
    }


def write_coco(root, content=None):
    write_images(root / "images")
    text = json.dumps(coco_dict() if content is None else content)
    (root / "instances.json").write_text(text)
    return root


def voc_xml(name, size, boxes, names, filename=None):
    objects = "".join(
        f"<object><name>{n}</name><difficult>{int(n == 'emu')}</difficult><bndbox>"
        f"<ymin>{y1 + 1}</ymin><xmin>{x1 + 1}</xmin><ymax>{y2}</ymax><xmax>{x2}</xmax>"
        f"</bndbox><part><name>head</name></part></object>"
        for n, (x1, y1, x2, y2) in zip(names, boxes, strict=True)
    )
    return (
        f"<annotation><filename>{filename or name}</filename><path>/etc/passwd</path>"
        f"<size><width>{size[1]}</width><height>{size[0]}</height></size>{objects}"
        "</annotation>"
    )


def write_voc(root):
    write_images(root / "JPEGImages")
    (root / "Annotations").mkdir()
    for name, (size, boxes, labels) in IMAGES.items():
        text = voc_xml(name, size, boxes, [NAMES[i] for i in labels])
        (root / f"Annotations/{name[0]}.xml").write_text(text)
    lists = root / "ImageSets/Main"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("a\nb  -1\n\n")
    (lists / "val.txt").write_text("c\n")
    (lists / "cat_train.txt").write_text("a 1\n")
    return root


def yolo_lines(size, boxes, labels):
    height, width = size
    return "".join(
        f"{label} {(x1 + x2) / 2 / width} {(y1 + y2) / 2 / height} "
        f"{(x2 - x1) / width} {(y2 - y1) / height}\n"
        for (x1, y1, x2, y2), label in zip(boxes, labels, strict=True)
    )


def write_yolo(
    root, yaml="train: images/train\nval: images/val\nnames: [cat, dog, emu]\n"
):
    for split in ("train", "val"):
        write_images(root / f"images/{split}")
        (root / f"labels/{split}").mkdir(parents=True, exist_ok=True)
        for name, content in IMAGES.items():
            path = root / f"labels/{split}/{name[0]}.txt"
            path.write_text(yolo_lines(*content))
    if yaml:
        (root / "data.yaml").write_text(yaml)
    return root


def write_csv(root):
    write_images(root)
    rows = ["filename,kind,xmin,xmax,ymin,ymax"]
    for name, (_, boxes, labels) in IMAGES.items():
        for (x1, y1, x2, y2), label in zip(boxes, labels, strict=True):
            rows.append(f"{name},{NAMES[label]},{x1},{x2},{y1},{y2}")
        if not boxes:
            rows.append(f"{name},,,,,")
    (root / "train.csv").write_text("\n".join(rows))
    return root


def assert_toy(source, names=tuple(IMAGES)):
    """The source has the toy's truth for the images `names`, in their order."""
    assert source.info.class_names == NAMES and source.info.task == "detection"
    assert len(source) == len(names)
    columns = source.columns()
    for index, name in enumerate(names):
        _, boxes, labels = IMAGES[name]
        record = source.record(index)
        assert source.record_name(index).endswith(name)
        assert record["boxes"].dtype == np.float32
        assert record["box_labels"].dtype == np.int32
        np.testing.assert_allclose(
            record["boxes"], np.array(boxes, np.float32).reshape(-1, 4), atol=1e-4
        )
        np.testing.assert_array_equal(record["box_labels"], labels)
        start, stop = columns["row_splits"][index : index + 2]
        np.testing.assert_array_equal(columns["boxes"][start:stop], record["boxes"])
    for element in source.raw_dataset().as_numpy_iterator():
        record = source.record(int(element["index"]))
        assert set(record) | {"index"} == set(element)
        np.testing.assert_array_equal(element["boxes"], record["boxes"])
        np.testing.assert_array_equal(element["box_labels"], record["box_labels"])
