"""Load on a server of an export, every answer checked: rates, delays, losses, memory.

    python benchmarks/serving.py saved_models/flowers/3 [--clients 8] [--seconds 120]
        [--requests N] [--bad 0.05] [--protocols rest grpc] [--images FOLDER]
        [--target http://host:8501 --grpc host:8500 --model NAME]
        [--out benchmarks/results]

Without `--target` the development server is started in a process of its own, and its
memory is watched. Clients are threads of a second process, each on its own connection,
and send one image after the other; a share of the images is broken. A good answer must
equal the one that a single client got before the load, a broken image must be refused,
and everything else counts as lost or as wrong. Beside it stands what the signature
costs when it is called in a process of its own, alone and in as many threads as there
are clients, so that what the server adds can be seen.
"""

from __future__ import annotations

import argparse
import collections
import concurrent.futures
import contextlib
import http.client
import itertools
import json
import multiprocessing
import os
import platform
import random
import sys
import threading
import time
from pathlib import Path

import numpy as np
from serving_clients import CLIENTS, pictures, same

SECONDS = 60  # longest that a client waits for an answer
HEAD = (
    "protocol",
    "clients",
    "requests",
    "per s",
    "p50 ms",
    "p95 ms",
    "p99 ms",
    "worst ms",
    "server's CPU ms per request",
    "good",
    "refused",
    "busy",
    "wrong",
    "lost",
    "server MB, first third to end",
)


def main() -> None:
    """Measure, print and write the table; exit with 1 if anything is lost or wrong."""
    arguments = _arguments()
    context = multiprocessing.get_context("spawn")
    with contextlib.ExitStack() as stack:
        target = _target(arguments, context, stack)
        rows = []
        for protocol in arguments.protocols:
            with context.Pool(1) as pool:  # its own process, or they would share a GIL
                job = pool.apply_async(load, (target, protocol, arguments))
                memory, cpu = _watch(target["pid"], job)
                rows.append(
                    summary(protocol, arguments.clients, job.get(), memory, cpu)
                )
                print(_line(rows[-1]), flush=True)
    with context.Pool(1) as pool:
        direct, machine = pool.apply(call_directly, (arguments,))
    table = _table(rows, direct, machine, arguments)
    print(table)
    if arguments.out:
        folder = Path(arguments.out)
        folder.mkdir(parents=True, exist_ok=True)
        name = f"{time.strftime('%Y-%m-%d')}-serving-{arguments.clients}.md"
        (folder / name).write_text(table, "utf-8")
    if any(row["wrong"] or row["lost"] for row in rows):
        sys.exit(1)


def _arguments():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("saved_model", help="folder of the version that is served")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--requests", type=int, help="stop after that many instead")
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
    parser.add_argument("--out", help="a folder for the table")
    return parser.parse_args()


def _target(arguments, context, stack) -> dict:
    """Where to ask, and the process to watch."""
    if arguments.target:
        model = arguments.model or "model"
        return {
            "url": arguments.target,
            "grpc": arguments.grpc,
            "name": model,
            "pid": 0,
        }
    ours, theirs = context.Pipe()
    process = context.Process(target=serve, args=(arguments.saved_model, theirs))
    process.start()
    theirs.close()  # so that its end is noticed
    stack.callback(process.join)
    stack.callback(ours.send, "stop")
    return {**ours.recv(), "pid": process.pid}


