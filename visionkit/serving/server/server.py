"""The development server: its ports, its threads and its end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import uvicorn
from tensorflow_serving.apis import (
    model_service_pb2_grpc,
    prediction_service_pb2_grpc,
)

from visionkit.serving.server.grpc_services import ModelService, PredictionService
from visionkit.serving.server.limits import Limits
from visionkit.serving.server.registry import LOG, Registry
from visionkit.serving.server.rest import RestApi
from visionkit.serving.server.sources import find_models, read_config_file

_HEADER_BYTES = 16 << 10
_KEEP_ALIVE_SECONDS = 60
_BACKLOG = 1024  # many clients may come at once

# Two servers on one port would share its clients without a word.
_GRPC_OPTIONS = (("grpc.so_reuseport", 0),)


class Server:
    """Serves SavedModels as TensorFlow Serving does, for development only.

        with Server("saved_models", port=0, grpc_port=0) as server:
            requests.get(f"{server.url}/v1/models/flowers")

    It has no authentication and no encryption. REST and gRPC have threads of their own:
    one of gRPC is taken for as long as a request arrives.

    Args:
        path: A folder of models, a model, a version, or a `models.config` file as
            TensorFlow Serving reads it. New versions, and in a folder new models, are
            found while it runs.
        host: Address to listen on.
        port: Of REST; 0 takes a free one.
        grpc_port: Of gRPC; 0 takes a free one.
        limits: What is refused.
        poll_seconds: Between two looks for new versions.
        threads: That run models, for REST and for gRPC each; default two for each core.

    Raises:
        FileNotFoundError: There is nothing to serve.
        ValueError: The configuration is wrong.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        *,
        host: str = "127.0.0.1",
        port: int = 8501,
        grpc_port: int = 8500,
        limits: Limits | None = None,
        poll_seconds: float = 1.0,
        threads: int | None = None,
    ):
        self.host, self.port, self.grpc_port = host, port, grpc_port
        self._limits = limits or Limits()
        path = Path(path)
        self._config = read_config_file(path) if path.is_file() else None
        if self._config is None:
            find_models(path)  # says now what is missing
        self.registry = Registry(lambda: self._models(path), poll_seconds)
        threads = threads or 2 * (os.cpu_count() or 1)
        self._rest_pool = ThreadPoolExecutor(threads, "visionkit-rest")
        self._grpc_pool = ThreadPoolExecutor(threads, "visionkit-grpc")
        self._http: uvicorn.Server | None = None
        self._grpc: grpc.Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """Where REST is, e.g. "http://127.0.0.1:8501"."""
        return f"http://{_bracketed(self.host)}:{self.port}"

    @property
    def grpc_target(self) -> str:
        """Where gRPC is, e.g. "127.0.0.1:8500"."""
        return f"{_bracketed(self.host)}:{self.grpc_port}"

    def start(self) -> None:
        """Load the models, then open the ports.

        Raises:
            OSError: A port is taken; no model is loaded then.
            ServingError: A label of the configuration names a version that is not
                there.
        """
        with contextlib.ExitStack() as undo:
            listening = self._listen()
            undo.callback(listening.close)
            grpc_server = self._grpc_server()
            undo.callback(grpc_server.stop, None)
            undo.callback(self._grpc_pool.shutdown, False)
            self.registry.start()
            undo.callback(self.registry.stop)
            if self._config is not None:
                self.registry.reconfigure(self._config)
            undo.pop_all()
        self._grpc = grpc_server
        self._grpc.start()
        self._http = uvicorn.Server(self._http_config())
        listening.listen(_BACKLOG)  # who comes from here on is answered
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._http.serve([listening])),
            name="visionkit-rest",
        )
        self._thread.start()

    def stop(self) -> None:
        """Take no more requests, answer those under way, and free the models."""
        self._http.should_exit = True
        drained = self._grpc.stop(self._limits.drain_seconds)
        self._thread.join()
        drained.wait()
        self._rest_pool.shutdown()
        self._grpc_pool.shutdown()
        self.registry.stop()

    def __enter__(self) -> Server:
        """The server, started."""
        self.start()
        return self

    def __exit__(self, *error):
        self.stop()

    def _models(self, path: Path):
        if self._config is not None:
            return self._config
        try:
            return find_models(path)
        except FileNotFoundError:  # was there at the start
            LOG.warning("There is no model in %s any more", path)
            return {}

    def _http_config(self) -> uvicorn.Config:
        return uvicorn.Config(
            RestApi(self.registry, self._rest_pool, self._limits),
            # The strict one of uvicorn's two parsers, with a limit for headers.
            http="h11",
            h11_max_incomplete_event_size=_HEADER_BYTES,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            backlog=_BACKLOG,
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=round(self._limits.drain_seconds),
        )

    def _listen(self) -> socket.socket:
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        listening = socket.socket(family)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((self.host, self.port))
        except OSError as error:
            listening.close()
            raise OSError(f"{self.url} cannot be used: {error.strerror}") from error
        self.port = listening.getsockname()[1]
        return listening

    def _grpc_server(self) -> grpc.Server:
        most = self._limits.message_bytes
        options = (
            *_GRPC_OPTIONS,
            ("grpc.max_receive_message_length", most),
            ("grpc.max_send_message_length", -1),
        )
        server = grpc.server(
            self._grpc_pool,
            options=options,
            maximum_concurrent_rpcs=self._limits.requests,
        )
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
            PredictionService(self.registry, self._limits), server
        )
        model_service_pb2_grpc.add_ModelServiceServicer_to_server(
            ModelService(self.registry), server
        )
        try:
            self.grpc_port = server.add_insecure_port(self.grpc_target)
        except RuntimeError as error:
            target = self.grpc_target
            raise OSError(f"{target} cannot be used for gRPC: it is taken") from error
        return server


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
