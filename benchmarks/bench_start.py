"""What an import costs: seconds, memory, modules."""

from __future__ import annotations

import subprocess
import sys

from benchmarks.goals import at_most
from benchmarks.harness import Bench, Side
from benchmarks.peers import MissingPeer
from benchmarks.profiles import profile_imports

# What a process says of itself when it has imported something.
_REPORT = """
import resource, sys
unit = 1 if sys.platform == "darwin" else 1024
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20)
print(len(sys.modules))
"""
MOST_SECONDS, MOST_MEBIBYTES = 0.3, 20.0  # above those of `import keras`


def imports(bench: Bench) -> None:
    """`import visionkit`, and its first name that needs Keras, beside their imports."""
    found: dict[str, tuple[float, int]] = {}

    def explain(name: str, code: str):
        return lambda: profile_imports(name, code)

    def side(name: str, code: str) -> Side:
        def run():
            found[name] = _run(code)

        try:
            run()  # it is there, and its files are in memory
        except subprocess.CalledProcessError as error:
            reason = error.stderr.strip().splitlines()[-1:]
            raise MissingPeer(f"`{code}` fails: {reason}") from error
        return Side(name, run, explain=explain(name, code))

    names = ("keras", "keras_cv")
    peers = bench.peers(
        {name: lambda name=name: side(name, f"import {name}") for name in names}
    )
    kept = {}
    for name, code in (
        ("import visionkit", "import visionkit"),
        ("first use", "import visionkit; visionkit.YOLO"),
    ):
        times = bench.compare(
            name, side(name, code), peers, {"keras_cv": at_most(0.9)}, warm_ups=0
        )
        kept |= times
        slower = float(sorted(times[name] - times["keras"])[len(times[name]) // 2])
        more, what = found[name][0] - found["keras"][0], f"{name}: beyond Keras"
        limits = (slower, MOST_SECONDS, "s"), (more, MOST_MEBIBYTES, "MiB")
        for value, limit, unit in limits:
            bench.limit(what, value, limit, unit, "keras", explain(name, code))
    for name, (mebibytes, modules) in found.items():
        bench.note(f"{name}: {mebibytes:.0f} MiB, {modules:,} modules")


def commands(bench: Bench) -> None:
    """`--help`, `list` and the refusal of a recipe, beside importing TensorFlow."""
    program = "from visionkit.tasks.__main__ import main; raise SystemExit(main({!r}))"
    peer = _process("import tensorflow", "import tensorflow")
    for words, status in (
        (["--help"], 0),
        (["list"], 0),
        (["train", "digits_yolo_n", "train.epochs=none"], 2),
    ):
        code = program.format(words)
        found = _status(code)
        bench.require_equal(f"status of {' '.join(words)}", found, status)
        bench.compare(
            " ".join(words),
            _process("visionkit", code),
            [peer],
            {"import tensorflow": at_most(0.25)},
            warm_ups=1,
            seconds=30,
        )


def _process(name: str, code: str) -> Side:
    """A process that runs `code`, explained by what it imports."""
    return Side(
        name, lambda: _status(code), explain=lambda: profile_imports(name, code)
    )


def _status(code: str) -> int:
    """The status that a process ends with that runs `code`."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True).returncode


def _run(code: str) -> tuple[float, int]:
    """(MiB, modules) of a process that runs `code`."""
    command = [sys.executable, "-c", code + _REPORT]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    mebibytes, modules = output.split()[-2:]
    return float(mebibytes), int(modules)