def serve(saved_model: str, pipe) -> None:
    """The development server, until it is told to stop."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from visionkit._quiet import quiet_start

    with quiet_start():
        from visionkit.serving.server.server import Server
        from visionkit.serving.server.sources import find_models

    (name,) = find_models(Path(saved_model))
    with Server(saved_model, port=0, grpc_port=0) as server:
        pipe.send({"url": server.url, "grpc": server.grpc_target, "name": name})
        pipe.recv()


def load(target: dict, protocol: str, arguments) -> dict:
    """Ask from many threads and judge every answer. Runs in a process of its own."""
    target = {**target, "input": _input_name(arguments.saved_model)}
    good, bad = pictures(arguments.images)
    client = CLIENTS[protocol](target)
    expected = [client.ask(image) for image in good]
    for verdict, answer in expected:
        if verdict != "good":
            raise SystemExit(f"A good image was not answered: {answer}")
    client.close()
    found = {"times": [], "verdicts": collections.Counter(), "examples": {}}
    lock, tickets = threading.Lock(), itertools.count()
    start = time.perf_counter()
    most = arguments.requests or sys.maxsize
    end = sys.maxsize if arguments.requests else start + arguments.seconds

    def one_client(number: int) -> None:
        rng, client = random.Random(number), CLIENTS[protocol](target)
        times, verdicts = [], collections.Counter()
        while next(tickets) < most and time.perf_counter() < end:
            broken = rng.random() < arguments.bad
            index = rng.randrange(len(bad if broken else good))
            began = time.perf_counter()
            try:
                verdict, answer = client.ask((bad if broken else good)[index])
            except (OSError, http.client.HTTPException) as error:
                verdict, answer = "lost", repr(error)
                client.close()
            times.append(time.perf_counter() - began)
            if verdict == "good":
                right = not broken and same(answer, expected[index][1])
                verdict = "good" if right else "wrong"
            elif verdict == "refused" and not broken:
                verdict = "wrong"
            verdicts[verdict] += 1
            if verdict in ("wrong", "lost"):
                found["examples"].setdefault(verdict, str(answer)[:300])
        client.close()
        with lock:
            found["times"] += times
            found["verdicts"] += verdicts

    threads = [
        threading.Thread(target=one_client, args=(number,))
        for number in range(arguments.clients)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - start
    return {**found, "seconds": seconds, "before": len(good)}


def _input_name(saved_model: str) -> str:
    description = json.loads(Path(saved_model, "model.json").read_text("utf-8"))
    return next(iter(description["signatures"]["serving_default"]["inputs"]))


# ------------------------------------------------------------------------- the summary


def call_directly(arguments) -> tuple[list[str], str]:
    """What the signature costs without a server, and a sentence on the machine."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow as tf

    function = tf.saved_model.load(arguments.saved_model).signatures["serving_default"]
    name = _input_name(arguments.saved_model)
    good, _ = pictures(arguments.images)
    inputs = [{name: tf.constant([image])} for image in good]
    for value in inputs[:3]:
        function(**value)
    lines = []
    for threads in (1, arguments.clients):
        times, end = [], time.perf_counter() + min(10, arguments.seconds)

        def work(number, times=times, end=end):
            index = number
            while time.perf_counter() < end:
                began = time.perf_counter()
                function(**inputs[index % len(inputs)])
                times.append(time.perf_counter() - began)
                index += 1

        began, cpu = time.perf_counter(), time.process_time()
        with concurrent.futures.ThreadPoolExecutor(threads) as pool:
            list(pool.map(work, range(threads)))
        rate = len(times) / (time.perf_counter() - began)
        cpu = 1000 * (time.process_time() - cpu) / len(times)
        median, late = 1000 * np.percentile(times, [50, 99])
        lines.append(
            f"{threads} thread{'s' * (threads > 1)}: {rate:.1f} per s, p50 "
            f"{median:.1f} ms, p99 {late:.1f} ms, CPU {cpu:.1f} ms per call"
        )
    machine = (
        f"{os.cpu_count()} cores ({platform.machine()}), Python "
        f"{platform.python_version()}, TensorFlow {tf.__version__}"
    )
    return lines, machine


def summary(protocol: str, clients: int, found: dict, memory: str, cpu: float) -> dict:
    """One row of the table."""
    times = 1000 * np.array(found["times"])
    p50, p95, p99 = np.percentile(times, [50, 95, 99])
    for verdict, example in found["examples"].items():
        print(f"{verdict}, e.g.: {example}", file=sys.stderr)
    counts = {
        k: found["verdicts"][k] for k in ("good", "refused", "busy", "wrong", "lost")
    }
    return {
        "protocol": protocol,
        "clients": clients,
        "requests": len(times),
        "rate": f"{len(times) / found['seconds']:.1f}",
        "p50": f"{p50:.1f}",
        "p95": f"{p95:.1f}",
        "p99": f"{p99:.1f}",
        "worst": f"{times.max():.1f}",
        "cpu": f"{1000 * cpu / (len(times) + found['before']):.1f}" if cpu else "-",
        **counts,
        "memory": memory,
    }


def _watch(pid: int, job) -> tuple[str, float]:
    """The server while the job runs: memory after a third of the time and at the end,
    and the seconds of CPU that it takes."""
    held, used = [], []
    while not job.ready():
        with contextlib.suppress(OSError):
            pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
            held.append(pages * os.sysconf("SC_PAGESIZE") / 1e6)
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            used.append((int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"))
        job.wait(0.5)
    if not pid or not held:
        return "-", 0.0
    return f"{held[len(held) // 3]:.0f} to {held[-1]:.0f}", used[-1] - used[0]


def _line(row: dict) -> str:
    return "| " + " | ".join(map(str, row.values())) + " |"


def _table(rows, direct, machine: str, arguments) -> str:
    description = json.loads(
        Path(arguments.saved_model, "model.json").read_text("utf-8")
    )
    size = "x".join(map(str, description["preprocessing"]["image_size"]))
    where = arguments.target or "the development server on the same machine"
    lines = [
        f"# Load on a server: {description['task']}, {size}, "
        f"{description['parameters']:,} parameters",
        "",
        f"{machine}, {time.strftime('%Y-%m-%d')}. Clients of {where}, one image of "
        f"about 640x480 in each request, {100 * arguments.bad:g} % of them broken. "
        "Every good answer is compared with the one that a single client got.",
        "",
        "| " + " | ".join(HEAD) + " |",
        "|" + "---|" * len(HEAD),
        *map(_line, rows),
        "",
        "The signature called directly, without a server: " + "; ".join(direct) + ".",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
