"""The data that a run was trained on, file by file, so that it can be resumed on it."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
from pathlib import Path

import numpy as np

from visionkit.data.fingerprints import parallel_map
from visionkit.data.sources.base import Source
from visionkit.training.files import atomic_write_bytes
from visionkit.training.recipe_files import RecipeError

MANIFEST_NAME = "data_manifest.json.gz"

FORCE_HINT = (
    "Restore what it was, start a new run, or add --force (in Python `force=True`) to "
    "go on all the same."
)

_NAMES_SHOWN = 5


def keep_manifest(
    folder: Path,
    sources: dict[str, Source],
    *,
    resume: bool,
    force: bool = False,
    write: bool = True,
) -> set[str]:
    """Write the manifest of a run's data, or compare it with that of the run's start.

    Args:
        folder: The run folder.
        sources: By the name of the split.
        resume: Whether the run was begun earlier.
        force: Go on with other data all the same; their manifest is the run's then.
        write: Whether this process writes; of several one does.

    Returns:
        The names of the splits that are not what they were.

    Raises:
        RecipeError: Classes differ, or other things do and `force` is not set; names
            them.
    """
    path = folder / MANIFEST_NAME
    new = {name: describe_source(source) for name, source in sources.items()}
    old = {}
    if resume and path.is_file():
        old = json.loads(gzip.decompress(path.read_bytes()))
    found = {name: differences(old[name], new[name]) for name in new if name in old}
    changed = {name for name, lines in found.items() if lines}
    classes = any(old[name]["classes"] != new[name]["classes"] for name in changed)
    if changed and (classes or not force):
        lines = [f"  {name}: {line}" for name in changed for line in found[name]]
        hint = "Other classes need a new run." if classes else FORCE_HINT
        raise RecipeError(
            f"The data are not those that {folder} was started with:\n"
            + "\n".join(sorted(lines))
            + f"\n{hint}"
        )
    if new != old and write:
        text = json.dumps(new)
        atomic_write_bytes(path, gzip.compress(text.encode(), 5, mtime=0))
    return changed


def describe_source(source: Source) -> dict:
    """A source's classes, files and annotations, JSON-ready.

    What is in an image is not read: a file of another size is another one, a file of
    the same size is not.

    Args:
        source: Its `origin` is described.

    Returns:
        "classes", names; "sizes", bytes by name of each image and each file of a mask
        (-1: unreadable), without the folder that all are in; "annotations", a hash of
        all labels, boxes and masks that are not files.
    """
    source = source.origin
    found = parallel_map(lambda index: _files_of(source, index), range(len(source)))
    sizes = dict(pair for pairs in found for pair in pairs)
    # The data may lie elsewhere by now: names begin where they differ. They need not be
    # paths, and the last separator is looked for.
    start = os.path.commonprefix(list(sizes)).rfind(os.sep) + 1  # noqa: RUF071
    return {
        "classes": list(source.info.class_names),
        "sizes": {name[start:]: size for name, size in sizes.items()},
        "annotations": _annotations(source),
    }


def differences(old: dict, new: dict) -> list[str]:
    """What differs between two results of `describe_source`, a line each."""
    lines = []
    if old["classes"] != new["classes"]:
        lines.append(f"the classes were {old['classes']}, now {new['classes']}")
    before, after = old["sizes"], new["sizes"]
    both = before.keys() & after.keys()
    kinds = {
        "new": after.keys() - before.keys(),
        "gone": before.keys() - after.keys(),
        "of another size": {name for name in both if before[name] != after[name]},
    }
    lines += [f"{_count(names)} {kind}" for kind, names in kinds.items() if names]
    if not lines and old["annotations"] != new["annotations"]:
        lines.append("the annotations are others")
    return lines


def _count(names: set[str]) -> str:
    shown = ", ".join(sorted(names)[:_NAMES_SHOWN])
    more = ", ..." if len(names) > _NAMES_SHOWN else ""
    return f"{len(names)} files ({shown}{more})"


def _files_of(source: Source, index: int) -> list[tuple[str, int]]:
    """(name, bytes) of the files of a record; of what lies in others, its place."""
    record = source.record(index)
    paths = [record[key] for key in ("path", "mask_path") if key in record]
    inside = [key for key in ("encoded", "mask_encoded") if key in record]
    return [(os.fsdecode(path), _size(path)) for path in paths] + [
        (f"{key} {index}", len(record[key])) for key in inside
    ]


def _size(path: bytes) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return -1


def _annotations(source: Source) -> str:
    digest = hashlib.sha256()
    columns = dict(source.objects())
    if (labels := source.labels()) is not None:
        columns["label"] = labels
    for name, column in sorted(columns.items()):
        digest.update(name.encode())
        if column.dtype == object:  # RLE strings
            digest.update(b"\n".join(column.tolist()))
        else:
            digest.update(np.ascontiguousarray(column).tobytes())
    return digest.hexdigest()
