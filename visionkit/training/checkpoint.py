"""Checkpoints that no crash can spoil: NumPy arrays and JSON state, in generations.

Neither TensorFlow nor Keras is imported here.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import re
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from visionkit.training.files import (
    HashingWriter,
    atomic_replace,
    atomic_write_bytes,
    atomic_write_json,
    atomic_write_text,
    remove_temporary_files,
)

__all__ = [
    "Checkpoint",
    "CheckpointError",
    "CheckpointStore",
    "NonFiniteError",
    "atomic_replace",
    "atomic_write_bytes",
    "atomic_write_json",
    "atomic_write_text",
    "remove_temporary_files",
]

_FORMAT = 1
_GENERATION = re.compile(r"checkpoint-(\d+)-(\d+)\.json")
_META = "meta.json"
_NAMES_SHOWN = 5

# What reading raises where a file is damaged, or is not what its name says.
_UNUSABLE = (
    AttributeError,
    EOFError,
    KeyError,
    NotImplementedError,
    OSError,
    RecursionError,
    TypeError,
    ValueError,
    struct.error,
    zipfile.BadZipFile,
)


class NonFiniteError(ValueError):
    """Values that are NaN or infinite, which no checkpoint may hold."""


class CheckpointError(RuntimeError):
    """There are checkpoints, and none of them can be used."""


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """One generation as `CheckpointStore.load` found it.

    Attributes:
        step: Training steps done when it was saved.
        arrays: Name -> array.
        state: What else was saved, JSON types.
        skipped: Newer generations that could not be used, each with the reason.
    """

    step: int
    arrays: dict[str, np.ndarray]
    state: dict[str, Any]
    skipped: list[str] = dataclasses.field(default_factory=list)


class CheckpointStore:
    """Generations of (arrays, state) in a folder, newest by step.

    A generation is `checkpoint-<step>-<n>.npz`, and `checkpoint-<step>-<n>.json` with
    its size and sha256, written last: without it the generation does not exist.

    Args:
        folder: Made when missing. Temporary files of a killed process are removed, so
            one process at a time may write here.
        keep: Generations kept, at least 1.
        writable: Whether `save` is allowed; without it nothing in the folder changes.
    """

    def __init__(
        self, folder: str | os.PathLike, keep: int = 3, *, writable: bool = True
    ):
        if keep < 1:
            raise ValueError(f"`keep` must be at least 1. Received: keep={keep}")
        self.folder = Path(folder)
        self.keep = keep
        self.writable = writable
        if writable:
            self.folder.mkdir(parents=True, exist_ok=True)
            remove_temporary_files(self.folder)

    def latest(self) -> Path | None:
        """The newest generation's data file, unread; None when there is none."""
        generations = self._generations()
        return self._path(generations[0], ".npz") if generations else None

    def save(
        self, step: int, arrays: dict[str, np.ndarray], state: dict[str, Any]
    ) -> Path:
        """Commit a generation, then drop those beyond `keep` and those of later steps.

        Args:
            step: Training steps done. Saving a step again replaces it; generations of
                later steps belong to a past that was abandoned, and go.
            arrays: Name -> array of numbers or booleans, bfloat16 included.
            state: JSON types.

        Returns:
            The data file.

        Raises:
            NonFiniteError: An array holds NaN or infinity; nothing is written.
            TypeError: An array of objects or strings, or a state that is not JSON.
            OSError: The disk is full or the folder cannot be written; earlier
                generations are intact.
        """
        arrays = {name: np.asarray(array) for name, array in arrays.items()}
        _check_saveable(arrays)
        numbers = [n for s, n in self._generations() if s == step]
        generation = (step, max(numbers, default=-1) + 1)
        # NumPy's format knows no bfloat16 (it comes back as raw bytes): such arrays are
        # stored as unsigned integers of their width beside the name of their dtype.
        dtypes = {n: a.dtype.name for n, a in arrays.items() if a.dtype.kind == "V"}
        meta = json.dumps({"state": state, "dtypes": dtypes}).encode()
        path = self._path(generation, ".npz")
        size = len(meta) + sum(array.nbytes for array in arrays.values())
        with (
            atomic_replace(path, size=size) as temporary,
            HashingWriter(temporary) as file,
            zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as npz,
        ):
            npz.writestr(zipfile.ZipInfo(_META), meta)
            for name, array in arrays.items():
                _write_array(npz, name, array)
        manifest = {
            "format": _FORMAT,
            "step": step,
            "bytes": file.size,
            "sha256": file.sha256.hexdigest(),
        }
        atomic_write_json(self._path(generation, ".json"), manifest)
        self._prune(step)
        return path

    def load(self) -> Checkpoint | None:
        """The newest generation whose checksum holds and whose values are finite.

        Returns:
            The checkpoint, with the newer ones that were passed over; None where no
            generation was ever committed.

        Raises:
            CheckpointError: There are generations, and none is usable.
        """
        skipped: list[str] = []
        for generation in self._generations():
            try:
                checkpoint = self._read(generation)
            except _UNUSABLE as e:
                reason = f"{type(e).__name__}: {e}"
                skipped.append(f"{self._path(generation, '.npz').name}: {reason}")
            else:
                return dataclasses.replace(checkpoint, skipped=skipped)
        if skipped:
            raise CheckpointError(
                f"No checkpoint in {str(self.folder)!r} can be used:\n  "
                + "\n  ".join(skipped)
                + "\nRestore the folder from a copy, or start a new run elsewhere."
            )
        return None

    def _read(self, generation: tuple[int, int]) -> Checkpoint:
        manifest = json.loads(self._path(generation, ".json").read_bytes())
        if manifest["format"] != _FORMAT:
            raise ValueError(
                f"format {manifest['format']} is not known to this version, which "
                f"reads format {_FORMAT}"
            )
        path = self._path(generation, ".npz")
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size != manifest["bytes"]:
                raise ValueError(f"{size} bytes long instead of {manifest['bytes']}")
            if hashlib.file_digest(file, "sha256").hexdigest() != manifest["sha256"]:
                raise ValueError("the sha256 is not the one of the manifest")
        with zipfile.ZipFile(path) as npz:
            meta = json.loads(npz.read(_META))
            members = [info for info in npz.infolist() if info.filename != _META]
            arrays = {m.filename[: -len(".npy")]: _read_array(npz, m) for m in members}
        for name, dtype in meta["dtypes"].items():
            arrays[name] = arrays[name].view(_extension_dtype(dtype))
        _check_finite(arrays)
        return Checkpoint(generation[0], arrays, meta["state"])

    def _generations(self) -> list[tuple[int, int]]:
        """(step, n) of the committed generations, newest first; times play no part."""
        if not self.folder.is_dir():  # a reader may come before the writer
            return []
        names = map(_GENERATION.fullmatch, os.listdir(self.folder))
        return sorted(((int(m[1]), int(m[2])) for m in names if m), reverse=True)

    def _path(self, generation: tuple[int, int], suffix: str) -> Path:
        step, n = generation
        return self.folder / f"checkpoint-{step:010d}-{n}{suffix}"

    def _prune(self, step: int) -> None:
        kept: dict[int, str] = {}  # by step: of two of one step, the later
        for generation in self._generations():
            if generation[0] <= step and len(kept) < self.keep:
                kept.setdefault(generation[0], self._path(generation, "").name)
        # Manifests first: there must never be one without its data.
        for suffix in (".json", ".npz"):
            for path in self.folder.glob(f"checkpoint-*{suffix}"):
                if path.stem not in kept.values():
                    path.unlink()


