"""Image files that are broken, each in a way of its own, and sets that hold them."""

import io
import json
import os
import struct
import zlib

import numpy as np
from pictures import encode, picture
from PIL import Image

from visionkit.data.sources.coco import Coco
from visionkit.data.sources.csv_file import Csv
from visionkit.data.sources.image_folder import ImageFolder
from visionkit.data.sources.instance_folder import InstanceFolder
from visionkit.data.sources.mask_folder import MaskFolder
from visionkit.data.sources.via import Via
from visionkit.data.sources.voc import Voc
from visionkit.data.sources.yolo_txt import YoloTxt

SIZE = (24, 32)
BOX = (4, 6, 20, 18)  # x1, y1, x2, y2 of the one object of each image


def png_bomb(side):
    """Zeros, `side` * `side` pixels of one bit in a thousandth of the bytes."""

    def chunk(kind, data):
        crc = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + crc

    squeezer, row = zlib.compressobj(9), bytes(1 + side // 8 + 1)
    body = b"".join(squeezer.compress(row) for _ in range(side)) + squeezer.flush()
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def gif(screen, *frames):
    """A GIF of a screen and blank pictures, each (width, height)."""
    start = b"GIF89a" + struct.pack("<HHBBB", *screen, 0x80, 0, 0) + bytes(6)
    pictures = {size: _gif_picture(*size) for size in set(frames)}
    return start + b"".join(pictures[size] for size in frames) + b";"


def _gif_picture(width, height):
    """Zeros in codes of LZW, each of which stands for one more of them."""
    codes, length, left = [4], 1, width * height  # 4 clears the table
    while left > 0:
        count = min(length, left)
        codes.append(0 if count == 1 else count + 4)
        left, length = left - count, length + 1
        if length == 4000:
            codes, length = [*codes, 4], 1
    bits, place, table, wide = 0, 0, 6, 3
    for code in [*codes, 5]:  # 5 ends the picture
        bits |= code << place
        place += wide
        table = 5 if code == 4 else table + 1
        wide = 3 if code == 4 else max(wide, min(table.bit_length(), 12))
    data = bits.to_bytes(place // 8 + 1, "little")
    blocks = (data[i : i + 255] for i in range(0, len(data), 255))
    packed = b"".join(bytes([len(block)]) + block for block in blocks)
    return b"," + struct.pack("<HHHHB", 0, 0, width, height, 0) + b"\2" + packed + b"\0"


def moving(kind, **options):
    """Three pictures in one file."""
    first, *rest = (picture(*SIZE, seed=seed) for seed in range(3))
    return encode(first, kind, save_all=True, append_images=rest, **options)


def good(seed):
    return encode(picture(*SIZE, seed=seed), "JPEG")


def damaged_png():
    noise = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)
    data = bytearray(encode(Image.fromarray(noise)))
    data[-6] ^= 1  # of the checksum of its last chunk, IEND
    return bytes(data)


BROKEN = {
    "empty.jpg": (b"", "image.empty"),
    "page.jpg": (b"<html>404</html>", "image.format"),
    "scan.jpg": (b"II*\0" + bytes(60), "image.format"),
    "half.jpg": (good(0)[:300], "image.truncated"),
    "end.jpg": (good(0)[:-2], "image.truncated"),
    "short.png": (encode(picture(*SIZE))[:200], "image.truncated"),
    "last.png": (damaged_png(), "image.truncated"),
    "header.png": (b"\x89PNG\r\n\x1a\n" + bytes(60), "image.corrupt"),
    "wide.png": (png_bomb(4)[:16] + bytes(99), "image.corrupt"),
    "dot.gif": (gif((1, 1), (1, 1)), "image.too_small"),
    "line.gif": (gif((5000, 1), (5000, 1)), "image.too_small"),
    "large.gif": (gif((65500, 65500), (9, 9)), "image.too_large"),
    "lying.gif": (gif((40, 30), (4000, 3000)), "image.corrupt"),
    "cut.gif": (gif((40, 30), (40, 30))[:30], "image.truncated"),
    "moving.webp": (moving("WEBP"), "image.format"),
}
"""File -> (its bytes, the rule by which it is left out)."""

NO_FILES = {
    "folder.jpg": lambda path: path.mkdir(),
    "pipe.jpg": lambda path: os.mkfifo(path),
    "loop.jpg": lambda path: path.symlink_to(path.name),
}
"""What is only called like an image -> how it is made."""


def write_pictures(folder, names):
    """The files of `names`, of `BROKEN` and of `NO_FILES`; others are sound."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        if name in NO_FILES:
            NO_FILES[name](folder / name)
        else:
            sound = good(zlib.crc32(name.encode()) % 1000)  # no two are alike
            data = BROKEN[name][0] if name in BROKEN else sound
            (folder / name).write_bytes(data)


def image_folder(root, names):
    write_pictures(root / "a", names[::2])
    write_pictures(root / "b", names[1::2])
    return ImageFolder(root)


def csv(root, names):
    write_pictures(root / "images", names)
    rows = [f"{name},{'ab'[i % 2]}" for i, name in enumerate(names)]
    (root / "table.csv").write_text("\n".join(["image,label", *rows]))
    return Csv("table.csv", "images", root)


def coco_file(names):
    x1, y1, x2, y2 = BOX
    box, outline = [x1, y1, x2 - x1, y2 - y1], [x1, y1, x2, y1, x2, y2, x1, y2]
    size = {"height": SIZE[0], "width": SIZE[1]}
    images = [{"id": i, "file_name": name} | size for i, name in enumerate(names)]
    objects = [
        {"id": i, "image_id": i, "category_id": 1, "bbox": box}
        | {"segmentation": [outline], "iscrowd": 0, "area": 12 * 16}
        for i in range(len(names))
    ]
    categories = [{"id": 1, "name": "a"}]
    return {"images": images, "annotations": objects, "categories": categories}


def coco(root, names, task="detection"):
    write_pictures(root / "images", names)
    (root / "coco.json").write_text(json.dumps(coco_file(names)))
    return Coco("coco.json", "images", root, task)


def voc(root, names):
    write_pictures(root / "JPEGImages", names)
    (root / "Annotations").mkdir()
    corners = zip(("xmin", "ymin", "xmax", "ymax"), BOX, strict=True)
    box = "".join(f"<{corner}>{value + 1}</{corner}>" for corner, value in corners)
    for index, name in enumerate(names):
        (root / f"Annotations/{index}.xml").write_text(
            f"<annotation><filename>{name}</filename><object><name>a</name>"
            f"<bndbox>{box}</bndbox></object></annotation>"
        )
    return Voc(root)


def yolo_txt(root, names):
    write_pictures(root / "images", names)
    (root / "labels").mkdir()
    for name in names:
        label = root / "labels" / f"{os.path.splitext(name)[0]}.txt"
        label.write_text("0 0.5 0.5 0.25 0.5\n")
    (root / "train.txt").write_text("\n".join(f"images/{name}" for name in names))
    (root / "data.yaml").write_text("train: train.txt\nnames: [a]\n")
    return YoloTxt(root)


def via(root, names):
    write_pictures(root, names)
    shape = {"name": "rect", "x": 4, "y": 6, "width": 16, "height": 12}
    region = {"shape_attributes": shape, "region_attributes": {"class": "a"}}
    content = {name: {"filename": name, "regions": [region]} for name in names}
    (root / "via.json").write_text(json.dumps(content))
    return Via("via.json", root=root)


def mask_of(value):
    mask = np.zeros(SIZE, np.uint8)
    x1, y1, x2, y2 = BOX
    mask[y1:y2, x1:x2] = value
    return encode(Image.fromarray(mask))


def _beside_masks(root, names):
    write_pictures(root / "images", names)
    (root / "masks").mkdir()
    for name in names:
        stem = os.path.splitext(name)[0]
        (root / f"masks/{stem}.png").write_bytes(mask_of(1))


def mask_folder(root, names):
    _beside_masks(root, names)
    return MaskFolder(root, classes=["a", "b"])


def instance_folder(root, names):
    _beside_masks(root, names)
    return InstanceFolder(root)


SOURCES = {
    "coco": coco,
    "csv": csv,
    "image_folder": image_folder,
    "instance_folder": instance_folder,
    "mask_folder": mask_folder,
    "via": via,
    "voc": voc,
    "yolo_txt": yolo_txt,
}
"""Source of files -> a function from a folder and names of images to it."""


def turned(orientation, format="PNG"):
    """A file whose upright picture is dark but for a bright `BOX`."""
    pixels = np.full((*SIZE, 3), 20, np.uint8)
    x1, y1, x2, y2 = BOX
    pixels[y1:y2, x1:x2] = 240
    stored = {
        1: pixels,
        2: pixels[:, ::-1],
        3: pixels[::-1, ::-1],
        4: pixels[::-1],
        5: pixels.transpose(1, 0, 2),
        6: pixels.transpose(1, 0, 2)[::-1],
        7: pixels.transpose(1, 0, 2)[::-1, ::-1],
        8: pixels.transpose(1, 0, 2)[:, ::-1],
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(stored)).save(file, format, exif=exif)
    return file.getvalue()
