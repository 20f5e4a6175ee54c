"""The server that is asked, in a process of its own, and its model without a server."""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import multiprocessing
import time
from pathlib import Path

import numpy as np
from serving_clients import pictures

from visionkit._quiet import quiet_start
from visionkit.serving.server.memory import limit_arenas

CONTEXT = multiprocessing.get_context("spawn")


@contextlib.contextmanager
def server(arguments, path: str, name: str | None = None):
    """Where to ask, and the process to watch."""
    asked = {
        "input": _input_name(arguments.saved_model),
        "signature": arguments.signature,
    }
    if arguments.target:
        where = {"url": arguments.target, "grpc": arguments.grpc, "pid": 0}
        yield {**where, "name": arguments.model or "model", **asked}
        return
    ours, theirs = CONTEXT.Pipe()
    process = CONTEXT.Process(target=serve, args=(path, name, theirs))
    process.start()
    theirs.close()  # so that its end is noticed
    try:
        yield {**ours.recv(), "pid": process.pid, **asked}
        ours.send("stop")
    finally:
        ours.close()
        process.join()


def serve(path: str, name: str | None, pipe) -> None:
    """The development server, until it is told to stop."""
    limit_arenas()  # as the command `serve`
    with quiet_start():
        from visionkit.serving.server.server import Server
        from visionkit.serving.server.sources import find_models

    name = name or next(iter(find_models(Path(path))))
    with Server(path, port=0, grpc_port=0) as server:
        pipe.send({"url": server.url, "grpc": server.grpc_target, "name": name})
        with contextlib.suppress(EOFError):  # whoever asked is gone
            pipe.recv()


def _input_name(saved_model: str) -> str:
    description = json.loads(Path(saved_model, "model.json").read_text("utf-8"))
    return next(iter(description["signatures"]["serving_default"]["inputs"]))


def costs(arguments) -> list[str]:
    """What the signature costs when it is called without a server, in sentences."""
    with CONTEXT.Pool(1) as pool:  # nothing else runs in its process
        return pool.apply(_call_directly, (arguments,))


def _call_directly(arguments) -> list[str]:
    with quiet_start():
        import tensorflow as tf

    signatures = tf.saved_model.load(arguments.saved_model).signatures
    function = signatures[arguments.signature]
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
    return lines
