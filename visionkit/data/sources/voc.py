"""Pascal VOC: one XML file per image."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from visionkit.data.sources.base import Skip, SourceInfo
from visionkit.data.sources.classes import read_classes, sort_key
from visionkit.data.sources.files import read_text
from visionkit.data.sources.listing import IMAGE_SUFFIXES, suffix_of
from visionkit.data.sources.mask_classes import read_mask_classes
from visionkit.data.sources.mask_listing import list_masks
from visionkit.data.sources.objects import (
    ObjectSource,
    check_box_task,
    keep_finite,
    raise_no_images,
)
from visionkit.data.sources.paths import ImagePaths, PathError
from visionkit.data.sources.splits import SPLIT_NAMES, SPLITS, split_in
from visionkit.data.sources.voc_xml import Annotation, read_annotation

VOC_CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair"),
    *("cow", "diningtable", "dog", "horse", "motorbike", "person", "pottedplant"),
    *("sheep", "sofa", "train", "tvmonitor"),
)
"""The classes of Pascal VOC, from 1 on in its masks."""


class Voc(ObjectSource):
    """Images with boxes in the layout of Pascal VOC.

        root/JPEGImages/1.jpg            or  root/train/1.jpg
        root/Annotations/1.xml               root/train/1.xml
        root/ImageSets/Main/train.txt        root/valid/2.jpg ...

    The image of an annotation is the file of the same name, or else its `<filename>`.
    Classes are those of all annotations, of every split, by code point.

    VOC counts pixels from 1 and a box holds its last pixel, so that (1, 1, W, H) is the
    whole image; read with `one_based`, it becomes (0, 0, W, H). Many tools write edges
    that begin at 0 instead: for those `one_based: false` takes the numbers as they are.

    Args:
        root: The folder; default the working directory.
        split: A list in `ImageSets/Main` ("train", "trainval", "val"...), or a folder;
            "validation" finds `val` and `valid` too. Default "train" where there are
            lists or folders; "all" for every annotation.
        images: Folder of the images, beginning at `root`; default `JPEGImages`.
        annotations: Folder of the XML files, beginning at `root`; default
            `Annotations`.
        classes: Names of the classes to use, in label order, or a text file with one on
            each line; objects of others are left out, images stay. Saves reading the
            annotations of other splits.
        one_based: Whether coordinates count from 1.
        proposals: JSON list of proposals, beginning at `root`; their `image_id` is the
            name of the image without suffix. See `read_proposals`.
        task: "detection" or "semantic_segmentation". The latter reads the palette
            indices of `SegmentationClass/1.png` (which `annotations` may rename) for
            the images that `ImageSets/Segmentation` lists; 255 is void. The classes
            are "background" and VOC's twenty, unless `classes` or a `labelmap.txt` in
            `root`, as CVAT writes it, says otherwise; see `MaskFolder`.

    Raises:
        FileNotFoundError: No such folder or list.
        ValueError: Naming file, element and value; or no image is there.
    """

    def __init__(
        self,
        root: str | os.PathLike | None = None,
        split: str | None = None,
        images: str | os.PathLike | None = None,
        annotations: str | os.PathLike | None = None,
        classes: list[str] | str | os.PathLike | None = None,
        one_based: bool = True,
        proposals: str | os.PathLike | None = None,
        task: str = "detection",
    ):
        check_box_task("voc", task, ("detection", "semantic_segmentation"))
        base = Path(root or "")
        if task == "semantic_segmentation":
            self._read_masks(base, split, images, annotations, classes)
            return
        stems, split, folder = _choose(base, split)
        texts = _folder(folder, annotations, base, "Annotations", "annotations")
        files = _Images(_folder(folder, images, base, "JPEGImages", "images"))
        self.skipped: list[Skip] = []
        self.remarks: list[Skip] = []
        known = {path.stem: path for path in _annotations_in(texts)}
        if not known:
            raise FileNotFoundError(
                f"{str(texts)!r} holds no XML file. Expected one annotation per image; "
                "see `annotations`."
            )
        wanted = list(known) if stems is None else stems
        names = read_classes(classes, base)
        everything = {} if names else _read_all(_all_annotations(base, texts, folder))
        found, paths = [], []
        for stem in wanted:
            path = self._find(stem, known.get(stem), files, everything)
            if path is not None:
                found.append(everything[known[stem]])
                paths.append(path)
        if not found:
            raise_no_images(str(texts), str(files.folder), self.skipped)
        names = names or tuple(
            sorted({n for a in everything.values() for n in a.names}, key=sort_key)
        )
        sizes = np.array([annotation.size for annotation in found], np.int32)
        self._fill(
            SourceInfo("detection", names, len(found), split, "voc"),
            paths,
            *self._objects(found, names, one_based),
            sizes,
        )
        if proposals is not None:
            ids = [a.path.stem for a in found]
            self._take_proposals(base / proposals, ids)

    def _read_masks(self, base: Path, split, images, annotations, classes) -> None:
        folders = (images or "JPEGImages", annotations or "SegmentationClass")
        found = list_masks(base, *map(os.fspath, folders), split)
        self.skipped, self.remarks = found.skipped, found.remarks
        if classes is None and not (base / "labelmap.txt").is_file():
            classes = ("background", *VOC_CLASSES)
        names, code = read_mask_classes(classes, None, base, set)
        count = len(found.images)
        info = SourceInfo("semantic_segmentation", names, count, found.split, "voc")
        self._fill_masks(info, found.images, found.masks, code)

    def _find(self, stem, path, files, everything) -> bytes | None:
        """The image of an annotation, which is read into `everything` if need be."""
        if path is None:
            image = files.of_stem(stem)
            name = stem if image is None else os.fsdecode(image)
            detail = "no annotation; write one without objects if it shows none"
            self.skipped.append(Skip(name, "label.missing", detail))
            return None
        if path not in everything:
            everything[path] = read_annotation(path)
        image = files.of(everything[path])
        if image is None:
            self.skipped.append(files.skip(everything[path]))
        return image

    def _objects(self, found: list[Annotation], names, one_based: bool):
        """(image of each object, the object columns)."""
        counts = [len(annotation.names) for annotation in found]
        owners = np.repeat(np.arange(len(found)), counts)
        boxes = [box for annotation in found for box in annotation.boxes]
        boxes = np.array(boxes, np.float64).reshape(-1, 4)
        if one_based:
            self._remark_zeros(found, owners, boxes)
            boxes -= [1, 1, 0, 0]
        label = {name: index for index, name in enumerate(names)}
        labels = [label.get(name, -1) for a in found for name in a.names]
        labels = np.array(labels, np.int32)
        hard = np.array([d for a in found for d in a.difficult], bool)
        keep = keep_finite(
            boxes, lambda i: str(found[owners[i]].path), self.remarks, labels >= 0
        )
        columns = {
            "boxes": np.where(keep[:, None], boxes, 0).astype(np.float32),
            "box_labels": labels,
            "is_difficult": hard,
        }
        return owners[keep], {key: value[keep] for key, value in columns.items()}

    def _remark_zeros(self, found, owners, boxes: np.ndarray) -> None:
        zero = np.flatnonzero((boxes[:, :2] == 0).any(axis=1))
        for index in np.unique(owners[zero]).tolist():
            detail = "a coordinate is 0, so they count from 0: set `one_based: false`"
            name = str(found[index].path)
            self.remarks.append(Skip(name, "box.zero_based", detail))


class _Images:
    """The images of a folder by name and by stem."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._paths = ImagePaths(folder)
        names = sorted(os.listdir(os.fsencode(folder)))
        images = [name for name in names if suffix_of(name) in IMAGE_SUFFIXES]
        self._names = {os.fsdecode(os.path.splitext(n)[0]): n for n in images}

    def of_stem(self, stem: str) -> bytes | None:
        name = self._names.get(stem)
        return None if name is None else self._paths.find(os.fsdecode(name))

    def skip(self, annotation: Annotation) -> Skip:
        """What to say of an annotation that has no image."""
        stem = annotation.path.stem
        name = os.fsdecode(self._names.get(stem, b"")) or annotation.filename or stem
        return self._paths.skip(name, f"no image for {annotation.path}")

    def of(self, annotation: Annotation) -> bytes | None:
        """The image of an annotation, or None if it is not there."""
        try:
            image = self.of_stem(annotation.path.stem)
            if image is None and annotation.filename:
                image = self._paths.find(annotation.filename)
        except PathError as error:
            raise ValueError(
                f"{annotation.path}: filename is {annotation.filename!r}, {error}"
            ) from None
        return image


