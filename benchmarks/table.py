"""The dated table: what it ran on, rows, notes."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import os
import platform
import subprocess
import time
from pathlib import Path

from benchmarks.goals import ENOUGH_ROUNDS, FAR
from benchmarks.harness import Row
from benchmarks.registry import CORES, NOT_RUN

PACKAGES = (
    "tensorflow",
    "keras",
    "keras-cv",
    "keras-hub",
    "torch",
    "torchvision",
    "albumentations",
    "opencv-python-headless",
    "hotcoco",
    "faster-coco-eval",
    "pycocotools",
    "numpy",
)
HEAD = (
    "bench",
    "what",
    "visionkit",
    "peer",
    "peer's",
    "ratio [interval]",
    "to reach",
    "verdict",
    "rounds",
)


def write_table(file: Path, results: dict[str, dict], quick: bool) -> None:
    """Write all that there is so far.

    Args:
        file: Markdown.
        results: Name of a bench -> {"rows": dicts of `Row`, "notes", "seconds"}.
        quick: Whether the sizes were cut.
    """
    rows = [row for result in results.values() for row in result["rows"]]
    lines = [
        f"# Benchmarks side by side, {time.strftime('%Y-%m-%d')}",
        "",
        *(["**A trial run: sizes are cut, no number means anything.**", ""] * quick),
        f"{describe_machine()}.",
        "",
        f"{describe_versions()}.",
        "",
        NOT_RUN,
        "",
        f"Both sides alternate in one process, which is kept to {CORES} cores and "
        "threads unless its name says another number; rounds that begin in a slow "
        "moment of the machine do not count. Figures are medians; the ratio is of the "
        "medians, in brackets its 95 % interval (bootstrap over rounds), or, of fewer "
        f"than {ENOUGH_ROUNDS} rounds, the least and the largest ratio of a round "
        "(min..max). Open: the interval reaches beyond the limit, or that range times "
        f"{FAR:g} does.",
        "",
        "| " + " | ".join(HEAD) + " |",
        "|" + "---|" * len(HEAD),
        *("| " + " | ".join(dataclasses.astuple(Row(**row))) + " |" for row in rows),
    ]
    for name, result in results.items():
        if result["notes"]:
            lines += ["", f"{name} ({result['seconds']:.0f} s):", ""]
            lines += [f"- {note}" for note in result["notes"]]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join(lines) + "\n", "utf-8")


def write_profiles(file: Path, results: dict[str, dict]) -> None:
    """Write where the time goes of what is too slow; without any, there is no file.

    Args:
        file: Markdown.
        results: As for `write_table`, with "profiles": lines of Markdown.
    """
    lines = [line for result in results.values() for line in result["profiles"]]
    if not lines:
        file.unlink(missing_ok=True)  # of an earlier run of the same day
        return
    head = [
        f"# Profiles of the ratios not reached, {time.strftime('%Y-%m-%d')}",
        "",
        f"{describe_machine()}.",
        "",
    ]
    file.write_text("\n".join([*head, *lines]), "utf-8")


def describe_machine() -> str:
    """Processor, cores, memory and how busy it is."""
    parts = [f"{_processor()}, {os.cpu_count()} cores ({platform.machine()})"]
    with contextlib.suppress(ValueError, OSError, AttributeError):
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        parts.append(f"{memory / 2**30:.0f} GiB")
    with contextlib.suppress(OSError, AttributeError):
        parts.append(f"load {os.getloadavg()[0]:.1f}")
    return f"{', '.join(parts)}, {platform.system()}"


def describe_versions() -> str:
    """Python, this project's commit, and the packages that are installed."""
    found = [f"Python {platform.python_version()}"]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        command = ["git", "describe", "--always", "--dirty"]
        commit = subprocess.run(
            command,
            capture_output=True,
            check=True,
            text=True,
            cwd=Path(__file__).parent,
        )
        found.append(f"visionkit at {commit.stdout.strip()}")
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found.append(f"{package} {importlib.metadata.version(package)}")
    return ", ".join(found)


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown processor"
