"""What a `.keras` file may hold, checked before Keras builds anything from it."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import math
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import h5py

from visionkit.backbones.weights import check_datasets

_MEMBERS = {"config.json", "metadata.json", "model.weights.h5"}

# Keras stores what it zips, and writes HDF5 without compression: what unpacks to far
# more than its bytes was made to fill the memory.
_MAX_EXPANSION = 100
_MAX_CONFIG = 2**25
_SMALL = 4096  # bytes: below it no expansion matters

# Parts of Keras that models are made of. The others read files, fetch and configure,
# and a config may name any function as, say, an activation.
_KERAS_PARTS = {
    *("activations", "constraints", "dtype_policies", "initializers", "layers"),
    *("losses", "metrics", "models", "ops", "optimizers", "quantizers", "random"),
    *("regularizers", "src"),
}
# Layers that run code or load programs of their own.
_CODE = {
    *("Lambda", "__lambda__", "TFSMLayer", "TorchModuleWrapper", "JaxLayer"),
    "FlaxLayer",
}
_BAD_ZIP = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    KeyError,
    NotImplementedError,
    OSError,
    OverflowError,
    RuntimeError,  # an encrypted member, or JSON without end
    ValueError,
)
_BAD_HDF5 = (KeyError, OSError, RuntimeError)


@dataclasses.dataclass(frozen=True)
class Archive:
    """What a `.keras` file says of itself.

    Attributes:
        modules: Those of visionkit that its classes are in.
        values: Numbers in its weights.
    """

    modules: frozenset[str]
    values: int


def inspect_archive(file: Path) -> Archive:
    """Read a `.keras` file without building anything.

    Raises:
        ValueError: It is damaged, would unpack to far more than it holds, names code
            that is not Keras' or visionkit's, or refers to other files.
    """
    with _reading(file, _BAD_ZIP), zipfile.ZipFile(file) as archive:
        members = archive.infolist()
    _check_members(members, file)
    with _reading(file, _BAD_ZIP), zipfile.ZipFile(file) as archive:
        config = json.loads(archive.read("config.json"))
    modules = _check_code(config, file)
    with _reading(file, _BAD_ZIP), zipfile.ZipFile(file) as archive:
        weights = io.BytesIO(archive.read("model.weights.h5"))
    with _reading(file, _BAD_HDF5), h5py.File(weights, "r") as stored:
        check_datasets(stored, file)
        return Archive(modules, _count_values(stored, file))


@contextlib.contextmanager
def _reading(file: Path, errors: tuple[type[Exception], ...]):
    """Within the block, `errors` mean that the file is damaged."""
    try:
        yield
    except errors as error:
        raise ValueError(
            f"{file} is not a readable .keras file ({error}). It is damaged or was "
            "not written by Keras 3; take an older checkpoint or train again."
        ) from error


def _check_members(members: list[zipfile.ZipInfo], file: Path) -> None:
    names = sorted(member.filename for member in members)
    if unexpected := sorted(set(names) - _MEMBERS):
        raise ValueError(
            f"{file} holds unexpected members: {', '.join(unexpected)}. "
            "A .keras file has config.json, metadata.json, model.weights.h5."
        )
    if len(set(names)) < len(names):
        raise ValueError(f"{file} is refused: a member is there twice: {names}.")
    for member in members:
        limit = max(_MAX_EXPANSION * member.compress_size, _SMALL)
        if member.filename != "model.weights.h5":
            limit = min(limit, _MAX_CONFIG)
        if member.file_size > limit:
            raise ValueError(
                f"{file} is refused: {member.filename} would unpack to "
                f"{member.file_size} bytes. At most {limit} are expected."
            )


def _check_code(config, file: Path) -> frozenset[str]:
    """The modules of visionkit that a config names; refuses code of others."""
    modules, foreign, others = set(), set(), set()
    for node in _dicts_in(config):
        module, name = node.get("module"), node.get("class_name")
        if code := _CODE.intersection(
            n for n in (name, node.get("registered_name")) if isinstance(n, str)
        ):
            raise ValueError(
                f"{file} has a {code.pop()} layer, which runs code of its own. It is "
                "refused. If you trust the file, use `keras.saving.load_model`."
            )
        if not isinstance(module, str):
            continue
        root = module.partition(".")[0]
        if root == "visionkit":
            modules.add(module)
        elif root == "keras":
            others |= _no_part_of_models(module, node)
        elif module != "builtins":  # Keras looks those up among its own losses...
            foreign.add(module)
    for kind, found in (
        ("code outside Keras and visionkit", foreign),
        ("what no Keras model is made of", others),
    ):
        if found:
            raise ValueError(
                f"{file} names {kind}: {', '.join(sorted(found))}. It is refused. If "
                "you trust the file, import that code yourself and use "
                "`keras.saving.load_model`."
            )
    return frozenset(modules)


def _dicts_in(config) -> Iterator[dict]:
    """All dicts in a JSON value; no recursion, so that no depth matters."""
    nodes = [config]
    while nodes:
        node = nodes.pop()
        if isinstance(node, dict):
            yield node
            nodes += node.values()
        elif isinstance(node, list):
            nodes += node


def _no_part_of_models(module: str, node: dict) -> set[str]:
    """The name of a class or function of Keras where it is not for models."""
    name = node.get("config" if node.get("class_name") == "function" else "class_name")
    name = f"{module}.{name}"  # either may have points
    _, *parts = name.split(".")
    return set() if len(parts) == 1 or parts[0] in _KERAS_PARTS else {name}


def _count_values(stored: h5py.File, file: Path) -> int:
    """Numbers in all datasets, none of which declares more than it stores."""
    count = 0

    def add(name: str, item) -> None:
        nonlocal count
        if not isinstance(item, h5py.Dataset):
            return
        values, size = math.prod(item.shape), item.id.get_storage_size()
        if values * item.dtype.itemsize > max(_MAX_EXPANSION * size, _SMALL):
            raise ValueError(
                f"{file} is refused: {name} declares the shape {item.shape} and "
                f"stores {size} bytes."
            )
        count += values

    stored.visititems(add)
    return count
