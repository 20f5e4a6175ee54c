"""A folder of images beside files of their instances."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from visionkit.data.fingerprints import parallel_map
from visionkit.data.headers import inspect_image
from visionkit.data.image_header import BadImage
from visionkit.data.mask_runs import Instances, no_instances
from visionkit.data.progress import progress_bar
from visionkit.data.sources.base import Skip, SourceInfo
from visionkit.data.sources.classes import read_classes
from visionkit.data.sources.instance_files import read_numbered, read_separate
from visionkit.data.sources.instance_listing import list_instances
from visionkit.data.sources.objects import ObjectSource, check_box_task
from visionkit.types import TASKS


class InstanceFolder(ObjectSource):
    """Images with PNGs of their instances.

        root/images/a.jpg     root/images/a.jpg     root/a/images/a.jpg
        root/masks/a.png      root/masks/a/1.png    root/a/masks/1.png
                              root/masks/a/2.png    root/a/masks/2.png

    On the left one PNG numbers the instances of its image: 0 is background, and all
    pixels of one other value are an instance, in grey of 8 or 16 bits, palette indices
    or colours (Penn-Fudan's `PedMasks`). With `divisor` a number also tells the class:
    class * divisor + instance, as in Cityscapes with 1000. There a pixel whose value is
    only a class is of a crowd of it.

    In the middle and on the right each instance has a PNG of its own, bright on black
    (Data Science Bowl 2018); they may overlap.

    Splits are lists or folders, as for `MaskFolder`. Masks are as large as the upright
    image. All are read once, when the source is made, and kept as runs; boxes are tight
    around them. An image whose PNG cannot be read is left out, and a broken or empty
    PNG of one instance too.

    Args:
        root: The folder; default the working directory.
        images: Folder of the images: beginning at `root`, or within each image's.
        masks: Folder of the masks, likewise.
        classes: The name of the class, as a list of one; default "object". With
            `divisor` a table from the name to the number of each class, or a list of
            names whose numbers are 1, 2, 3..., or a text file with one on each line;
            default all classes that there are, as "class 24". Instances of others are
            left out.
        divisor: What separates class and instance in a number.
        split: As for `MaskFolder`.
        image_suffix: What names of images have after what they share with the masks,
            e.g. "_leftImg8bit".
        mask_suffix: The same of the masks, e.g. "_mask" or "_gtFine_instanceIds".
        void: A number of no instance, whose pixels become background: 255 for the
            borders in Pascal VOC's `SegmentationObject`. Only where a PNG numbers the
            instances.
        task: "instance_segmentation", "detection", or "semantic_segmentation":
            instances are painted by falling area over label 0, "background".

    Raises:
        FileNotFoundError: No such folder, split or file.
        ValueError: No image has masks, wrong classes, or `void` where each instance
            has a PNG.
    """

    def __init__(
        self,
        root: str | os.PathLike | None = None,
        images: str = "images",
        masks: str = "masks",
        classes: Sequence[str] | Mapping[str, int] | str | os.PathLike | None = None,
        divisor: int | None = None,
        split: str | None = None,
        image_suffix: str = "",
        mask_suffix: str = "",
        void: int | None = None,
        task: str = "instance_segmentation",
    ):
        check_box_task("instance_folder", task, TASKS[1:])
        base = Path(root or "")
        table = _class_table(classes, divisor, base)
        found = list_instances(base, images, masks, split, (image_suffix, mask_suffix))
        if void is not None and found.separate:
            raise ValueError(
                "`void` is for PNGs that number the instances; here each instance has "
                f"a PNG of its own. Leave it out. Received: void={void}"
            )
        self.skipped, self.remarks = found.skipped, found.remarks
        paths, instances = self._read(found, void)
        if table is None:
            ids = np.unique(np.concatenate([part.ids for part in instances]))
            numbers = np.unique(ids[ids >= divisor] // divisor).tolist()
            table = {f"class {number}": number for number in numbers}
        owners, columns, left_out = _columns(instances, table, divisor)
        if left_out:
            self.remarks.append(Skip(str(base), "label.other_class", left_out))
        sizes = np.array([part.size for part in instances], np.int32)
        names, count = tuple(table), len(paths)
        info = SourceInfo(task, names, count, found.split, "instance_folder")
        if task == "semantic_segmentation":
            self._fill_regions(info, paths, owners, columns, sizes, background=True)
            return
        if task == "detection":
            del columns["instance_masks"]
        self._fill(info, paths, owners, columns, sizes)

    def _read(self, found, void: int | None) -> tuple[list[bytes], list[Instances]]:
        """The images whose masks can be read, and their instances."""

        def read(image: bytes, files: list[bytes]) -> Instances | BadImage | None:
            try:
                if not found.separate:
                    return read_numbered(files[0], void)
                if not files:
                    return no_instances(inspect_image(os.fsdecode(image)).upright_size)
                return read_separate(files, self.remarks)
            except BadImage as bad:
                return bad
            finally:
                advance()

        pairs = list(zip(found.images, found.masks, strict=True))
        with progress_bar("Reading masks", len(pairs)) as advance:
            parts = parallel_map(lambda pair: read(*pair), pairs)
        self.remarks.sort(key=lambda remark: remark.name)  # threads end in any order
        paths, instances = [], []
        for (path, files), part in zip(pairs, parts, strict=True):
            if isinstance(part, Instances):
                paths.append(path)
                instances.append(part)
                continue
            bad = part or BadImage("mask.missing", "no file of an instance can be used")
            where = "" if found.separate else f"{os.fsdecode(files[0])}: "
            skip = Skip(os.fsdecode(path), bad.rule, where + bad.detail)
            self.skipped.append(skip)
        if not paths:
            raise ValueError(
                f"No mask of the {len(found.images)} images can be used. First: "
                f"{self.skipped[-1]}."
            )
        return paths, instances


def _class_table(classes, divisor: int | None, base: Path) -> dict[str, int] | None:
    """Name -> number of each class, in label order; None for what there is."""
    if divisor is not None and divisor < 2:
        raise ValueError(f"`divisor` must be above 1. Received: divisor={divisor}")
    if isinstance(classes, Mapping):
        table = dict(classes)
        numbers = list(table.values())
        if divisor is None or len(set(numbers)) < len(numbers):
            raise ValueError(
                "`classes` may be a table only beside a `divisor`, and then from the "
                f"name to the number of each, all different. Received: {table!r:.200}"
            )
        return {str(name): int(number) for name, number in table.items()}
    names = read_classes(classes, base)
    if divisor is not None:
        return names and {name: 1 + i for i, name in enumerate(names)}
    if names is not None and len(names) != 1:
        raise ValueError(
            "Without a `divisor` all instances are of one class. Received: "
            f"classes={list(names)}"
        )
    return {names[0] if names else "object": 0}


def _class_of(ids: np.ndarray, divisor: int | None) -> np.ndarray:
    """The number of the class of each instance."""
    if divisor is None:
        return np.zeros_like(ids)
    return np.where(ids < divisor, ids, ids // divisor)


def _columns(instances: list[Instances], table: dict[str, int], divisor: int | None):
    """(image of each object, the object columns, what was left out or "")."""
    counts = [len(part.ids) for part in instances]
    ids = np.concatenate([part.ids for part in instances])
    classes = _class_of(ids, divisor)
    labels = np.full(len(ids), -1, np.int32)
    for label, number in enumerate(table.values()):
        labels[classes == number] = label
    columns = {
        "boxes": np.concatenate([part.boxes for part in instances]),
        "box_labels": labels,
        "area": np.concatenate([part.area for part in instances]),
        "instance_masks": np.concatenate([part.masks for part in instances]),
    }
    if divisor is not None:
        columns["is_crowd"] = ids < divisor
    keep = labels >= 0
    owners = np.repeat(np.arange(len(instances)), counts)
    columns = {key: value[keep] for key, value in columns.items()}
    return owners[keep], columns, _left_out(ids[~keep], divisor)


def _left_out(ids: np.ndarray, divisor: int | None) -> str:
    """How many instances are of no class, given the ids of what has no label.

    A number below 256 may be a class alone, "stuff" such as road: no instance.
    """
    lost = ids[ids >= min(divisor or 0, 256)]
    if not len(lost):
        return ""
    numbers = np.unique(_class_of(lost, divisor)).tolist()
    shown = ", ".join(map(str, numbers[:8])) + (", ..." if len(numbers) > 8 else "")
    return f"{len(lost)} instances are of no class in `classes` and left out: {shown}"
