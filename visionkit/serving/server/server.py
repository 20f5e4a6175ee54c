"""The development server: its ports, its threads and its end."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import socket
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import grpc
import uvicorn
from tensorflow_serving.apis import (
    model_service_pb2_grpc,
    prediction_service_pb2_grpc,
)

from visionkit.serving.server.grpc_services import (
    ModelService,
    PredictionService,
    Reception,
)
from visionkit.serving.server.http_protocol import PromptHttp
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

    It has no authentication and no encryption. REST and gRPC have threads of their own,
    which run requests that have arrived; one more thread receives and sends.

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
        self._grpc: grpc.aio.Server | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._http_end: Future | None = None

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
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="visionkit")
        self._thread.start()
        with contextlib.ExitStack() as undo:
            undo.callback(self._free)
            listening = self._listen()
            undo.callback(listening.close)
            self._grpc = self._await(self._open_grpc())
            undo.callback(lambda: self._await(self._close_grpc()))
            self.registry.start()
            undo.callback(self.registry.stop)
            if self._config is not None:
                self.registry.reconfigure(self._config)
            undo.pop_all()
        self._await(self._grpc.start())
        self._http = uvicorn.Server(self._http_config())
        listening.listen(_BACKLOG)  # who comes from here on is answered
        self._http_end = self._submit(self._http.serve([listening]))

    def stop(self) -> None:
        """Take no more requests, answer those under way, and free the models."""
        self._http.should_exit = True
        self._await(self._grpc.stop(self._limits.drain_seconds))
        self._http_end.result()
        self._free()
        self.registry.stop()

    def _free(self):
        """End the threads; nothing may be under way."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._rest_pool.shutdown()
        self._grpc_pool.shutdown()

    def _submit(self, coroutine) -> Future:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def _await(self, coroutine):
        return self._submit(coroutine).result()

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
            # The strict one of uvicorn's two parsers, with limits for headers.
            http=functools.partial(
                PromptHttp, self._limits.read_seconds, self._limits.write_seconds
            ),
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
        # With its protocol named, or asyncio leaves Nagle's algorithm on: 40 ms each.
        listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((self.host, self.port))
        except OSError as error:
            listening.close()
            raise OSError(f"{self.url} cannot be used: {error.strerror}") from error
        self.port = listening.getsockname()[1]
        return listening

    async def _open_grpc(self) -> grpc.aio.Server:
        """The server on its port; it takes requests when it is started."""
        most = self._limits.message_bytes
        options = (
            *_GRPC_OPTIONS,
            ("grpc.max_receive_message_length", most),
            ("grpc.max_send_message_length", -1),
        )
        server = grpc.aio.server(
            interceptors=[Reception(self._grpc_pool, self._limits.read_seconds)],
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

    async def _close_grpc(self) -> None:
        """Give back the port of a server that was not started."""
        await self._grpc.start()  # only what runs can be stopped
        await self._grpc.stop(None)


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
