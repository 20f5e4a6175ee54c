"""What an operator needs beside the models to run the official server image."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import yaml

from visionkit.serving.kit_configs import MONITORING, batching_config, ready_script
from visionkit.serving.kit_manifests import Machine, compose, kubernetes
from visionkit.serving.publish import versions
from visionkit.serving.server.sources import find_models

IMAGE = "tensorflow/serving:2.20.0"
"""Official image; a version and not `latest`, so that a restart changes nothing."""

SERVER_MEMORY = 1 << 30
"""Bytes for the server itself and the requests in work, beside the models."""

_MEMORY_STEP = 256 << 20  # a limit that a few bytes more of a model leave alone

# TF Serving reckons with 1.2 times the files; two versions are served, and a third is
# loaded before the oldest goes.
_MEMORY_FACTOR = 3 * 1.2

# The other answers are as large as the model makes them. Semantic segmentation pads to
# the largest image that ran with it.
_TASKS_OF_ONE_SIZE = {"classification", "detection", "instance_segmentation"}


@dataclasses.dataclass(frozen=True)
class Deployed:
    """One model as it is to be served.

    Attributes:
        name: What clients call it.
        base: Its folder, whose numeric children are versions.
        labels: Label -> version; these versions are served, and no other.
    """

    name: str
    base: Path
    labels: dict[str, int]

    @property
    def size(self) -> int:
        """Bytes of the largest served version."""
        return max(_folder_bytes(folder) for folder in self._served())

    @property
    def answers_have_one_size(self) -> bool:
        """Whether an image's answer is as large with other images as without.

        False for a model that does not say what it is.
        """
        return all(_task(folder) in _TASKS_OF_ONE_SIZE for folder in self._served())

    def _served(self) -> list[Path]:
        found = versions(self.base)
        return [found[number] for number in set(self.labels.values())]


def _folder_bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _task(version: Path) -> str | None:
    """What `model.json` calls the task; None without one."""
    try:
        return json.loads((version / "model.json").read_text("utf-8")).get("task")
    except (OSError, ValueError):
        return None


def choose_versions(
    models: Iterable[str | os.PathLike],
    *,
    canary: bool = False,
    replaces: str | os.PathLike | None = None,
) -> list[Deployed]:
    """The models in some folders, with the version that each label is to point to.

    Args:
        models: Folders of models, or of one model's versions: its two newest are
            served. Or one or two versions of a model, the one to be the newer last.
        canary: Whether the newer version is only the "canary", and the older one
            "stable"; else the newer is "stable" and the older "previous". Both are
            loaded, because a label can only move to a version that is.
        replaces: The `models.config` in use, if there is one. Of a model that it lists
            only a version that is "stable" or "canary" there becomes "stable", unless
            the versions are named: after a rollback the newest but one is a bad one.

    Raises:
        FileNotFoundError: A folder holds no model.
        ValueError: Two models have one name, or a name that a URL or a shell would read
            otherwise; or more than two versions; or a version would become "stable"
            that the file in use does not call so.
    """
    in_use = _labels_in_use(Path(replaces)) if replaces is not None else {}
    named: dict[str, list[tuple[Path, int | None]]] = {}
    for folder in models:
        for name, source in find_models(Path(folder)).items():
            base = source.base if source.pinned is None else source.base.parent
            if source.pinned not in (None, *versions(base)):
                raise ValueError(
                    "A version's folder must be a number, as `export` writes it. "
                    f"Received: {source.base}"
                )
            named.setdefault(name, []).append((base, source.pinned))
    chosen = [_deployed(name, found, canary) for name, found in named.items()]
    for model in chosen:
        if named[model.name][0][1] is None and model.name in in_use:
            _check_stable(model, in_use[model.name], Path(replaces))
    return chosen


_LABEL = re.compile(
    r'\bname:\s*"(?P<name>[^"]*)"|\bkey:\s*"(?P<label>[^"]*)"\s*value:\s*(?P<number>\d+)'
)


def _labels_in_use(file: Path) -> dict[str, dict[str, int]]:
    """Model -> label -> version of a file as `models_config` writes it."""
    labels, model = {}, {}
    for found in _LABEL.finditer(file.read_text("utf-8") if file.is_file() else ""):
        if found["name"] is not None:
            model = labels.setdefault(found["name"], {})
        else:
            model[found["label"]] = int(found["number"])
    return labels


def _check_stable(model: Deployed, before: dict[str, int], file: Path):
    stable = model.labels["stable"]
    if not before or stable in (before.get("stable"), before.get("canary")):
        return
    was = ", ".join(f"{label} {number}" for label, number in before.items())
    new = ", ".join(f"{label} {number}" for label, number in model.labels.items())
    raise ValueError(
        f"Version {stable} of {model.name!r} would become stable ({new}), and is "
        f"neither stable nor canary in {file} ({was}). Try it as a canary first, or "
        "name the one or two versions that are to be served instead of their model, "
        f"the newer one last, e.g.: {model.base / str(before.get('stable', stable))} "
        f"{model.base / str(max(model.labels.values()))}. Versions that are named are "
        "served as they are named."
    )


def _deployed(name: str, found: list[tuple[Path, int | None]], canary: bool):
    """A model of which a folder was named, or one or two versions."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
        raise ValueError(
            "A model's folder must be named with letters, digits, _, . and -. "
            f"Received: {name!r}"
        )
    (base, *others), numbers = (list(column) for column in zip(*found, strict=True))
    if numbers == [None]:
        numbers = list(versions(base))[-2:]
    if None in numbers or len(numbers) > 2 or any(other != base for other in others):
        raise ValueError(
            f"Name the folder of a model {name!r} once, or up to two of its versions. "
            f"Received: {', '.join(str(base) for base, _ in found)}"
        )
    newest = ("canary", "stable") if canary else ("stable", "previous")
    if len(numbers) == 1:
        newest = ("stable",)
    return Deployed(name, base, dict(zip(newest, reversed(numbers), strict=True)))


