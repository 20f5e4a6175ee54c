"""What the suite is compared with: imported where it is there, missed aloud where not.

They come with the extra `bench`; no benchmark needs all of them.
"""

from __future__ import annotations

import importlib
from types import ModuleType


class MissingPeer(Exception):
    """A peer that cannot be used here, and why."""


def load(name: str) -> ModuleType:
    """The module of a peer.

    Raises:
        MissingPeer: It cannot be imported.
    """
    try:
        return importlib.import_module(name)
    except (ImportError, OSError, RuntimeError) as error:  # also a broken binary
        reason = (str(error).splitlines() or [""])[0]
        raise MissingPeer(
            f"`import {name}` fails: {type(error).__name__}: {reason}. "
            "The peers come by: pip install -e '.[bench]'"
        ) from error


def load_torch() -> ModuleType:
    """PyTorch, on the threads that TensorFlow has."""
    torch = load("torch")
    torch.set_num_threads(2)
    return torch


_schemas: list = []  # a library's operators go when it does


def load_torchvision_models() -> ModuleType:
    """`torchvision.models`, even where torchvision's own kernels cannot be loaded.

    The package index has torchvision for CUDA only, which a PyTorch for CPUs cannot
    load. Its networks need none of its kernels, but the import asks for their names.
    """
    torch = load_torch()
    try:
        return load("torchvision.models")
    except MissingPeer as error:
        if "torchvision::nms" not in str(error):
            raise
    import sys

    for module in [name for name in sys.modules if name.startswith("torchvision")]:
        del sys.modules[module]
    library = torch.library.Library("torchvision", "DEF")
    for operator in ("nms", "qnms"):
        library.define(f"{operator}(Tensor dets, Tensor scores, float iou) -> Tensor")
    _schemas.append(library)
    return load("torchvision.models")
