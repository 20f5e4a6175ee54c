"""The versions that a server holds: found, loaded, served, drained, freed.

A newer version is loaded before the older one goes, and a version goes only when the
requests that use it are answered.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from visionkit.serving.server.bundle import Bundle
from visionkit.serving.server.errors import ServingError
from visionkit.serving.server.memory import give_back
from visionkit.serving.server.sources import ModelSource

LOG = logging.getLogger("visionkit.serving")

TIDY_SECONDS = 30.0
"""Between two returns of free memory to the system."""


@dataclasses.dataclass
class Version:
    """One version of a model, from its first sight to its end.

    Attributes:
        model: Name of the model.
        number: The version's.
        folder: Where it lies.
        state: "LOADING", "AVAILABLE", "UNLOADING" or "END", as TensorFlow Serving
            calls them; the last is also that of a version that could not be loaded.
        error: Why it could not.
        bundle: The SavedModel while it is in memory.
        users: How many requests use it.
        stamp: The folder's content when it could not be loaded.
    """

    model: str
    number: int
    folder: Path
    state: str = "LOADING"
    error: ServingError | None = None
    bundle: Bundle | None = None
    users: int = 0
    stamp: tuple = ()


class Registry:
    """All models of a server.

    Args:
        discover: Gives the models that are wanted now; called at every look.
        seconds: Between two looks at the folders.
    """

    def __init__(
        self, discover: Callable[[], Mapping[str, ModelSource]], seconds: float = 1.0
    ):
        self._discover = discover
        self._seconds = seconds
        self._versions: dict[tuple[str, int], Version] = {}
        self._models: list[str] = []  # that were wanted at the last look
        self._problems: dict[str, str] = {}  # model -> why it cannot be read, or ""
        self._labels: dict[tuple[str, str], int] = {}
        self._lock = threading.Lock()  # held for a moment only
        self._refreshing = threading.Lock()  # held while versions are loaded
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def start(self):
        """Load what is there, then go on looking."""
        self.refresh()
        self._thread.start()

    def stop(self):
        """Look no more, and free every version."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()
        with self._lock:
            for version in self._versions.values():
                version.state = "END"
            bundles = [v.bundle for v in self._versions.values() if v.bundle]
        for bundle in bundles:
            bundle.close()

    def refresh(self):
        """Look at the folders once: load what is new, let go what is not wanted."""
        with self._refreshing:
            sources = self._discover()
            self._models = list(sources)
            wanted = {name: self._wanted(source) for name, source in sources.items()}
            for model, folders in wanted.items():
                for number, folder in folders.items():
                    self._load(model, number, folder)
            self._retire(wanted)
            self._free()

    def reconfigure(self, sources: Mapping[str, ModelSource]):
        """Serve these models from now on, and no others.

        Raises:
            ServingError: A label names a version that is not available; the models
                are those given all the same.
        """
        self._discover = lambda: sources
        self.refresh()
        with self._lock:
            labels = {
                (name, label): number
                for name, source in sources.items()
                for label, number in source.labels.items()
            }
            for (name, label), number in labels.items():
                version = self._versions.get((name, number))
                if version is None or version.state != "AVAILABLE":
                    text = (
                        f"Request to assign label {label} to version {number} of model "
                        f"{name}, which is not currently available for inference"
                    )
                    raise ServingError("FAILED_PRECONDITION", text)
            self._labels = labels

    @contextlib.contextmanager
    def lease(
        self, model: str, number: int | None = None, label: str = ""
    ) -> Iterator[Version]:
        """A version that stays loaded within the block; the newest unless one is named.

        Raises:
            ServingError: There is none that is available.
        """
        with self._lock:
            version = self._find(model, number, label)
            version.users += 1
        try:
            yield version
        finally:
            with self._lock:
                version.users -= 1

    def status(
        self, model: str, number: int | None = None, label: str = ""
    ) -> list[Version]:
        """The versions of a model that were ever seen, newest first, or the named one.

        Raises:
            ServingError: There are none.
        """
        with self._lock:
            number = self._labelled(model, label) if label else number
            found = [
                dataclasses.replace(version, bundle=None)
                for (name, n), version in self._versions.items()
                if name == model and number in (None, n)
            ]
        if not found:
            what = "any versions" if number is None else f"version {number}"
            raise ServingError("NOT_FOUND", f"Could not find {what} of model {model}")
        return sorted(found, key=lambda version: -version.number)

    def all(self) -> list[Version]:
        """Every version that was ever seen, by model and number."""
        with self._lock:
            return [self._versions[key] for key in sorted(self._versions)]

    def missing(self) -> dict[str, str]:
        """Model -> why none of its versions is available; empty for a ready server."""
        reasons = {}
        for model in self._models:
            versions = [version for version in self.all() if version.model == model]
            if all(version.state != "AVAILABLE" for version in versions):
                errors = [f"version {v.number}: {v.error}" for v in versions if v.error]
                reason = self._problems.get(model) or "it has no version"
                reasons[model] = "; ".join(errors) or reason
        return reasons

    def _find(self, model: str, number: int | None, label: str) -> Version:
        if label:
            number = self._labelled(model, label)
        if number is None:
            available = [
                version
                for (name, _), version in self._versions.items()
                if name == model and version.state == "AVAILABLE"
            ]
            if available:
                return max(available, key=lambda version: version.number)
            what = f"Latest({model})"
        else:
            version = self._versions.get((model, number))
            if version is not None and version.state == "AVAILABLE":
                return version
            what = f"Specific({model}, {number})"
        raise ServingError("NOT_FOUND", f"Servable not found for request: {what}")

    def _labelled(self, model: str, label: str) -> int:
        if (model, label) not in self._labels:
            text = f"Unrecognized servable version label: {label}"
            raise ServingError("INVALID_ARGUMENT", text)
        return self._labels[model, label]

    def _wanted(self, source: ModelSource) -> dict[int, Path]:
        """Its versions; those that are served where its folder cannot be read now."""
        try:
            found, problem = source.wanted(), ""
        except OSError as error:
            problem = str(error)
            found = {
                number: version.folder
                for (name, number), version in self._versions.items()
                if name == source.name and version.state == "AVAILABLE"
            }
        if problem != self._problems.get(source.name, ""):
            level = logging.ERROR if problem else logging.INFO
            LOG.log(level, "%s: %s", source.name, problem or "it can be read again")
        self._problems[source.name] = problem
        return found

    def _load(self, model: str, number: int, folder: Path):
        known = self._versions.get((model, number))
        if known and known.state == "UNLOADING":
            with self._lock:  # wanted again before it was freed
                known.state = "AVAILABLE"
            return
        if known and known.state == "AVAILABLE":
            return
        stamp = _stamp(folder)
        if known and stamp == known.stamp:
            return
        version = Version(model, number, folder)
        with self._lock:
            self._versions[model, number] = version
        start = time.perf_counter()
        try:
            bundle = Bundle(folder)
        except ServingError as error:
            with self._lock:
                version.state, version.error, version.stamp = "END", error, stamp
            LOG.error("%s version %d cannot be loaded: %s", model, number, error)
            return
        with self._lock:
            version.state, version.bundle = "AVAILABLE", bundle
        seconds = time.perf_counter() - start
        LOG.info("%s version %d: loaded in %.1f s", model, number, seconds)

    def _retire(self, wanted: Mapping[str, Mapping[int, Path]]):
        """Let versions go that are not wanted, but never the last before a new one."""
        with self._lock:
            for (model, number), version in self._versions.items():
                numbers = wanted.get(model, {})
                replaced = not numbers or any(
                    self._versions[model, n].state == "AVAILABLE" for n in numbers
                )
                if version.state == "AVAILABLE" and number not in numbers and replaced:
                    version.state = "UNLOADING"

    def _free(self):
        """Free the versions that have gone and that no request uses any more."""
        with self._lock:
            idle = [
                version
                for version in self._versions.values()
                if version.state == "UNLOADING" and not version.users
            ]
            for version in idle:
                version.state = "END"
        for version in idle:
            version.bundle.close()
            version.bundle = None
            LOG.info("%s version %d: unloaded", version.model, version.number)

    def _watch(self):
        tidied = time.monotonic()
        while not self._stopped.wait(self._seconds):
            try:
                self.refresh()
            except Exception:
                LOG.exception("The folders could not be looked at")
            if time.monotonic() - tidied > TIDY_SECONDS:
                give_back()
                tidied = time.monotonic()


def _stamp(folder: Path) -> tuple:
    """What changes when the files of a version do: a broken one is then tried again."""
    files = []
    for file in sorted(folder.rglob("*")):
        with contextlib.suppress(OSError):
            entry = file.stat()
            files.append((str(file), entry.st_size, entry.st_mtime_ns))
    return tuple(files)
