"""The suite of benchmarks, each in a process of its own, as a dated table.

    python -m benchmarks                    # all
    python -m benchmarks C7 C8              # some
    python -m benchmarks C3 --quick --rounds 2 --out /tmp/trial

A benchmark that fails is a line of the table; the others go on. Peers that are not
installed are named as skipped: pip install -e '.[bench]'. Exits with 1 if one failed;
a ratio that is not reached is a finding, not a failure: beside the table a file of
profiles says where the time goes.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.harness import ROUNDS, Bench, Row
from benchmarks.registry import BENCHES, cores_of
from benchmarks.table import write_profiles, write_table

# Read by the libraries when they start.
ENVIRONMENT = {
    "KERAS_BACKEND": "tensorflow",
    "CUDA_VISIBLE_DEVICES": "",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "NO_ALBUMENTATIONS_UPDATE": "1",
}
THREADS = (
    "TF_NUM_INTRAOP_THREADS",
    "TF_NUM_INTEROP_THREADS",
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
)
"""Variables that say how many, so that all sides have the same."""


def main() -> None:
    """Run what was asked for and write the table after each."""
    arguments = _arguments()
    if arguments.worker:
        _work(arguments)
        return
    names = arguments.names or list(BENCHES)
    part = "-".join(["", *names]) if arguments.names else ""
    file = Path(arguments.out) / f"{time.strftime('%Y-%m-%d')}-suite{part}.md"
    results = {}
    for name in names:
        print(f"== {name}", file=sys.stderr, flush=True)
        results[name] = _run(name, arguments)
        write_table(file, results, arguments.quick)
        write_profiles(file.with_name(f"{file.stem}-profiles.md"), results)
    print(file.read_text("utf-8"))
    failed = [name for name, result in results.items() if result["failed"]]
    if failed:
        sys.exit(f"FAILED: {', '.join(failed)}")


def _arguments():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", help=f"of {', '.join(BENCHES)}")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--quick", action="store_true", help="cut sizes: does it run?")
    parser.add_argument("--timeout", type=float, default=900, help="s for each")
    parser.add_argument("--out", default="benchmarks/results")
    parser.add_argument("--worker", metavar="FILE", help=argparse.SUPPRESS)
    found = parser.parse_args()
    unknown = [name for name in found.names if name not in BENCHES]
    if unknown:
        known = ", ".join(BENCHES)
        parser.error(f"no benchmark is called {', '.join(unknown)}. These are: {known}")
    return found


def _run(name: str, arguments) -> dict:
    """The results of one benchmark, run in a process of its own."""
    start, failure = time.perf_counter(), ""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "result.json"
        command = [sys.executable, "-m", "benchmarks", name, "--worker", str(file)]
        command += ["--rounds", str(arguments.rounds)]
        command += ["--quick"] * arguments.quick
        try:
            status = subprocess.run(
                command, env=_environment(name), timeout=arguments.timeout
            ).returncode
            if status:
                failure = f"its process ended with status {status}"
        except subprocess.TimeoutExpired:
            failure = f"it took longer than {arguments.timeout:g} s"
        result = {"rows": [], "notes": [], "profiles": []}
        if file.is_file():
            result = json.loads(file.read_text("utf-8"))
    failure = result.pop("error", "") or failure
    if failure:
        row = Row(name, "", "", "", "", "", "", "FAILED")
        result["rows"].append(dataclasses.asdict(row))
        result["notes"].append(f"FAILED: {failure}")
        print(f"FAILED: {name}: {failure}", file=sys.stderr, flush=True)
    seconds = time.perf_counter() - start
    return {**result, "seconds": seconds, "failed": bool(failure)}


def keep_cores(count: int) -> None:
    """Keep this process and all that it starts to so many cores, where that is known.

    Otherwise a library that counts the cores of the machine would have more of them
    than one that keeps to the number of threads it is told.

    Args:
        count: Cores; fewer where there are not as many.
    """
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:count])


def _environment(name: str) -> dict[str, str]:
    threads = dict.fromkeys(THREADS, str(cores_of(name)))
    return {**os.environ, **ENVIRONMENT, **threads}


def _work(arguments) -> None:
    """Run one benchmark here, and leave what it found even if it fails."""
    (name,) = arguments.names
    keep_cores(cores_of(name))
    module, _, function = BENCHES[name].partition(":")
    bench, error = Bench(name, arguments.rounds, arguments.quick), ""
    try:
        getattr(importlib.import_module(f"benchmarks.{module}"), function)(bench)
    except BaseException as failure:
        error = f"{type(failure).__name__}: {failure}".splitlines()[0]
        raise
    finally:
        rows = [dataclasses.asdict(row) for row in bench.rows]
        result = {"rows": rows, "notes": bench.notes, "error": error}
        result["profiles"] = bench.profiles
        Path(arguments.worker).write_text(json.dumps(result), "utf-8")


if __name__ == "__main__":
    main()
