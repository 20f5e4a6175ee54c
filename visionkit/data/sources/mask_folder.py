"""A folder of images beside a folder of masks."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from visionkit.data.sources.base import SourceInfo
from visionkit.data.sources.mask_classes import read_mask_classes, values_in
from visionkit.data.sources.mask_listing import list_masks
from visionkit.data.sources.objects import ObjectSource


class MaskFolder(ObjectSource):
    """Images with a mask each, for semantic segmentation.

        root/images/a.jpg      or  root/images/train/a.jpg   or  root/train/images/...
        root/masks/a.png           root/masks/train/a.png        root/train/masks/...
        root/train.txt (may be)

    An image and its mask have one name but for the type and the suffixes, below their
    folders; they may lie in one folder. Lists of a split have an image on each line: a
    name, or the paths of image and mask from the root.

    A mask is a PNG as large as the upright image. Its pixels are grey values, or
    palette indices whatever the palette's colours; where the classes are given by
    colours it is read as RGB. A value that no class has is an error, found by `check`
    and reported in training, where another record takes the place.

    Args:
        root: The folder; default the working directory.
        images: Folder of the images, beginning at `root`.
        masks: Folder of the masks, beginning at `root`.
        classes: In label order a list of names, whose values are 0, 1, 2... without
            those of `void` (two names also stand for 0 and 255 where the masks have
            only these); or a table from each name to its value or to its
            [red, green, blue]; or a file with one of these: `.txt` with a name on each
            line, `.json`, `.yaml`, or `labelmap.txt` as CVAT writes it. Default such a
            file called `classes` in `root`, or else "background" and "foreground" for
            masks of 0 and 255, or 0 and 1.
        void: Value, colour or name of class, or a list of them, that neither trains
            nor counts; classes of these values are none. "others" for all values
            that no class has. Default 255 where no class has it.
        split: A list (`train.txt` in `ImageSets/Segmentation`, `ImageSets`, `splits`,
            `lists` or `root`) or a folder; "validation" finds `val` and `valid` too.
            Default "train" where there are splits; "all" for everything.
        image_suffix: What names of images have after what they share with the masks,
            e.g. "_leftImg8bit".
        mask_suffix: The same of the masks, e.g. "_gtFine_labelIds".

    Raises:
        FileNotFoundError: No such folder, split or file.
        ValueError: No image has a mask, or wrong classes.
    """

    def __init__(
        self,
        root: str | os.PathLike | None = None,
        images: str = "images",
        masks: str = "masks",
        classes: Sequence[str] | Mapping | str | os.PathLike | None = None,
        void: int | str | Sequence | None = None,
        split: str | None = None,
        image_suffix: str = "",
        mask_suffix: str = "",
    ):
        base = Path(root or "")
        found = list_masks(base, images, masks, split, (image_suffix, mask_suffix))
        self.skipped, self.remarks = found.skipped, found.remarks

        def values() -> set[int]:
            paths = found.masks
            return values_in(len(paths), lambda index: {"mask_path": paths[index]})

        names, code = read_mask_classes(classes, void, base, values)
        info = SourceInfo(
            "semantic_segmentation",
            names,
            len(found.images),
            found.split,
            "mask_folder",
        )
        self._fill_masks(info, found.images, found.masks, code)
