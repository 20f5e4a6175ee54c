"""YOLO's text files: one file of labels beside each image."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from visionkit.data.fingerprints import parallel_map
from visionkit.data.headers import inspect_image
from visionkit.data.image_header import BadImage
from visionkit.data.sources.base import Skip, SourceInfo
from visionkit.data.sources.classes import choose_classes, read_classes
from visionkit.data.sources.coco_json import lookup
from visionkit.data.sources.files import read_text
from visionkit.data.sources.listing import list_images
from visionkit.data.sources.objects import (
    ObjectSource,
    check_box_task,
    keep_finite,
    raise_no_images,
)
from visionkit.data.sources.paths import ImagePaths, PathError
from visionkit.data.sources.splits import SPLITS, check_split
from visionkit.data.sources.yolo_config import YoloConfig, find_config
from visionkit.data.sources.yolo_labels import Labels, parse_labels
from visionkit.types import TASKS

_NO_LABELS = Labels(np.zeros(0, np.int64), np.zeros((0, 4)), [])


class YoloTxt(ObjectSource):
    """Images with a text file of labels each, as YOLO trainers read them.

        root/data.yaml                   train: images/train
        root/images/train/1.jpg          val: images/val
        root/labels/train/1.txt          names: [cat, dog]

    An entry of `data.yaml` is a folder, a text file with a path on each line, or a list
    of them. The labels of `.../images/x.jpg` are in `.../labels/x.txt`, or beside the
    image where no folder is called `images`. An image without a file of labels counts
    as one without objects, and is remarked. Outlines (segmentation labels) become
    boxes, for instances masks.

    Args:
        root: The folder, or its YAML file; default the working directory. Nothing is
            read outside of it but what a link in it leads to.
        split: "train", "validation" or "test"; default "train" where there is one, or
            else "all".
        data: The YAML file, beginning at `root`; default the one that is there, or the
            usual folders and a `classes.txt`.
        task: "detection", "instance_segmentation", or "semantic_segmentation": objects
            are painted as their classes by falling area, over label 0, "background".
        classes: Names of the classes to use, in label order, or a text file with one on
            each line; without names in the data, the names of ids 0, 1, 2...
        exif: "apply" takes shares of the upright image, "ignore" of the stored one,
            as `data.exif` does.
        proposals: JSON list of proposals, beginning at `root`; their `image_id` is the
            name of the image without suffix. See `read_proposals`.

    Raises:
        FileNotFoundError: No such folder, file or split.
        ValueError: Naming file, line and value; or no image is there.
    """

    box_format = "cxcywh"

    def __init__(
        self,
        root: str | os.PathLike | None = None,
        split: str | None = None,
        data: str | os.PathLike | None = None,
        task: str = "detection",
        classes: list[str] | str | os.PathLike | None = None,
        exif: str = "apply",
        proposals: str | os.PathLike | None = None,
    ):
        check_box_task("yolo_txt", task, TASKS[1:])
        base = Path(root or "")
        if base.suffix in (".yaml", ".yml") and base.is_file():
            base, data = base.parent, base.name
        config = find_config(base, data)
        self.skipped: list[Skip] = []
        self.remarks: list[Skip] = []
        entries, split = _choose_split(config, split)
        paths = self._images(entries, base)
        if not paths:
            raise_no_images(str(config.path), str(base), self.skipped)
        ids, names = _classes(config, read_classes(classes, base))
        read = parallel_map(_reader(exif), paths)
        labels, sizes = [r[0] for r in read], np.array([r[1] for r in read], np.int32)
        self._remark_pairs(paths, [r[2] for r in read])
        info = SourceInfo(task, names, len(paths), split, "yolo_txt")
        objects = self._objects(paths, labels, sizes, ids, task)
        if task == "semantic_segmentation":
            self._fill_regions(info, paths, *objects, sizes, background=True)
        else:
            self._fill(info, paths, *objects)
        if proposals is not None:
            stems = [os.path.splitext(os.path.basename(path))[0] for path in paths]
            self._take_proposals(base / proposals, map(os.fsdecode, stems))

    def _images(self, entries: list[Path], base: Path) -> list[bytes]:
        paths: list[bytes] = []
        for entry in entries:
            if entry.is_dir():
                paths += list_images(os.fsencode(entry), self.skipped)
            else:
                paths += self._listed(entry, base)
        return list(dict.fromkeys(paths))

    def _listed(self, entry: Path, base: Path) -> list[bytes]:
        """The images that a list file names, from `base` or from the file's folder."""
        tops = [ImagePaths(top) for top in dict.fromkeys((base, entry.parent))]
        text = read_text(entry, errors="surrogateescape")
        paths = []
        for number, line in enumerate(text.splitlines(), 1):
            name = line.strip()
            if not name:
                continue
            if os.path.isabs(name):  # lists are often written with the whole path
                name = os.path.relpath(name, os.path.abspath(base))
            try:
                found = [top.find(name) for top in tops]
            except PathError as error:
                raise ValueError(
                    f"{entry}, line {number}: {line.strip()!r} is {error}"
                ) from None
            path = next((path for path in found if path is not None), None)
            if path is not None:
                paths.append(path)
            else:
                self.skipped.append(tops[0].skip(name, f"{entry}, line {number}"))
        return paths

    def _objects(self, paths, labels: list[Labels], sizes, ids: dict[int, int], task):
        """(image of each object, the object columns)."""
        owners = np.repeat(np.arange(len(paths)), [len(found.ids) for found in labels])
        raw = np.concatenate([found.ids for found in labels])
        shares = np.concatenate([found.boxes for found in labels])
        unknown = np.unique(raw[~np.isin(raw, list(ids))]).tolist()
        if unknown:
            place = owners[np.isin(raw, unknown)][0]
            raise ValueError(
                f"{os.fsdecode(label_path(paths[place]))} has the class id "
                f"{raw[np.isin(raw, unknown)][0]}. Expected one of the {len(ids)} ids "
                f"that have a name; all that have none: {unknown}."
            )
        label = lookup(raw.tolist(), ids).astype(np.int32)
        scale = sizes[owners][:, ::-1].astype(np.float64)
        with np.errstate(invalid="ignore"):  # what is infinite is remarked below
            centre, half = shares[:, :2] * scale, shares[:, 2:] * scale / 2
            boxes = np.concatenate([centre - half, centre + half], axis=1)
        keep = keep_finite(
            boxes,
            lambda i: os.fsdecode(label_path(paths[owners[i]])),
            self.remarks,
            label >= 0,
        )
        columns = {"boxes": boxes.astype(np.float32), "box_labels": label}
        if task != "detection":
            columns["instance_masks"] = _masks(labels, boxes, sizes[owners], keep)
        return owners[keep], {key: value[keep] for key, value in columns.items()}

    def _remark_pairs(self, paths: list[bytes], has_labels: list[bool]) -> None:
        """Images without a file of labels, and files of labels without an image."""
        for path, has in zip(paths, has_labels, strict=True):
            if not has:
                detail = "no file of labels: it counts as an image without objects"
                self.remarks.append(Skip(os.fsdecode(path), "label.missing", detail))
        expected = {label_path(path) for path in paths}
        images = {os.path.dirname(path) for path in paths}
        for folder in sorted({os.path.dirname(path) for path in expected} - images):
            for path in _stray_labels(folder, expected):
                where, detail = os.fsdecode(path), "a file of labels, but no image"
                self.skipped.append(Skip(where, "image.missing", detail))


