"""The VGG Image Annotator's JSON: outlines drawn on images."""

from __future__ import annotations

import collections
import os
from pathlib import Path

import numpy as np

from visionkit._spelling import check_name, nearest
from visionkit.data.fingerprints import parallel_map
from visionkit.data.headers import inspect_image
from visionkit.data.image_header import BadImage
from visionkit.data.sources.base import Skip, SourceInfo
from visionkit.data.sources.classes import choose_classes, read_classes, sort_key
from visionkit.data.sources.coco import images_of
from visionkit.data.sources.coco_json import read_json
from visionkit.data.sources.objects import (
    ObjectSource,
    check_box_task,
    raise_no_images,
)
from visionkit.data.sources.paths import ImagePaths, PathError
from visionkit.data.sources.segmentations import polygons_to_rle
from visionkit.data.sources.splits import split_in
from visionkit.data.sources.via_json import Annotations, Region, parse_via
from visionkit.types import TASKS

USUAL = ("class", "label", "category", "type", "name", "object")
"""Attributes that mean the class where there are several; the first that is there."""


class Via(ObjectSource):
    """Images with regions in a JSON file of the VGG Image Annotator.

        root/train/via_region_data.json
        root/train/1.jpg ...

    Projects and exported annotations of VIA 1, 2 and 3 are read. A region is a
    polygon, rectangle, circle or ellipse, or a polyline, which is closed. Points and
    lines have no area and are left out, as is a region without a class. Boxes are
    those of the outlines.

    Args:
        annotations: The JSON file, beginning at `root`.
        images: Folder of the images, beginning at `root`; default beside the file, or
            one of the usual places.
        root: Where `annotations` and `images` begin; default the working directory.
        task: "detection", "instance_segmentation", or "semantic_segmentation":
            objects are painted as their classes by falling area, over label 0,
            "background".
        classes: Names of the classes to use, in label order, or a text file with one
            on each line; default all values of the attribute, those that the project
            offers first. Give it where splits have not all the same: a name that
            the file does not have is remarked.
        attribute: The attribute of the regions that tells the class; default the only
            one, or the first of `USUAL` there is. Without any there is one class,
            "object".
        exif: "apply" takes outlines on the upright image, "ignore" on the stored one,
            as `data.exif` does.

    Raises:
        FileNotFoundError: No such file or folder.
        ValueError: The file is none of VIA's, the attribute is not clear, no image
            is there, or regions have classes and none is in `classes`.
    """

    def __init__(
        self,
        annotations: str | os.PathLike,
        images: str | os.PathLike | None = None,
        root: str | os.PathLike | None = None,
        task: str = "instance_segmentation",
        classes: list[str] | str | os.PathLike | None = None,
        attribute: str | None = None,
        exif: str = "apply",
    ):
        check_box_task("via", task, TASKS[1:])
        base = Path(root or "")
        path = base / annotations
        found = parse_via(read_json(path), path)
        self.skipped: list[Skip] = []
        self.remarks: list[Skip] = []
        attribute = _choose_attribute(found, attribute, path)
        chosen = read_classes(classes, base)
        names, labels, absent = _classes(found, attribute, chosen)
        self.remarks += [Skip(str(path), "label.absent", text) for text in absent]
        paths, regions = self._find(found, path, base, images)
        sizes = np.array(_upright_sizes(paths, exif), np.int32).reshape(-1, 2)
        owners, columns = self._objects(regions, sizes, attribute, labels)
        split = split_in(path.stem) or split_in(path.parent.name) or "all"
        info = SourceInfo(task, names, len(paths), split, "via")
        if task == "semantic_segmentation":
            self._fill_regions(info, paths, owners, columns, sizes, background=True)
            return
        if task == "detection":
            del columns["instance_masks"]
        self._fill(info, paths, owners, columns)

    def _find(self, found: Annotations, path: Path, base: Path, images):
        """(path, regions) of the images that are there."""
        names = [name for name, _ in found.images]
        folder = images_of(path, base, names[:1]) if images is None else base / images
        files = ImagePaths(folder)
        by_path: dict[bytes, list[Region]] = {}
        for name, regions in found.images:
            try:
                image = files.find(name)
            except PathError as error:
                raise ValueError(f"{path}: the image {name!r} is {error}") from None
            if image is None:
                self.skipped.append(files.skip(name, f"listed in {path}"))
            else:  # VIA's keys hold the file's size, so that one may be there twice
                by_path.setdefault(image, []).extend(regions)
        if not by_path:
            raise_no_images(str(path), str(folder), self.skipped)
        return list(by_path), list(by_path.values())

    def _objects(self, regions, sizes, attribute: str | None, labels: dict[str, int]):
        """(image of each object, the object columns)."""
        owners, outlines, chosen, masks = [], [], [], []
        for owner, size in enumerate(map(tuple, sizes.tolist())):
            for region in regions[owner] if min(size) else ():  # the pipeline reports
                name = _class_of(region, attribute)
                if not name:
                    detail = f"left out: {attribute!r} is empty"
                    self.remarks.append(Skip(region.place, "label.no_class", detail))
                elif labels[name] >= 0 and region.outline is None:
                    detail = f"left out: {region.shape} of no area, or damaged"
                    self.remarks.append(Skip(region.place, "mask.polygon", detail))
                elif labels[name] >= 0:
                    owners.append(owner)
                    outlines.append(region.outline)
                    chosen.append(labels[name])
                    masks.append(polygons_to_rle([region.outline.reshape(-1)], size))
        boxes = [[*points.min(axis=0), *points.max(axis=0)] for points in outlines]
        return np.array(owners, np.int64), {
            "boxes": np.array(boxes, np.float32).reshape(-1, 4),
            "box_labels": np.array(chosen, np.int32),
            "instance_masks": np.array(masks, object),
        }


