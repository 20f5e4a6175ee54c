"""Load on a server of an export, every answer checked: rates, delays, losses, memory.

    python benchmarks/serving.py saved_models/flowers/3                    # steady
    python benchmarks/serving.py saved_models/flowers/3 --burst
    python benchmarks/serving.py saved_models/flowers/3 --swaps 5
    python benchmarks/serving.py saved_models/flowers/3 --soak 400000
        [--clients N] [--seconds S] [--bad 0.05] [--protocols rest grpc]
        [--images FOLDER] [--out benchmarks/results]
        [--target http://host:8501 --grpc host:8500 --model NAME]
        [--signature tolerant]

Clients are threads of another process than the server's, each on its own connection,
and send one image after the other; a share of the images is broken. A good answer must
equal the one that a single client got for the same image before the load, a broken
image must be refused, and everything else counts as lost or as wrong: then the script
ends with status 1. A server that runs requests together fails them together, so ask it
for `tolerant`, in which a broken image is to be marked.

Steady: 8 clients for two minutes, one protocol after the other. Beside it stands what
the signature costs when it is called in a process of its own, alone and in as many
threads as there are clients, so that what the server adds can be seen.

Burst: 128 clients for 15 seconds, every other one with a new connection for each
request. The server may say that it is busy.

Swaps: while both protocols ask at once, versions of other weights are published one
after the other, and before every second one a corrupt one, which must not be served.
What is asked after the server has said that it serves a version must be answered by it.

Soak: that many requests of both protocols at once. Memory of the server's process must
grow by less than 1 MB for each 10,000 requests behind the first fifth, and its threads
and open files not at all.

Without `--target` the development server is started, and its process watched.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import platform
import sys
import tempfile
import threading
import time
from pathlib import Path

from serving_clients import CLIENTS
from serving_load import Load, counts, growth, percentiles
from serving_process import costs, server
from serving_versions import corrupt, publish, stage, wait_until

from visionkit._quiet import quiet_start

MOST_MB = 1.0  # that a soak may cost for each 10,000 requests
PAUSE = 5.0  # seconds between two versions
CONFIG = """model_config_list {{ config {{ name: "{name}" base_path: "{base}"
model_platform: "tensorflow" model_version_policy {{ all {{}} }} }} }}"""


def main() -> None:
    """Measure, print and write the table; exit with 1 if anything is lost or wrong."""
    arguments = _arguments()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with quiet_start():  # gRPC's messages bring it
        importlib.import_module("tensorflow")
    rows, notes, failures = arguments.mode(arguments)
    table = _table(rows, notes, arguments)
    print(f"\n{table}")
    if arguments.out:
        folder = Path(arguments.out)
        folder.mkdir(parents=True, exist_ok=True)
        mode = arguments.mode.__name__
        name = f"{time.strftime('%Y-%m-%d')}-serving-{mode}-{arguments.clients}.md"
        (folder / name).write_text(table, "utf-8")
    for failure in failures:
        print(f"FAILED: {failure}", file=sys.stderr)
    sys.exit(1 if failures else 0)


def _arguments():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("saved_model", help="folder of the version that is served")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--burst", action="store_true", help="many clients, briefly")
    kind.add_argument("--swaps", type=int, help="so many new versions under load")
    kind.add_argument("--soak", type=int, help="so many requests, the server watched")
    parser.add_argument(
        "--clients", type=int, help="of each protocol; default 8 or 128"
    )
    parser.add_argument("--seconds", type=float, help="default 120, of a burst 15")
    parser.add_argument(
        "--bad", type=float, default=0.05, help="share of broken images"
    )
    parser.add_argument(
        "--protocols", nargs="+", choices=CLIENTS, default=list(CLIENTS)
    )
    parser.add_argument(
        "--images", help="a folder of JPEG and PNG files; default: drawn"
    )
    parser.add_argument("--target", help="a server that is there already, REST")
    parser.add_argument("--grpc", help="of that server")
    parser.add_argument("--model", help="its name there")
    parser.add_argument(
        "--signature",
        default="serving_default",
        choices=("serving_default", "tolerant"),
        help="tolerant where the server batches (default: serving_default)",
    )
    parser.add_argument("--out", help="a folder for the table")
    found = parser.parse_args()
    if found.target and found.swaps:
        parser.error("--swaps publishes versions: it takes the server that it starts")
    if found.target and "grpc" in found.protocols and not found.grpc:
        parser.error("--target needs --grpc, or --protocols rest")
    found.clients = found.clients or (128 if found.burst else 8)
    found.seconds = found.seconds or (15 if found.burst else 120)
    modes = {burst: found.burst, swaps: found.swaps, soak: found.soak}
    found.mode = next((mode for mode, asked in modes.items() if asked), steady)
    return found


def steady(arguments) -> tuple[list[dict], list[str], list[str]]:
    """Rows of the table, sentences below it, and what failed."""
    rows, notes, failures = _in_turn(arguments, fresh=False)
    direct = costs(arguments)
    cost = "; ".join(direct)
    notes.append(f"The signature called directly, without a server: {cost}.")
    return rows, notes, failures


def burst(arguments) -> tuple[list[dict], list[str], list[str]]:
    """Rows of the table, sentences below it, and what failed."""
    rows, notes, failures = _in_turn(arguments, fresh=True)
    notes.append("Every other client opened a new connection for each request.")
    return rows, notes, failures


def _in_turn(arguments, *, fresh: bool):
    """One protocol after the other."""
    rows, notes, failures = [], [], []
    with server(arguments, arguments.saved_model) as target:
        for protocol in arguments.protocols:
            load = Load(target, arguments.images, arguments.bad)
            different = load.learn(protocol)
            end = time.perf_counter() + arguments.seconds
            asked = load.run(
                {protocol: arguments.clients},
                lambda _, end=end: time.perf_counter() < end,
                fresh=fresh,
            )
            rows.append(_row(protocol, arguments, load, asked[protocol]))
            failures += _failures(protocol, load, asked[protocol])
            notes = [_of_images(load, different)]
    return rows, notes, failures


def swaps(arguments) -> tuple[list[dict], list[str], list[str]]:
    """Rows of the table, sentences below it, and what failed."""
    with contextlib.ExitStack() as stack:
        base = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "model"
        base.mkdir()
        total = arguments.swaps + 1
        staged = stage(arguments.saved_model, base, total)
        # Good ones among the corrupt, by rising number.
        plan = [("good", staged[1])]
        for turn in range(arguments.swaps):
            if turn % 2 == 0:
                plan.append(("corrupt", corrupt(staged[turn + 2], turn // 2)))
            plan.append(("good", staged[turn + 2]))
        numbers = {n: entry for n, entry in enumerate(plan, 1)}
        load, different = _learn_versions(arguments, base, numbers)
        publish(numbers[1][1], 1)
        load.target = target = stack.enter_context(server(arguments, str(base)))
        done, switched = threading.Event(), {}
        publisher = threading.Thread(
            target=_publish_all, args=(target, numbers, switched, done)
        )
        publisher.start()
        clients = dict.fromkeys(arguments.protocols, arguments.clients)
        asked = load.run(clients, lambda _: not done.is_set())
        publisher.join()
    rows, failures = [], []
    for protocol, requests in asked.items():
        late, back = _stale(requests, switched)
        row = _row(protocol, arguments, load, requests)
        rows.append({**row, "of an old version": late, "back again": back})
        failures += _failures(protocol, load, requests)
        if late or back:
            failures.append(f"{protocol}: {late} by an old version, {back} went back")
    bad = [n for n, (kind, _) in numbers.items() if kind == "corrupt"]
    if len(switched) != total:
        failures.append(f"Only the versions {sorted(switched)} were served")
    notes = [
        _of_images(load, different),
        f"Versions {sorted(switched)} were published one after the other, and the "
        f"corrupt {bad} between them, none of which was served. An answer of an old "
        "version would be one to what was asked after the server had said that it "
        "serves the next.",
    ]
    return rows, notes, failures


def soak(arguments) -> tuple[list[dict], list[str], list[str]]:
    """Rows of the table, sentences below it, and what failed."""
    with server(arguments, arguments.saved_model) as target:
        load = Load(target, arguments.images, arguments.bad)
        different = min(load.learn(protocol) for protocol in arguments.protocols)
        asked = load.run(
            dict.fromkeys(arguments.protocols, arguments.clients),
            lambda begun: begun < arguments.soak,
        )
    rows, failures, notes = [], [], [_of_images(load, different)]
    for protocol, requests in asked.items():
        rows.append(_row(protocol, arguments, load, requests))
        failures += _failures(protocol, load, requests)
    if load.samples:
        found = growth(load.samples)
        notes.append(
            f"The server's process held {found['MB']} MB after each fifth of the "
            f"requests; behind the first fifth it grew by {found['slope']} MB for each "
            f"10,000 requests, threads {found['threads']}, open files "
            f"{found['files']}."
        )
        if not float(found["slope"]) < MOST_MB:
            failures.append(f"memory grows by {found['slope']} MB per 10,000 requests")
        for name in ("threads", "files"):
            first, last = map(float, found[name].split(" to "))
            if last > first:
                failures.append(f"the server's {name} grow: {found[name]}")
    return rows, notes, failures


def _learn_versions(arguments, base: Path, numbers: dict) -> tuple[Load, int]:
    """The answers of all good versions, by a server that has them all at once."""
    good = {n: folder for n, (kind, folder) in numbers.items() if kind == "good"}
    different = sys.maxsize
    with tempfile.TemporaryDirectory() as folder:
        for number, staged in good.items():
            (Path(folder) / str(number)).symlink_to(staged)
        config = Path(folder, "models.config")
        config.write_text(CONFIG.format(name=base.name, base=folder))
        with server(arguments, str(config), base.name) as target:
            load = Load(target, arguments.images, arguments.bad)
            for protocol in arguments.protocols:
                for number in good:
                    different = min(different, load.learn(protocol, number))
    return load, different


def _publish_all(target: dict, numbers: dict, switched: dict, done) -> None:
    """Publish one version after the other, and say when each was served."""
    serving = 1
    try:
        switched[1] = time.perf_counter()
        for number in list(numbers)[1:]:
            time.sleep(PAUSE)
            kind, staged = numbers[number]
            publish(staged, number)
            if kind == "corrupt":
                wait_until(target, {number: "END", serving: "AVAILABLE"})
                continue
            wait_until(target, {number: "AVAILABLE"})
            switched[number], serving = time.perf_counter(), number
        time.sleep(PAUSE)
    finally:
        done.set()


def _stale(asked, switched: dict[int, float]) -> tuple[int, int]:
    """Answers by a version that was replaced, and clients that saw one come back."""
    late, back, newest = 0, 0, {}
    for request in asked:
        if request.verdict != "good":
            continue
        due = max(
            (n for n, when in switched.items() if when <= request.sent), default=0
        )
        late += request.version < due
        back += request.version < newest.get(request.client, 0)
        newest[request.client] = max(newest.get(request.client, 0), request.version)
    return late, back


def _row(protocol: str, arguments, load: Load, asked: list) -> dict:
    """One row of the table."""
    cpu = memory = "-"
    if len(load.samples) > 1:
        first, last = load.samples[0], load.samples[-1]
        used = 1000 * (last.cpu - first.cpu)
        cpu = f"{used / max(1, last.requests - first.requests):.1f}"
        memory = f"{load.samples[len(load.samples) // 3].megabytes:.0f} to "
        memory += f"{last.megabytes:.0f}"
    row = {"protocol": protocol, "clients": arguments.clients, **percentiles(asked)}
    row |= {"server's CPU ms per request": cpu, **counts(asked)}
    row["server MB, first third to end"] = memory
    print(" | ".join(map(str, row.values())), flush=True)
    return row


def _failures(protocol: str, load: Load, asked: list) -> list[str]:
    found = counts(asked)
    return [
        f"{protocol}: {found[verdict]} {verdict}, e.g. "
        f"{load.examples.get(f'{protocol} {verdict}')}"
        for verdict in ("wrong", "lost")
        if found[verdict]
    ]


def _of_images(load: Load, different: int) -> str:
    return (
        f"{len(load.good)} good images, to which a single client got {different} "
        "different answers at least."
    )


def _table(rows: list[dict], notes: list[str], arguments) -> str:
    description = json.loads(
        Path(arguments.saved_model, "model.json").read_text("utf-8")
    )
    size = "x".join(map(str, description["preprocessing"]["image_size"]))
    where = arguments.target or "the development server on the same machine"
    lines = [
        f"# Load on a server, {arguments.mode.__name__}: {description['task']}, "
        f"{size}, {description['parameters']:,} parameters",
        "",
        f"{os.cpu_count()} cores ({platform.machine()}), Python "
        f"{platform.python_version()}, {time.strftime('%Y-%m-%d')}. Clients of "
        f"{where}, one image in each request to `{arguments.signature}`, "
        f"{100 * arguments.bad:g} % of them broken. Every good answer is compared "
        "with the one that a single client got.",
        "",
        "| " + " | ".join(rows[0]) + " |",
        "|" + "---|" * len(rows[0]),
        *("| " + " | ".join(map(str, row.values())) + " |" for row in rows),
        "",
        *(line for note in notes for line in (note, "")),
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
