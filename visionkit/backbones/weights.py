"""Weights from files, checked whole before the first is assigned."""

from __future__ import annotations

import contextlib
import io
import os
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NoReturn

import h5py
import keras
import numpy as np

from visionkit.backbones.names import flat_layers, stable_names

# Keras stores what it zips, so an archive that unpacks to far more is no weights file.
_MAX_EXPANSION = 100

_UNREADABLE = (
    OSError,
    KeyError,
    EOFError,
    RuntimeError,
    zipfile.BadZipFile,
    zlib.error,
)

Layers = dict[str, Mapping]  # layer name -> {"0": array-like with a shape, "1": ...}


def refuse_imagenet(name: str) -> NoReturn:
    """Raises the `ValueError` for a backbone without published Keras weights."""
    raise ValueError(
        f"There are no ImageNet weights for {name} that Keras could fetch. Use "
        "`weights=None` or the path of a weights file."
    )


def layer_variables(model: keras.Model) -> Layers:
    """The variables of each layer that has some, as Keras would save them, in order."""
    layers = {}
    names = stable_names(model)
    for layer in flat_layers(model):
        layer.save_own_variables(store := {})
        if store:
            layers[names[layer.name]] = store
    return layers


def load_file(
    backbone: keras.Model,
    path: str | os.PathLike,
    order: list[str],
    convert: Callable[[Layers], Layers] | None = None,
) -> None:
    """Loads a weights file into a backbone: all of it, or nothing.

    Args:
        backbone: A functional model without nested models.
        path: A `.weights.h5`, `.keras` or legacy `.h5` file. Layers are matched by
            name; in a legacy file with other names, by order as Keras does.
        order: Names of the layers with weights in the order of the original network.
        convert: Applied to the file's weights first.

    Raises:
        FileNotFoundError: There is no file.
        ValueError: It is damaged, refers to other files, or fits another network.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"There is no weights file at {path}. `weights` must be None, 'imagenet' "
            "or the path of a .weights.h5, .keras or .h5 file."
        )
    try:
        with _open(path) as file:
            check_datasets(file, path)
            stored = _stored_layers(file, path, order)
            load_layers(backbone, convert(stored) if convert else stored, str(path))
    except _UNREADABLE as error:
        raise ValueError(
            f"{path} cannot be read ({error}). It is truncated, damaged or no weights "
            "file of Keras (.weights.h5, .keras, .h5): copy or fetch it again."
        ) from error


def load_layers(backbone: keras.Model, stored: Layers, origin: str) -> None:
    """Checks the weights of every layer, then assigns them.

    Args:
        backbone: A functional model.
        stored: Weights by layer, shapes and values read when needed. The first kernel
            may have another number of input channels: it is averaged over them and
            rescaled.
        origin: Where they come from, for messages.

    Raises:
        ValueError: Layers, shapes or values are not right; nothing was assigned.
    """
    expected = layer_variables(backbone)
    entry = _entry_layers(backbone)
    channels = backbone.input.shape[-1]
    problems = [f"{name}: missing" for name in expected if name not in stored]
    problems += [f"{name}: unknown" for name in stored if name not in expected]
    for name in filter(stored.__contains__, expected):
        have = {k: tuple(v.shape) for k, v in stored[name].items()}
        want = {k: tuple(v.shape) for k, v in expected[name].items()}
        if have.keys() != want.keys() or any(
            not _fits(have[k], want[k], channels if name in entry else None)
            for k in want
        ):
            problems.append(
                f"{name}: expected {list(want.values())}, has {list(have.values())}"
            )
    if problems:
        rest = f"\n  and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise ValueError(
            f"{origin} does not fit {backbone.name} (without its top); nothing was "
            "loaded. First differences:\n  " + "\n  ".join(problems[:5]) + rest
        )
    staged = {
        name: {k: _read(stored[name][k], v.shape) for k, v in variables.items()}
        for name, variables in expected.items()
    }
    for name, values in staged.items():
        if not all(np.isfinite(value).all() for value in values.values()):
            raise ValueError(
                f"{origin} holds values that are not finite, in layer {name}; nothing "
                "was loaded."
            )
    for name, values in staged.items():
        backbone.get_layer(name).load_own_variables(values)


def _entry_layers(backbone: keras.Model) -> set[str]:
    """The layers that see the image's channels: all up to the first convolution."""
    names = set()
    for layer in backbone.layers:
        names.add(layer.name)
        if hasattr(layer, "kernel_size"):
            break
    return names