def _write_array(npz: zipfile.ZipFile, name: str, array: np.ndarray) -> None:
    if array.dtype.kind == "V":
        array = array.view(f"u{array.dtype.itemsize}")
    with npz.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
        np.lib.format.write_array(member, array, allow_pickle=False)


def _read_array(npz: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    """A member's array. One that needs pickle, or more bytes than it has, is refused.

    NumPy allocates by the header before it reads the numbers, so that comes first.
    """
    with npz.open(member) as file:
        version = np.lib.format.read_magic(file)
        if version != (1, 0):
            raise ValueError(f"{member.filename} is of version {version}, not (1, 0)")
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        size = file.tell() + math.prod(shape) * dtype.itemsize
    stored = member.compress_type == zipfile.ZIP_STORED
    if dtype.hasobject or not stored or size != member.file_size:
        raise ValueError(
            f"{member.filename} is refused: {shape} of {dtype} in {member.file_size} "
            f"bytes{'' if stored else ', compressed'}"
        )
    with npz.open(member) as file:
        return np.lib.format.read_array(file, allow_pickle=False)


def _extension_dtype(name: str) -> np.dtype:
    import ml_dtypes  # comes with TensorFlow, JAX and Keras

    return np.dtype(getattr(ml_dtypes, name))


def _check_saveable(arrays: dict[str, np.ndarray]) -> None:
    """Raise where an array is not of numbers, or not finite."""
    for name, array in arrays.items():
        if array.dtype.kind in "OSUMm" or array.dtype.names is not None:
            raise TypeError(
                "A checkpoint holds arrays of numbers and booleans. "
                f"Received: {name!r} of dtype {array.dtype}"
            )
    _check_finite(arrays)


def _check_finite(arrays: dict[str, np.ndarray]) -> None:
    # Kind "V" are the floats of ml_dtypes, which bring their own `isfinite`.
    bad = [
        name
        for name, array in arrays.items()
        if array.dtype.kind in "fcV" and not np.isfinite(array).all()
    ]
    if bad:
        more = f" and {len(bad) - _NAMES_SHOWN} more" if len(bad) > _NAMES_SHOWN else ""
        raise NonFiniteError(
            f"NaN or infinity in {', '.join(bad[:_NAMES_SHOWN])}{more}"
        )
