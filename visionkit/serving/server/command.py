"""`serve`: the development server in the foreground."""

from __future__ import annotations

import importlib.util
import logging
import os
import signal
import sys
import threading

from visionkit._quiet import quiet_start
from visionkit.serving.server.memory import limit_arenas

_NEEDED = ("grpc", "starlette", "tensorflow_serving", "uvicorn")

NOTICE = (
    "This is visionkit's development server, not TensorFlow Serving: for development "
    "and tests, without authentication and encryption."
)


def serve_command(arguments) -> None:
    """Serve until SIGTERM or Ctrl-C, then answer what is under way and leave."""
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise RuntimeError(
            f"`serve` needs {', '.join(missing)}: pip install 'visionkit[serve]'"
        )
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    limit_arenas()
    with quiet_start():
        from visionkit.serving.server.errors import ServingError
        from visionkit.serving.server.limits import Limits
        from visionkit.serving.server.registry import LOG
        from visionkit.serving.server.server import Server

    logging.basicConfig(format="%(asctime)s %(levelname)-7s %(message)s")
    LOG.setLevel("INFO")
    limits = Limits(
        body_bytes=round(arguments.max_body * 1e6),
        batch=arguments.max_batch,
        requests=arguments.max_requests,
        seconds=arguments.timeout,
    )
    server = Server(
        arguments.models,
        host=arguments.host,
        port=arguments.port,
        grpc_port=arguments.grpc_port,
        limits=limits,
    )
    # Until it serves nothing is under way: a signal ends it, in TensorFlow's code too.
    _on_signals(signal.SIG_DFL)
    print(NOTICE, file=sys.stderr, flush=True)
    try:
        server.start()
    except ServingError as error:
        raise RuntimeError(f"{arguments.models}: {error}") from error
    told = threading.Event()
    _on_signals(lambda *_: told.set())
    try:
        # As TensorFlow Serving, which does not start without one of its models either.
        if missing := server.registry.missing():
            reasons = "\n".join(f"  {model}: {why}" for model, why in missing.items())
            raise RuntimeError(f"Models without a version to serve:\n{reasons}")
        for version in server.registry.all():
            if version.state == "AVAILABLE":
                print(f"serving   {version.model} version {version.number}")
        print(f"REST      {server.url}/v1/models/NAME:predict")
        print(f"gRPC      {server.grpc_target}", flush=True)
        told.wait()
        print("stopping  answering what is under way", flush=True)
        _on_signals(signal.SIG_DFL)  # a second one need not be waited for
    finally:
        server.stop()


def _on_signals(action) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, action)