def write_kit(
    folder: str | os.PathLike,
    models: Sequence[Deployed],
    *,
    batch: int = 16,
    cpus: int = 2,
    gpu: bool = False,
    image: str | None = None,
    namespaces: Sequence[str] = (),
) -> list[Path]:
    """Write the configuration of the official server image for some models.

    - `models.config`: models, versions, labels; the server reads it again when it
      changes;
    - `batching.config`, `monitoring.config`: the server's further files;
    - `ready.sh`: succeeds when every model is available; a model that is added later
      does not count before it once was;
    - `compose.yaml`: one machine; `docker compose up` in the folder;
    - `kubernetes.yaml`: a Deployment with probes, drain and limits, its Service,
      disruption budget and network policy, and the files above as a ConfigMap. It
      expects the models on a PersistentVolumeClaim `models`.

    Args:
        folder: Made if need be; files of these names are replaced.
        models: Of `choose_versions`.
        batch: Images that the server runs at once, at most. Where a model's answers
            are not of one size a larger request runs at once too.
        cpus: Processor cores of a server.
        gpu: Whether it has a GPU.
        image: The server's image; default the official one, for a GPU if it has one.
        namespaces: Of a cluster, whose pods may ask beside those of the server's own.

    Returns:
        The files.

    Raises:
        ValueError: A number below 1.
    """
    if batch < 1 or cpus < 1:
        raise ValueError(
            "`batch` and `cpus` must be at least 1. Received: "
            f"batch={batch}, cpus={cpus}"
        )
    files = {
        "models.config": models_config(models),
        "batching.config": batching_config(
            batch, cpus, split=all(model.answers_have_one_size for model in models)
        ),
        "monitoring.config": MONITORING,
        "ready.sh": ready_script(model.name for model in models),
    }
    bytes_needed = SERVER_MEMORY + _MEMORY_FACTOR * sum(m.size for m in models)
    machine = Machine(
        image=image or (f"{IMAGE}-gpu" if gpu else IMAGE),
        memory=math.ceil(bytes_needed / _MEMORY_STEP) * _MEMORY_STEP,
        cpus=cpus,
        gpu=gpu,
        batch=batch,
    )
    folders = {model.name: model.base.resolve() for model in models}
    manifests = {
        "compose.yaml": _yaml(compose(files, folders, machine)),
        "kubernetes.yaml": _yaml(*kubernetes(files, machine, namespaces)),
    }
    files |= manifests
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text, "utf-8")
    return [folder / name for name in files]


def models_config(models: Sequence[Deployed]) -> str:
    """`ModelServerConfig` in protobuf's text format."""
    lines = ["model_config_list {"]
    for model in models:
        lines += [
            "  config {",
            f'    name: "{model.name}"',
            f'    base_path: "/models/{model.name}"',
            '    model_platform: "tensorflow"',
            "    model_version_policy {",
            "      specific {",
            *(f"        versions: {n}" for n in sorted(set(model.labels.values()))),
            "      }",
            "    }",
        ]
        for label, number in model.labels.items():
            lines.append(f'    version_labels {{ key: "{label}" value: {number} }}')
        lines.append("  }")
    return "\n".join([*lines, "}"]) + "\n"


class _Dumper(yaml.SafeDumper):
    """Files as people write them: no anchors, text line by line."""

    def ignore_aliases(self, data):
        return True


_Dumper.add_representer(
    str,
    lambda dumper, text: dumper.represent_scalar(
        "tag:yaml.org,2002:str", text, style="|" if "\n" in text else None
    ),
)


def _yaml(*documents: dict) -> str:
    return yaml.dump_all(documents, Dumper=_Dumper, sort_keys=False, width=100)
