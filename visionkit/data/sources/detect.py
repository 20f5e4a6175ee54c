"""Finding out which format a folder holds."""

from __future__ import annotations

import dataclasses
import inspect
import mmap
import os
import warnings
from collections.abc import Callable
from pathlib import Path

from visionkit._spelling import check_name
from visionkit.data.sources import build_source, source_class
from visionkit.data.sources.base import Source
from visionkit.data.sources.splits import SPLIT_NAMES, split_in
from visionkit.types import TASKS

_BOXES = ("detection", "instance_segmentation")
_MASKS = "semantic_segmentation"
_TEXTS = ("annotations", "labels", "via")  # folders of annotations
_MANY = 64  # a JSON file for each image is another format
_KNOWN = """\
  a folder per class with images, perhaps inside train/ and val/;
  COCO: a JSON file with images, annotations and categories;
  VOC: Annotations/*.xml beside JPEGImages/;
  masks: images/ beside masks/ with PNGs of the same names, perhaps inside train/;
  instances: the same with numbered pixels, or a folder with a PNG of each instance;
  VIA: a JSON file of the VGG Image Annotator;
  YOLO: data.yaml, or images/train beside labels/train and classes.txt;
  a table (.csv, .tsv) with a column of images;
  a prepared version of TensorFlow Datasets, or records of `write_records`"""


@dataclasses.dataclass(frozen=True)
class DetectedSource:
    """A source that reads a folder.

    Attributes:
        name: Key of `SOURCES`.
        train: Options of the training split beside `root` and `task`.
        validation: Options of the validation split; None where the folder has none.
        source: The training split.
    """

    name: str
    train: dict
    validation: dict | None
    source: Source


def detect_source(root: str | os.PathLike, task: str | None = None) -> DetectedSource:
    """The source that reads `root`, and its splits.

    Args:
        root: Folder of a data set.
        task: One of `visionkit.types.TASKS`, for a folder that serves several; default
            the one its format is made for.

    Raises:
        FileNotFoundError: There is no such folder.
        ValueError: The folder holds no known format, or none for the task.
    """
    if task is not None:
        check_name("task", task, TASKS)
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(f"There is no folder {root}.")
    others = []
    for name, (probe, tasks) in _PROBES.items():
        splits = probe(root, task)
        if splits is None:
            continue
        if task is not None and task not in tasks:
            others.append(name)
            continue
        train, validation = _train_and_validation(splits)
        try:
            source = _build(name, root, train, task)
        except ValueError as error:
            raise _refusal(root, task, others) or error from error
        return DetectedSource(name, train, validation, source)
    raise _refusal(root, task, others) or ValueError(
        f"{root} holds no format that visionkit knows. Expected one of:\n{_KNOWN}"
    )


def _refusal(root: Path, task: str | None, others: list[str]) -> ValueError | None:
    """The error where there are formats, but for other tasks."""
    found = [name for name in others if name != "image_folder"]  # which any folder is
    if not found:
        return None
    known = ", ".join(name for name, (_, tasks) in _PROBES.items() if task in tasks)
    return ValueError(
        f"{root} holds {' and '.join(found)}, which is not for {task}. For {task} "
        f"visionkit reads: {known}."
    )


def _build(name: str, root: Path, options: dict, task: str | None) -> Source:
    takes = inspect.signature(source_class(name)).parameters
    if task is not None and "task" in takes:
        options = options | {"task": task}
    try:
        with warnings.catch_warnings():  # on empty classes; see `_check_classes`
            warnings.simplefilter("ignore", UserWarning)
            source = build_source(name, root=str(root), **options)
    except (ValueError, OSError) as error:
        known = f"\nExpected one of:\n{_KNOWN}" if name == "image_folder" else ""
        raise ValueError(f"{root} looks like {name}, but: {error}{known}") from error
    if task is not None and source.info.task != task:
        raise ValueError(f"{root} holds {source.info.task} data, not {task}.")
    if name == "image_folder":
        _check_classes(root, source)
    return source


