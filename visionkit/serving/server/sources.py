"""Which models and versions a server is asked to serve."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

from visionkit.serving.publish import versions

GRAPH_FILE = "saved_model.pb"


@dataclasses.dataclass(frozen=True)
class ModelSource:
    """Where a model's versions lie and which of them are wanted.

    Attributes:
        name: What clients call it.
        base: Its numeric children are the versions; or itself one, with `pinned`.
        latest: How many of the newest are wanted; None for all of them.
        specific: If not empty, exactly these numbers.
        labels: Label -> number of the version.
        pinned: `base` is a version itself, of this number.
    """

    name: str
    base: Path
    latest: int | None = 1
    specific: frozenset[int] = frozenset()
    labels: dict[str, int] = dataclasses.field(default_factory=dict)
    pinned: int | None = None

    def wanted(self) -> dict[int, Path]:
        """Number -> folder of the versions that are there and wanted, ascending.

        Raises:
            OSError: The folder cannot be read now, which says nothing of its versions.
        """
        if self.pinned is not None:
            return {self.pinned: self.base}
        try:
            found = versions(self.base)
        except (FileNotFoundError, NotADirectoryError):  # gone, or not there yet
            return {}
        if self.specific:
            return {n: folder for n, folder in found.items() if n in self.specific}
        return dict(list(found.items())[-self.latest :]) if self.latest else found


def find_models(path: Path) -> dict[str, ModelSource]:
    """Name -> source of what lies in a folder.

    Args:
        path: A version (holds `saved_model.pb`), a model (its children are numbers),
            or a folder of models.

    Raises:
        FileNotFoundError: It is none of them.
    """
    path = path.resolve()
    if (path / GRAPH_FILE).is_file():
        number = int(path.name) if path.name.isdecimal() else 1
        name = path.parent.name if path.name.isdecimal() else path.name
        return {name: ModelSource(name, path, pinned=number)}
    if not path.is_dir():
        raise FileNotFoundError(f"There is no folder {path}")
    bases = [path] if versions(path) else sorted(p for p in path.iterdir() if _model(p))
    if not bases:
        raise FileNotFoundError(
            f"No model to serve in {path}. Expected {path}/<model>/<number>/"
            f"{GRAPH_FILE}, as `export` writes it."
        )
    return {base.name: ModelSource(base.name, base) for base in bases}


def _model(path: Path) -> bool:
    if not path.is_dir() or path.name.startswith("."):
        return False
    try:
        return bool(versions(path))
    except OSError:  # perhaps one that is served: it must not look as if it were gone
        return True


def read_config(config) -> dict[str, ModelSource]:
    """Name -> source of what a `ModelServerConfig` lists.

    Raises:
        ValueError: It lists a model twice, or lacks a name, folder or number.
    """
    sources = {}
    for entry in config.model_config_list.config:
        if not re.fullmatch(r"[^/:]+", entry.name):
            raise ValueError(f"A model's name must be given, without / and :: {entry}")
        if entry.name in sources:
            raise ValueError(f"The model {entry.name!r} is listed twice")
        if not entry.base_path:
            raise ValueError(f"The model {entry.name!r} has no base_path")
        policy = entry.model_version_policy
        kind = policy.WhichOneof("policy_choice")
        if kind == "specific" and not policy.specific.versions:
            raise ValueError(f"The policy of {entry.name!r} names no version")
        sources[entry.name] = ModelSource(
            entry.name,
            Path(entry.base_path),
            latest=None if kind == "all" else policy.latest.num_versions or 1,
            specific=frozenset(policy.specific.versions),
            labels=dict(entry.version_labels),
        )
    return sources


def read_config_file(path: Path) -> dict[str, ModelSource]:
    """`read_config` of a file in protobuf's text format, TensorFlow Serving's."""
    from google.protobuf import text_format
    from tensorflow_serving.config import model_server_config_pb2

    config = model_server_config_pb2.ModelServerConfig()
    try:
        text_format.Parse(path.read_text("utf-8"), config)
    except text_format.ParseError as error:
        raise ValueError(f"{path} is no ModelServerConfig: {error}") from error
    return read_config(config)
