"""Where the time of one side goes, for a ratio that was not reached."""

from __future__ import annotations

import collections
import cProfile
import pstats
import re
import subprocess
import sys
import tempfile
from pathlib import Path

RUNS = 3
LONGEST = 12  # lines of a profile
MOST_PACKAGES = 15  # of one of imports

_IMPORT = re.compile(r"import time:\s+(\d+) \|\s+(\d+) \|\s+(\w+)")


def profile(side) -> list[str]:
    """Lines of Markdown: the operations, or else the functions, that take longest.

    TensorFlow's profiler sees the operations of all threads; their times add up to more
    than what passes on the clock. Where no operation runs, Python's profiler says which
    functions it is.

    Args:
        side: A `harness.Side`.
    """
    if side.explain:
        return side.explain()
    rows = _operations(side) if "tensorflow" in sys.modules else []
    kind = "operation" if rows else "function"
    rows = rows or _functions(side)
    total = sum(seconds for _, seconds, _ in rows)
    lines = [
        f"{side.name}, {1e3 * total:.4g} ms of all threads in a run:",
        "",
        f"| {kind} | ms | share | calls |",
        "|---|---|---|---|",
    ]
    for name, seconds, calls in rows[:LONGEST]:
        share = seconds / max(total, 1e-12)
        lines.append(f"| {name} | {1e3 * seconds:.4g} | {share:.1%} | {calls:g} |")
    return [*lines, ""]


def profile_imports(name: str, code: str) -> list[str]:
    """Lines of Markdown: the packages whose import takes longest in a new process.

    Args:
        name: Of what is profiled.
        code: What the process runs; it may end as it likes.
    """
    command = [sys.executable, "-X", "importtime", "-c", code]
    report = subprocess.run(command, capture_output=True, text=True).stderr
    packages = import_times(report)
    total = sum(own for _, own in packages.values())
    lines = [
        f"{name}, {1e3 * total:.4g} ms of imports in a process of its own:",
        "",
        "| package | ms with what it imports | ms of its own modules |",
        "|---|---|---|",
    ]
    longest = sorted(packages, key=lambda package: -packages[package][0])
    for package in longest[:MOST_PACKAGES]:
        whole, own = packages[package]
        lines.append(f"| {package} | {1e3 * whole:.4g} | {1e3 * own:.4g} |")
    return [*lines, ""]


def import_times(report: str) -> dict[str, tuple[float, float]]:
    """Seconds of each top-level package, as `python -X importtime` reports them.

    Args:
        report: What the process wrote to its standard error.

    Returns:
        Name -> (of its longest import with all that is imported in it, of its own
        modules).
    """
    packages: dict[str, tuple[float, float]] = {}
    for line in report.splitlines():
        found = _IMPORT.match(line)
        if found:
            own, whole = (int(found[i]) / 1e6 for i in (1, 2))
            before = packages.get(found[3], (0.0, 0.0))
            packages[found[3]] = max(before[0], whole), before[1] + own
    return packages


def _operations(side) -> list[tuple[str, float, float]]:
    """(type of operation, own seconds, calls) of a run, the longest first."""
    import tensorflow as tf
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    with tempfile.TemporaryDirectory() as folder:
        tf.profiler.experimental.start(folder)
        try:
            _run(side)
        finally:
            tf.profiler.experimental.stop()
        files = list(Path(folder).rglob("*.xplane.pb"))
        spaces = [xplane_pb2.XSpace.FromString(file.read_bytes()) for file in files]
    seconds: dict[str, float] = collections.defaultdict(float)
    calls: dict[str, float] = collections.defaultdict(float)
    for space in spaces:
        for plane in space.planes:
            for line in plane.lines:
                for name, own in own_times(plane, line):
                    seconds[name] += own / RUNS
                    calls[name] += 1 / RUNS
    rows = [(name, seconds[name], calls[name]) for name in seconds]
    return sorted(rows, key=lambda row: -row[1])


def own_times(plane, line):
    """(type of operation, seconds without what runs inside of it) of a thread's events.

    An operation's event is called "name:Type"; all others are the profiler's own.
    """
    events = sorted(line.events, key=lambda e: (e.offset_ps, -e.duration_ps))
    open_events: list[list] = []  # [end, type or None, picoseconds of its own]

    def close(until):
        while open_events and open_events[-1][0] <= until:
            _, kind, own = open_events.pop()
            if kind:
                yield kind, own / 1e12

    for event in events:
        yield from close(event.offset_ps)
        if open_events:
            open_events[-1][2] -= event.duration_ps
        name, colon, kind = plane.event_metadata[event.metadata_id].name.rpartition(":")
        plain = colon and name and not name.endswith(":") and kind.isidentifier()
        operation = kind if plain else None
        end = event.offset_ps + event.duration_ps
        open_events.append([end, operation, event.duration_ps])
    yield from close(float("inf"))


def _functions(side) -> list[tuple[str, float, float]]:
    """(function, own seconds, calls) of a run, the longest first."""
    profiler = cProfile.Profile()
    profiler.runcall(_run, side)
    rows = []
    for (file, line, name), found in pstats.Stats(profiler).stats.items():
        place = f"{Path(file).name}:{line} {name}" if line else name.strip("<>")
        rows.append((place.replace("|", "/"), found[2] / RUNS, found[1] / RUNS))
    return sorted(rows, key=lambda row: -row[1])


def _run(side) -> None:
    for _ in range(RUNS):
        if side.before:
            side.before()
        side.run()
        if side.after:
            side.after()