def find_splits(root: Path) -> dict[str, Path]:
    """The lists in `ImageSets/Main`, or else the folders with XML files, by name."""
    lists = sorted((root / "ImageSets" / "Main").glob("*.txt"))
    if lists:  # `aeroplane_train.txt` and its like tell which images show a class
        return {path.stem: path for path in lists if "_" not in path.stem}
    folders = sorted(path for path in root.iterdir() if path.is_dir())
    return {
        path.name: path
        for path in folders
        if path.name.lower() in SPLIT_NAMES and any(path.glob("*.xml"))
    }


def _choose(base: Path, split: str | None) -> tuple[list[str] | None, str, Path]:
    """(names of the annotations, or None for all; split; folder that holds them)."""
    if not base.is_dir():
        raise FileNotFoundError(f"No such folder: {str(base)!r}.")
    splits = find_splits(base)
    if split == "all" or (split is None and not splits):
        return None, "all", base
    split = split or ("train" if "train" in splits else next(iter(splits)))
    aliases = (split, *SPLITS.get(SPLIT_NAMES.get(split, ""), ()))
    name = next((alias for alias in aliases if alias in splits), None)
    if name is None:
        raise FileNotFoundError(
            f"{base} has no split {split!r}. Found: {', '.join(splits) or 'none'}. "
            "Expected ImageSets/Main/NAME.txt, or a folder of that name."
        )
    place, split = splits[name], split_in(name) or "all"
    if place.is_dir():
        return None, split, place
    lines = read_text(place, errors="surrogateescape").splitlines()
    # Some lists give each name a mark: 1, -1 or 0.
    stems = [re.sub(r"\s+-?[01]$", "", line.strip()) for line in lines if line.strip()]
    return list(dict.fromkeys(stems)), split, base


def _folder(folder: Path, given, base: Path, *usual: str) -> Path:
    """The folder given, or the first usual one that is there, or `folder` itself."""
    if given is not None:
        return base / given
    return next((folder / n for n in usual if (folder / n).is_dir()), folder)


def _annotations_in(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.xml"))


def _all_annotations(base: Path, texts: Path, folder: Path) -> list[Path]:
    """The annotations of every split."""
    if folder == base:
        return _annotations_in(texts)
    return [xml for path in find_splits(base).values() for xml in _annotations_in(path)]


def _read_all(paths: Iterable[Path]) -> dict[Path, Annotation]:
    return {path: read_annotation(path) for path in paths}
