"""COCO: one JSON file with the boxes and masks of all images."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from visionkit.data.headers import MAX_PIXELS
from visionkit.data.progress import progress_bar
from visionkit.data.rle import decode_runs
from visionkit.data.sources.base import Skip, SourceInfo
from visionkit.data.sources.classes import choose_classes, read_classes
from visionkit.data.sources.coco_json import Section, lookup, positions, read_json
from visionkit.data.sources.files import repeated
from visionkit.data.sources.objects import (
    ObjectSource,
    check_box_task,
    keep_finite,
    raise_no_images,
)
from visionkit.data.sources.paths import ImagePaths, PathError
from visionkit.data.sources.segmentations import BadSegmentation, to_rle
from visionkit.data.sources.splits import SPLITS, split_in
from visionkit.types import TASKS

MANY = 20_000
"""Masks that take long enough for a progress bar."""

_NO_SIZE = (
    "no `height` and `width` in the file. Give them: a mask is drawn at their size."
)


class Coco(ObjectSource):
    """Images with boxes, and masks, listed in a COCO annotation file.

    Labels are the positions of the categories in the order of their ids, so gaps close
    (COCO's 1 to 90 become 0 to 79). Images without annotations are kept, as images
    with nothing in them. Crowds are kept and flagged.

    Args:
        annotations: The JSON file, beginning at `root` where it is relative.
        images: Folder that the file names begin at, itself beginning at `root`; default
            the first of the usual places that has the images (`train2017`,
            `images/train2017`, `images`, beside the file...). No name may lead out.
        root: Where `annotations` and `images` begin; default the working directory.
        task: "detection", "instance_segmentation" or "semantic_segmentation"; for the
            latter two polygons and RLE of both kinds are read as compressed RLE.
        classes: Names of the categories to use, in label order, or a text file with one
            on each line; default all. Objects of others are left out, images stay.
        proposals: JSON list of proposals, beginning at `root`; see `read_proposals`.
        background: For semantic segmentation, whether what is no object is a class of
            its own, "background", label 0 before all others; if not, it is void.

    For semantic segmentation objects are painted as their classes by falling area, so
    that small ones stay on top of large ones; crowds, painted first, are void.

    Attributes:
        image_ids: The id in the file of each record.
        category_ids: The id in the file of each label.

    Raises:
        FileNotFoundError: No such file, or no such folder.
        ValueError: Naming file, entry, id and value; or no image is there.
    """

    box_format = "xywh"

    def __init__(
        self,
        annotations: str | os.PathLike,
        images: str | os.PathLike | None = None,
        root: str | os.PathLike | None = None,
        task: str = "detection",
        classes: list[str] | str | os.PathLike | None = None,
        proposals: str | os.PathLike | None = None,
        background: bool = True,
    ):
        check_box_task("coco", task, TASKS[1:])
        base = Path(root or "")
        path = base / annotations
        masks = task != "detection"
        content = read_json(path, drop=None if masks else "segmentation")
        pictures = Section(path, content, "images")
        objects = Section(path, content, "annotations")
        self.skipped: list[Skip] = []
        self.remarks: list[Skip] = []

        names, labels, ids = _categories(path, content, read_classes(classes, base))
        paths = _find_images(pictures, path, base, images, self.skipped)
        kept = np.array([p is not None for p in paths], bool)
        sizes = _sizes(pictures)
        owners, columns = self._objects(objects, pictures, labels)
        owners, columns = _select(kept[owners], owners, columns)
        rows = columns.pop("row")
        if masks:
            rles = self._masks(objects, rows, sizes[owners])
            sound = np.array([rle is not None for rle in rles], bool)
            if len(sound) and not sound.any():
                raise ValueError(
                    f"{path}: none of {len(sound)} objects has a `segmentation` that "
                    f"can be used. Train detection on it. First: {self.remarks[-1]}"
                )
            columns["instance_masks"] = rles
            owners, columns = _select(sound, owners, columns)
        _fill_areas(columns)

        split = split_in(path.stem) or split_in(path.parent.name) or "all"
        info = SourceInfo(task, names, int(kept.sum()), split, "coco")
        found = [p for p in paths if p is not None]
        owners = (np.cumsum(kept) - 1)[owners]
        if task == "semantic_segmentation":
            self._check_sizes(pictures, np.flatnonzero(kept), sizes)
            self._fill_regions(info, found, owners, columns, sizes[kept], background)
        else:
            self._fill(info, found, owners, columns, sizes[kept])
        picture_ids = pictures.values("id", (int, str), "a number or a text")
        self.image_ids = [i for i, k in zip(picture_ids, kept, strict=True) if k]
        self.category_ids = ids
        if proposals is not None:
            self._take_proposals(base / proposals, self.image_ids)

    def _objects(self, objects: Section, pictures: Section, labels: dict):
        """(image of each object, its columns with "row" in the file)."""
        boxes = objects.numbers("bbox", "four numbers [x, y, width, height]", 4)
        crowd = objects.numbers("iscrowd", "0 or 1", default=0) != 0
        area = objects.numbers("area", "a number", default=np.nan)
        area[~(np.abs(area) <= np.finfo(np.float32).max)] = np.nan
        categories = objects.values("category_id", (int, str), "the id of a category")
        unknown = {c for c in categories if c not in labels}
        if unknown:
            row = next(i for i, c in enumerate(categories) if c in unknown)
            listed = ", ".join(map(str, sorted(unknown, key=str)))
            raise objects.error(
                row,
                "category_id",
                f"an id of `categories` (unknown in this file: {listed})",
            )
        label = lookup(categories, labels)
        ids = pictures.values("id", (int, str), "a number or a text")
        image_ids = objects.values("image_id", (int, str), "the id of an image")
        owners = lookup(image_ids, positions(pictures, ids))
        for row in np.flatnonzero(owners < 0).tolist():
            where = objects.place(row, "image_id")
            detail = f"left out: there is no image {image_ids[row]!r}"
            self.remarks.append(Skip(where, "label.no_image", detail))
        self._remark_twice(objects)

        keep = (owners >= 0) & (label >= 0)
        with np.errstate(over="ignore", invalid="ignore"):
            ends = boxes[:, :2] + boxes[:, 2:]
        corners = np.concatenate([boxes[:, :2], ends], axis=1)
        for sides in (boxes, corners):  # of two finite numbers the sum may not be
            keep = keep_finite(
                sides, lambda i: objects.place(i, "bbox"), self.remarks, keep
            )
        columns = {
            "boxes": np.where(keep[:, None], corners, 0).astype(np.float32),
            "box_labels": label.astype(np.int32),
            "is_crowd": crowd,
            "area": area.astype(np.float32),
            "row": np.arange(len(objects)),
        }
        return _select(keep, owners, columns)

    def _remark_twice(self, objects: Section) -> None:
        """Notes ids that two annotations share: a sign of files that were merged."""
        ids = [item.get("id") for item in objects.items if "id" in item]
        twice = len(ids) - len(set(map(str, ids)))
        if twice:
            detail = f"{twice} annotations have the id of another"
            self.remarks.append(Skip(str(objects.path), "label.duplicate_id", detail))

    def _check_sizes(self, pictures: Section, rows, sizes) -> None:
        """Refuses images without a usable size, which a mask is drawn at."""
        for row in rows.tolist():
            _check_size(tuple(sizes[row].tolist()), pictures.place(row, "height"))

    def _masks(self, objects: Section, rows, sizes) -> np.ndarray:
        """(N,) object: the RLE string of each object, None where there is no mask."""
        rles = np.full(len(rows), None, object)
        pairs = zip(rows.tolist(), map(tuple, sizes.tolist()), strict=True)
        with progress_bar("Reading masks", len(rows), len(rows) > MANY) as advance:
            for index, (row, size) in enumerate(pairs):
                place = objects.place(row, "segmentation")
                _check_size(size, place)
                try:
                    rles[index] = to_rle(objects.items[row].get("segmentation"), size)
                except BadSegmentation as error:
                    self.remarks.append(Skip(place, error.rule, f"left out: {error}"))
                except ValueError as error:
                    raise ValueError(f"{place}: {error}.") from None
                advance()
        return rles


def _check_size(size: tuple[int, int], place: str) -> None:
    """Refuses the size of an image that no mask can be drawn at."""
    if min(size) < 1:
        raise ValueError(f"{place}: its image has {_NO_SIZE}")
    if size[0] * size[1] > MAX_PIXELS:
        raise ValueError(
            f"{place}: its image has {size[1]} x {size[0]} pixels (width x height) in "
            f"the file. Expected at most {MAX_PIXELS:,}."
        )


def _select(keep: np.ndarray, owners: np.ndarray, columns: dict):
    """The objects to keep."""
    return owners[keep], {key: value[keep] for key, value in columns.items()}


def _fill_areas(columns: dict) -> None:
    """Areas that the file leaves out, or that are no numbers: of the masks, or else of
    the boxes."""
    missing = np.flatnonzero(np.isnan(columns["area"]))
    if "instance_masks" in columns:
        runs = (decode_runs(columns["instance_masks"][i]) for i in missing)
        columns["area"][missing] = [lengths[1::2].sum() for lengths in runs]
    else:
        boxes = columns["boxes"][missing]
        columns["area"][missing] = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)


def _categories(path: Path, content, chosen):
    """(class names, category id -> label or -1, category id of each label)."""
    section = Section(path, content, "categories")
    names = section.values("name", str, "a text")
    ids = section.values("id", (int, str), "a number or a text")
    positions(section, ids)
    order = sorted(range(len(ids)), key=lambda i: (isinstance(ids[i], str), ids[i]))
    names, ids = [names[i] for i in order], [ids[i] for i in order]
    twice = repeated(names)
    if twice or not names:
        found = f"the names {twice} twice" if twice else "no category"
        raise ValueError(f"{path} has {found} in `categories`. Give each its own name.")
    names, labels = choose_classes(names, chosen)
    of_label = {label: i for label, i in zip(labels.tolist(), ids, strict=True)}
    known = dict(zip(ids, labels.tolist(), strict=True))
    return names, known, tuple(of_label[label] for label in range(len(names)))


def _sizes(pictures: Section) -> np.ndarray:
    """(N, 2) int32 (height, width), 0 where the file does not say."""
    sides = [pictures.numbers(k, "pixels", default=0) for k in ("height", "width")]
    return np.nan_to_num(np.stack(sides, axis=1)).clip(0, 2**31 - 1).astype(np.int32)


def _find_images(pictures: Section, path: Path, base: Path, images, skipped):
    """The path of each image, None where it is missing."""
    names = pictures.values("file_name", str, "a text")
    folder = base / images if images is not None else images_of(path, base, names[:1])
    files = ImagePaths(folder)
    found: list[bytes | None] = []
    for index, name in enumerate(names):
        try:
            found.append(files.find(name))
        except PathError as error:
            place = pictures.place(index, "file_name")
            raise ValueError(f"{place} is {name!r}, {error}") from None
        if found[-1] is None:
            skipped.append(files.skip(name, pictures.place(index, "file_name")))
    if all(f is None for f in found):
        raise_no_images(str(path), str(folder), skipped)
    return found


def images_of(path: Path, base: Path, names: list[str]) -> Path:
    """The first of the usual folders of images that has the first of `names`."""
    stem = path.stem.removeprefix("instances_")
    split = split_in(path.stem)
    words = [stem, *SPLITS.get(split, ())]
    root = base if str(base) != "." else path.parent
    tops = dict.fromkeys((root, path.parent, path.parent.parent))
    folders = [path.parent]
    for top in tops:
        folders += [top / w for w in words] + [top / "images" / w for w in words]
        folders += [top / "images", top]
    for folder in folders:
        try:
            if names and folder.is_dir() and ImagePaths(folder).find(names[0]):
                return folder
        except PathError:
            break
    return root
