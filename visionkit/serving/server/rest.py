"""TensorFlow Serving's REST interface over a registry, as an ASGI application."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import time
import urllib.parse
import zlib
from concurrent.futures import Executor

from google.protobuf import json_format
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, Response

from visionkit.serving.server import json_tensors
from visionkit.serving.server.bundle import check_size
from visionkit.serving.server.errors import ServingError, as_serving_error
from visionkit.serving.server.limits import Limits
from visionkit.serving.server.messages import metadata_message, status_message
from visionkit.serving.server.registry import LOG, Registry

_MODEL = r"/v1/models/(?P<model>[^/:]+)"
_VERSION = r"(?:/(?:versions/(?P<number>\d+)|labels/(?P<label>[^/:]+)))?"
PREDICT = re.compile(rf"(?i){_MODEL}{_VERSION}:(?P<verb>predict|classify|regress)")
STATUS = re.compile(rf"(?i){_MODEL}{_VERSION}(?P<metadata>/metadata)?")

_JSON = "application/json"


class RestApi:
    """The ASGI application.

    Args:
        registry: The models.
        pool: Threads in which requests are read, run and answered.
        limits: What is refused.
    """

    def __init__(self, registry: Registry, pool: Executor, limits: Limits):
        self._registry = registry
        self._pool = pool
        self._limits = limits
        self._under_way = 0  # touched by the event loop alone

    async def __call__(self, scope, receive, send):
        """Answer one request."""
        try:
            response = await self._answer(Request(scope, receive))
        except ClientDisconnect:
            return
        except Exception as error:
            refusal = as_serving_error(error)
            if refusal.code == "INTERNAL":
                LOG.exception("A request failed", exc_info=error)
            response = _refuse(refusal)
        await response(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        path = request.scope["raw_path"].decode("latin-1")
        # As there, the query is matched too, so none is taken.
        path += f"?{request.url.query}" if request.url.query else ""
        if request.method == "GET" and (found := STATUS.fullmatch(path)):
            return self._describe(*_spec(found), metadata=bool(found["metadata"]))
        if request.method == "POST" and (found := PREDICT.fullmatch(path)):
            with self._slot() as admitted:
                body = await self._read(request, keep=admitted)
                return Response(await self._run(found, body), media_type=_JSON)
        return HTMLResponse(
            "<html><head><title>404 Not Found</title></head>"
            "<body><h1>Not Found</h1></body></html>",
            404,
        )

    def _describe(self, model, number, label, *, metadata: bool) -> Response:
        if metadata:
            with self._registry.lease(model, number, label) as version:
                message = metadata_message(version)
        else:
            message = status_message(self._registry.status(model, number, label))
        text = json_format.MessageToJson(
            message,
            indent=1,
            preserving_proto_field_name=True,
            always_print_fields_with_no_presence=True,
        )
        if metadata:
            # What `Any` holds is named by its type here, and is not there.
            document = json.loads(text)
            for value in document["metadata"].values():
                value.pop("@type")
            text = json.dumps(document, indent=1)
        return Response(text, media_type=_JSON)

    @contextlib.contextmanager
    def _slot(self):
        """Whether there is room for one more request, and its place if there is."""
        if self._under_way >= self._limits.requests:
            yield False
            return
        self._under_way += 1
        try:
            yield True
        finally:
            self._under_way -= 1

    async def _read(self, request: Request, *, keep: bool) -> bytes:
        """The body. What is refused is read too, or the client would not hear why."""
        limit = self._limits.body_bytes
        body, size = bytearray(), 0
        try:
            async with asyncio.timeout(self._limits.read_seconds):
                async for chunk in request.stream():
                    size += len(chunk)
                    if keep and size <= limit:
                        body += chunk
        except TimeoutError as error:
            seconds = self._limits.read_seconds
            text = f"The body did not arrive within {seconds:g} s"
            raise ServingError("DEADLINE_EXCEEDED", text, 408) from error
        if not keep:
            text = f"{self._limits.requests} requests are under way already; try later"
            raise ServingError("UNAVAILABLE", text)
        if size <= limit and request.headers.get("content-encoding") == "gzip":
            body = _inflate(bytes(body), limit)
            size = len(body)
        if size > limit:
            text = f"A body may have {limit:,} bytes at most"
            raise ServingError("INVALID_ARGUMENT", text, 413)
        return bytes(body)

    async def _run(self, found: re.Match, body: bytes) -> bytes:
        """The answer's bytes, or a refusal in time, however busy the threads are."""
        seconds = self._limits.seconds
        deadline = time.monotonic() + seconds
        job = self._pool.submit(self._predict, found, body, deadline)
        try:
            async with asyncio.timeout(seconds):
                return await asyncio.wrap_future(job)
        except TimeoutError as error:
            text = f"The answer was not ready within {seconds:g} s"
            raise ServingError("DEADLINE_EXCEEDED", text) from error

    def _predict(self, found: re.Match, body: bytes, deadline: float) -> bytes:
        """From the request's bytes to the answer's, in one of the pool's threads."""
        document = json_tensors.read_json(body)
        signature = json_tensors.read_signature_name(document)
        with self._registry.lease(*_spec(found)) as version:
            bundle, verb = version.bundle, found["verb"].lower()
            definition = bundle.signatures.get(signature or "serving_default")
            if definition is None:
                text = f'Serving signature name: "{signature}" not found in signature'
                raise ServingError("INVALID_ARGUMENT", f"{text} def")
            if verb != "predict":
                raise ServingError(
                    "INVALID_ARGUMENT",
                    f"Expected {verb} signature method_name to be "
                    f"tensorflow/serving/{verb}. Was: {definition.method_name}",
                )
            rows, inputs = json_tensors.read_tensors(document, definition.inputs)
            check_size(definition, inputs, self._limits)
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                text = "Run() timeout exceeded while waiting in the queue"
                raise ServingError("DEADLINE_EXCEEDED", text)
            outputs = bundle.predict(signature, inputs, seconds=remaining)
        return json_tensors.write_json(outputs, rows)


def _spec(found: re.Match) -> tuple[str, int | None, str]:
    """Model, number and label that a path names."""
    number = int(found["number"]) if found["number"] else None
    model, label = found["model"], found["label"] or ""
    return urllib.parse.unquote(model), number, urllib.parse.unquote(label)


def _inflate(body: bytes, limit: int) -> bytes:
    """The gzipped body, up to one byte more than the limit."""
    try:
        return zlib.decompressobj(wbits=31).decompress(body, limit + 1)
    except zlib.error as error:
        text = f"The body is not gzip: {error}"
        raise ServingError("INVALID_ARGUMENT", text) from error


def _refuse(error: ServingError) -> Response:
    headers = {"Retry-After": "1"} if error.status == 503 else None
    content = json.dumps({"error": error.message})
    return Response(content, error.status, headers, media_type=_JSON)