def _check_classes(root: Path, source: Source) -> None:
    """Refuses folders that are named after anything but classes."""
    counts = source.class_counts().tolist()
    names = source.info.class_names
    empty = [name for name, count in zip(names, counts, strict=True) if not count]
    if len(empty) * 2 >= len(names):
        raise ValueError(
            f"{root} does not look like a folder per class: {', '.join(empty[:5])} "
            f"hold no images. Expected one of:\n{_KNOWN}"
        )


def _train_and_validation(splits: dict[str, dict]) -> tuple[dict, dict | None]:
    """Options of the two, of those by split; the test split is never touched."""
    first = next(iter(splits.values()))
    return splits.get("train", first), splits.get("validation")


# A probe tells the options of each split it finds, or None: another format.


def _records(root: Path, task) -> dict[str, dict] | None:
    if (root / "index.json").is_file():
        return {"all": {}}
    return _by_split({p.parent.name: p.parent.name for p in root.glob("*/index.json")})


def _tfds(root: Path, task) -> dict[str, dict] | None:
    from visionkit.data.sources.coco_json import read_json

    info = root / "dataset_info.json"
    if not info.is_file():
        return None
    content = read_json(info)
    splits = content.get("splits") if isinstance(content, dict) else None
    if not isinstance(splits, list) or not all(isinstance(s, dict) for s in splits):
        raise ValueError(f"{info} is damaged: it has no list `splits`.")
    return _by_split({str(s.get("name")): str(s.get("name")) for s in splits})


def _by_split(names: dict[str, str]) -> dict[str, dict] | None:
    """{"split": value} by the split that each name speaks of."""
    if not names:
        return None
    found: dict[str, dict] = {}
    for name, value in sorted(names.items()):  # "train" comes before "train_aug"
        found.setdefault(split_in(name) or name, {"split": value})
    return found


def _coco(root: Path, task) -> dict[str, dict] | None:
    places = (root.glob("*.json"), root.glob("annotations/*.json"))
    exports = root.glob("*/_annotations.coco.json")
    found = {}
    for path in sorted(path for place in (*places, exports) for path in place):
        if _is_coco(path):
            name = path.parent.name if path.name.startswith("_anno") else path.stem
            options = {"annotations": path.relative_to(root).as_posix()}
            found.setdefault(split_in(name) or name, options)
    return found or None


def _is_coco(path: Path) -> bool:
    """Whether a file has the words of boxes in COCO's format; it is not parsed."""
    foreign = ("captions_", "person_keypoints_", "panoptic_", "stuff_", "image_info_")
    if path.name.startswith(foreign):
        return False
    return all(_find_words(path, (b'"images"', b'"annotations"', b'"categories"')))