def label_path(image: bytes) -> bytes:
    """Where the labels of an image are: the last `images` of its path is `labels`."""
    return _exchange(os.path.splitext(image)[0], b"images", b"labels") + b".txt"


def _exchange(path: bytes, old: bytes, new: bytes) -> bytes:
    """The path with `new` for the last folder called `old`."""
    parts = path.split(b"/")
    for position in reversed(range(len(parts) - 1)):
        if parts[position] == old:
            parts[position] = new
            break
    return b"/".join(parts)


def _stray_labels(folder: bytes, expected: set[bytes]) -> list[bytes]:
    """Files of labels in a folder whose image is in no split."""
    if not os.path.isdir(folder):
        return []
    pictures = os.path.dirname(_exchange(folder + b"/x", b"labels", b"images"))
    names = os.listdir(pictures) if os.path.isdir(pictures) else []
    stems = {os.path.splitext(name)[0] for name in names} | {b"classes"}
    return [
        path
        for stem, suffix in map(os.path.splitext, sorted(os.listdir(folder)))
        if suffix == b".txt"
        and stem not in stems
        and (path := os.path.join(folder, stem + suffix)) not in expected
    ]


def _choose_split(config: YoloConfig, split: str | None) -> tuple[list[Path], str]:
    split = check_split(split)
    if split is None:
        split = next(iter(config.splits))
    if split == "all":
        places = [place for places in config.splits.values() for place in places]
        return list(dict.fromkeys(places)), split
    if split not in config.splits:
        raise FileNotFoundError(
            f"{config.path} has no {split} split (any of "
            f"{', '.join(SPLITS[split])}). Found: {', '.join(config.splits)}."
        )
    return config.splits[split], split


def _classes(config: YoloConfig, chosen) -> tuple[dict[int, int], tuple[str, ...]]:
    """(class id -> label or -1, class names)."""
    if not config.names:
        if not chosen:
            raise ValueError(
                f"{config.path} does not name its classes. Add data.yaml with `names`, "
                "or classes.txt, or pass `classes`."
            )
        return {i: i for i in range(len(chosen))}, tuple(chosen)
    names, labels = choose_classes(list(config.names.values()), chosen)
    return dict(zip(config.names, labels.tolist(), strict=True)), names


def _reader(exif: str):
    """A function from an image to (labels, (height, width), whether it has labels)."""
    if exif not in ("apply", "ignore"):
        raise ValueError(f"`exif` must be 'apply' or 'ignore'. Received: exif={exif!r}")

    def read(path: bytes):
        label = label_path(path)
        name = os.fsdecode(label)
        try:
            text, has = read_text(Path(name), errors="replace"), True
        except FileNotFoundError:
            text, has = "", False
        labels = parse_labels(text, name)
        try:
            header = inspect_image(os.fsdecode(path))
        except BadImage:  # the pipeline reports it; its boxes have no pixels
            return _NO_LABELS, (0, 0), has
        size = (header.height, header.width)
        return labels, header.upright_size if exif == "apply" else size, has

    return read


def _masks(labels: list[Labels], boxes, sizes, keep) -> np.ndarray:
    """(N,) object: RLE strings of the outlines; of the box where a line is one."""
    from visionkit.data.sources.segmentations import polygons_to_rle

    polygons = [polygon for found in labels for polygon in found.polygons]
    rles = np.full(len(polygons), None, object)
    for index in np.flatnonzero(keep).tolist():
        height, width = sizes[index].tolist()
        outline = polygons[index]
        if outline is None:
            x1, y1, x2, y2 = boxes[index]
            points = np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]])
        else:
            points = outline * [width, height]
        rles[index] = polygons_to_rle([points.reshape(-1)], (height, width))
    return rles