def _class_of(region: Region, attribute: str | None) -> str:
    """The name of its class, "" where none was chosen."""
    return "object" if attribute is None else region.attributes.get(attribute, "")


def _upright_sizes(paths: list[bytes], exif: str) -> list[tuple[int, int]]:
    """(height, width) of each image, (0, 0) where it cannot be read."""
    if exif not in ("apply", "ignore"):
        raise ValueError(f"`exif` must be 'apply' or 'ignore'. Received: exif={exif!r}")

    def size(path: bytes) -> tuple[int, int]:
        try:
            header = inspect_image(os.fsdecode(path))
        except BadImage:
            return 0, 0
        stored = (header.height, header.width)
        return header.upright_size if exif == "apply" else stored

    return parallel_map(size, paths)


def _choose_attribute(found: Annotations, given: str | None, path: Path) -> str | None:
    """The attribute that tells the class; None where regions have none."""
    regions = [region for _, regions in found.images for region in regions]
    used = collections.Counter(name for r in regions for name in r.attributes)
    known = sorted({*used, *found.options})
    if given is not None:
        check_name("attribute of the regions", given, known)
        return given
    if len(used) < 2:
        return next(iter(used), None)
    usual = [name for word in USUAL for name in used if name.lower() == word]
    if not usual:
        raise ValueError(
            f"The regions of {path} have several attributes: {', '.join(known)}. Say "
            "by `attribute` which one tells the class."
        )
    return usual[0]


def _classes(found: Annotations, attribute: str | None, chosen):
    """(class names, name -> label or -1, a remark for each name not in the file)."""
    regions = [region for _, regions in found.images for region in regions]
    values = {_class_of(region, attribute) for region in regions}
    offered = found.options.get(attribute, []) if attribute else ["object"]
    names = [*offered, *sorted(values - {"", *offered}, key=sort_key)]
    names = list(dict.fromkeys(filter(None, names)))
    absent = [name for name in chosen or () if name not in names]
    if absent and len(absent) == len(chosen) and values - {""}:
        choose_classes(names, chosen)  # raises: all regions would be left out
    texts = [f"no region is of class {n!r}.{nearest(n, names)}" for n in absent]
    names += absent  # of other splits
    chosen_names, labels = choose_classes(names, chosen)
    return chosen_names, dict(zip(names, labels.tolist(), strict=True)), texts