def _find_words(path: Path, words: tuple[bytes, ...]) -> list[bool]:
    """Whether each of the words is in a file."""
    if not path.is_file() or not path.stat().st_size:
        return [False]
    with (
        open(path, "rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text,
    ):
        return [text.find(word) >= 0 for word in words]


def _voc(root: Path, task) -> dict[str, dict] | None:
    from visionkit.data.sources import mask_listing
    from visionkit.data.sources.voc import find_splits

    if task == _MASKS:
        if not (root / "SegmentationClass").is_dir():
            return None
        lists = mask_listing.find_splits(root, "JPEGImages", "SegmentationClass")
        return _by_split({name: name for name in lists}) or {"all": {}}
    folders = [root / "Annotations", root / "annotations", root]
    splits = find_splits(root)
    if not any(any(folder.glob("*.xml")) for folder in folders) and not any(
        path.is_dir() for path in splits.values()
    ):
        return None
    return _by_split({name: name for name in splits}) or {"all": {}}


def _mask_folder(root: Path, task) -> dict[str, dict] | None:
    from visionkit.data.sources.detect_masks import find_masks

    found = find_masks(root) if task in (None, _MASKS) else None
    return None if found is None else _with_splits(*found)


def _instance_folder(root: Path, task) -> dict[str, dict] | None:
    from visionkit.data.sources.detect_instances import find_instances

    def is_nothing_else() -> bool:
        others = [_PROBES[name] for name in ("via", "coco", "voc", "yolo_txt")]
        found = any(task in tasks and probe(root, task) for probe, tasks in others)
        return task in _BOXES and not found

    found = find_instances(root, is_nothing_else)
    if found is None or (task == _MASKS and "divisor" in found[0]):  # it lacks classes
        return None
    return _with_splits(*found)


def _with_splits(options: dict, splits: list[str]) -> dict[str, dict]:
    by_split = _by_split({name: name for name in splits}) or {"all": {}}
    return {split: options | own for split, own in by_split.items()}


def _via(root: Path, task) -> dict[str, dict] | None:
    words = (b'"shape_attributes"', b'"_via_img_metadata"', b'"fid_list"')
    inner = [path for path in root.iterdir() if path.is_dir()]
    places = [path for path in inner if split_in(path.name) or path.name in _TEXTS]
    paths = [path for place in (root, *places) for path in sorted(place.glob("*.json"))]
    found = {}
    for path in paths[:_MANY]:
        if any(_find_words(path, words)):
            name = split_in(path.stem) or split_in(path.parent.name) or path.stem
            found.setdefault(name, {"annotations": path.relative_to(root).as_posix()})
    return found or None


def _yolo_txt(root: Path, task) -> dict[str, dict] | None:
    from visionkit.data.sources.yolo_config import find_config

    has_labels = any(
        any(root.glob(place)) for place in ("labels", "*/labels", "classes.txt")
    )
    has_yaml = any(
        b"names" in path.read_bytes()[: 2**20]
        for suffix in ("*.yaml", "*.yml")
        for path in root.glob(suffix)
        if path.is_file()
    )
    if not has_labels and not has_yaml:
        return None
    try:
        config = find_config(root)
    except FileNotFoundError:
        if has_yaml:
            raise
        return None
    return {split: {"split": split} for split in config.splits}


def _csv(root: Path, task) -> dict[str, dict] | None:
    from visionkit.data.sources.csv_table import read_table

    found: dict[str, dict] = {}
    for path in sorted([*root.glob("*.csv"), *root.glob("*.tsv")]):
        try:
            table = read_table(path)
        except ValueError:  # some other table
            continue
        options = {"annotations": path.name, **_table_images(root, table)}
        if table.split is not None:
            values = {row[table.split].strip().lower() for row in table.rows}
            for split in sorted({SPLIT_NAMES[v] for v in values if v in SPLIT_NAMES}):
                found.setdefault(split, options | {"split": split})
        else:
            found.setdefault(split_in(path.stem) or path.stem, options)
    return found or None


def _table_images(root: Path, table) -> dict:
    """`images`, where the files of a table do not begin at its own folder."""
    names = [row[table.image].strip() for row in table.rows[:5]]
    folders = [root, *sorted(path for path in root.iterdir() if path.is_dir())]
    for folder in folders:
        if any(name and (folder / name).is_file() for name in names):
            return {} if folder == root else {"images": folder.name}
    return {}


def _image_folder(root: Path, task) -> dict[str, dict] | None:
    from visionkit.data.sources.image_folder import find_splits

    if not any(path.is_dir() for path in root.iterdir()):
        return None
    return {s: {"split": s} for s in find_splits(root)} or {"all": {}}


_PROBES: dict[str, tuple[Callable[[Path, str | None], dict | None], tuple]] = {
    "records": (_records, TASKS),
    "tfds": (_tfds, TASKS),
    "instance_folder": (_instance_folder, (*_BOXES, _MASKS)),
    "mask_folder": (_mask_folder, (_MASKS,)),
    "via": (_via, (*_BOXES, _MASKS)),
    "coco": (_coco, (*_BOXES, _MASKS)),
    "voc": (_voc, ("detection", _MASKS)),
    "yolo_txt": (_yolo_txt, (*_BOXES, _MASKS)),
    "csv": (_csv, ("classification", "detection")),
    "image_folder": (_image_folder, ("classification",)),
}
"""Source -> (its probe, tasks); the most telling formats first."""