def _channel_axis(shape: tuple[int, ...]) -> int:
    return 2 if len(shape) == 4 else len(shape) - 1


def _fits(have: tuple, want: tuple, channels: int | None) -> bool:
    """Whether shapes agree, but for the image's channels where those are given."""
    if have == want or len(have) != len(want) or channels is None or not want:
        return have == want
    axis = _channel_axis(want)
    rest = have[:axis] == want[:axis] and have[axis + 1 :] == want[axis + 1 :]
    return rest and want[axis] == channels


def _read(value, shape: tuple[int, ...]) -> np.ndarray:
    """The array, averaged and rescaled where `shape` has another channel count."""
    array = np.asarray(value)
    if array.shape == tuple(shape):
        return array
    axis = _channel_axis(shape)
    # A kernel's response is a sum over channels and stays the same on grey images; a
    # statistic is per channel.
    scale = array.shape[axis] / shape[axis] if len(shape) == 4 else 1.0
    return np.broadcast_to(array.mean(axis, keepdims=True) * scale, shape)


@contextlib.contextmanager
def _open(path: Path) -> Iterator[h5py.File]:
    """The HDF5 file, or the one inside a `.keras` archive."""
    if not zipfile.is_zipfile(path):
        with h5py.File(path, "r") as file:
            yield file
        return
    with zipfile.ZipFile(path) as archive:
        member = archive.getinfo("model.weights.h5")
        if member.file_size > _MAX_EXPANSION * path.stat().st_size:
            raise zipfile.BadZipFile(f"it would unpack to {member.file_size} bytes")
        content = io.BytesIO(archive.read(member))
    with h5py.File(content, "r") as file:
        yield file


def check_datasets(file: h5py.File, path: Path) -> None:
    """Refuses what could make HDF5 read another file, and what is no number."""
    seen, groups = {file}, [file]
    while groups:
        group = groups.pop()
        for key in group:
            link = group.get(key, getlink=True)
            fault = None
            if not isinstance(link, h5py.HardLink):
                fault = type(link).__name__
            elif isinstance(child := group[key], h5py.Group):
                if child in seen:
                    fault = "group inside itself"
                seen.add(child)
                groups.append(child)
            elif not isinstance(child, h5py.Dataset) or child.dtype.kind not in "fiu":
                fault = f"{child.dtype} object"
            elif child.external or child.is_virtual:
                fault = "external or virtual dataset"
            if fault:
                raise ValueError(
                    f"{path} is refused: {group.name}/{key} is an HDF5 {fault}. "
                    "Weights are numbers inside the file itself."
                )


def _stored_layers(file: h5py.File, path: Path, order: list[str]) -> Layers:
    """The datasets of each layer that has some, without reading them."""
    root = file.get("model_weights", file)
    if "layer_names" in root.attrs:
        return _legacy_layers(root, order)
    layers: Layers = {}
    groups = [file["layers"]]
    while groups:
        for key, child in groups.pop().items():
            if key != "vars":
                groups += [child] if isinstance(child, h5py.Group) else []
            elif len(child):
                name = child.attrs.get("name")
                if name is None or name in layers:
                    raise ValueError(
                        f"{path} {'repeats' if name else 'lacks'} layer names "
                        f"({child.name}: {name!r}), so that weights cannot be matched: "
                        "load it into its own model and save that with this Keras."
                    )
                layers[name] = child
    return layers


def _legacy_layers(root: h5py.Group, order: list[str]) -> Layers:
    layers: Layers = {}
    for name in root.attrs["layer_names"]:
        names = root[name].attrs["weight_names"]
        if len(names):
            datasets = [root[name][weight] for weight in names]
            layers[_text(name)] = {str(i): d for i, d in enumerate(datasets)}
    if layers.keys() != set(order) and len(layers) == len(order):
        return dict(zip(order, layers.values(), strict=True))
    return layers


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
