"""Data sources: a data set as light records, by name."""

from __future__ import annotations

import importlib
import inspect
from typing import TYPE_CHECKING, Any

from visionkit._spelling import check_name

if TYPE_CHECKING:
    from visionkit.data.sources.base import Source

SOURCES = {
    "coco": "visionkit.data.sources.coco:Coco",
    "csv": "visionkit.data.sources.csv_file:Csv",
    "digits": "visionkit.data.sources.digits:Digits",
    "image_folder": "visionkit.data.sources.image_folder:ImageFolder",
    "instance_folder": "visionkit.data.sources.instance_folder:InstanceFolder",
    "mask_folder": "visionkit.data.sources.mask_folder:MaskFolder",
    "records": "visionkit.data.sources.records:Records",
    "tfds": "visionkit.data.sources.tfds:Tfds",
    "via": "visionkit.data.sources.via:Via",
    "voc": "visionkit.data.sources.voc:Voc",
    "yolo_txt": "visionkit.data.sources.yolo_txt:YoloTxt",
}
"""Name -> "module:Class"; resolved on use, so that a list of names costs nothing."""


def source_class(name: str) -> type[Source]:
    """The class of a source in `SOURCES`.

    Raises:
        ValueError: The name is unknown.
    """
    check_name("source", name, SOURCES)
    module, _, attribute = SOURCES[name].partition(":")
    return getattr(importlib.import_module(module), attribute)


def build_source(name: str, /, **options: Any) -> Source:
    """The source called `name` in `SOURCES`, made with `options`.

    Args:
        name: A key of `SOURCES`. By position, since sources may have a `name` too.
        **options: Keyword arguments of the source's class.

    Raises:
        ValueError: The name is unknown, or an option is.
    """
    kind = source_class(name)
    known = inspect.signature(kind).parameters
    for option in options:
        check_name(f"option of the source {name!r}", option, known)
    return kind(**options)
