"""A served model, asked like a local one."""

from __future__ import annotations

import functools
import io
import time
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from visionkit.inference.chunks import chunks
from visionkit.inference.inputs import Image
from visionkit.inference.prediction import DEFAULT_SCORE, Options, answer_all
from visionkit.serving.retries import CallError, with_retries
from visionkit.serving.served import KnownNames, ServedModel, understand
from visionkit.types import Results

SCHEMES = ("http://", "https://", "grpc://", "grpcs://")

REQUEST_BYTES = 8_000_000
"""Encoded images of one request, in bytes; a larger image goes alone."""


class Client:
    """A model behind TF Serving, or behind `serve`, that answers as `predict` does.

        with Client("http://localhost:8501", "flowers") as client:
            results = client.predict(["a.jpg", "b.png"])

    The model must have been exported by visionkit, in any style. What its answers mean
    is read from the server's metadata, once: make a new client after a model of another
    kind was published under the same name.

    REST needs neither TensorFlow nor Keras. gRPC moves dense answers (masks, pixels) in
    a tenth of the bytes and needs both the stubs and TensorFlow. Threads may share a
    client.

    Args:
        url: "http://host:8501", "https://...", "grpc://host:8500" or "grpcs://...".
        model: The model's name on the server.
        version: The version to ask; default the server's choice, the newest.
        label: In place of `version`, a label such as "stable".
        description: The export's `model.json`: its path, its folder or its content.
            Only it knows every class name. Without it a name that no answer says is
            the label's number: all but the best class of a classification, the classes
            of pixels, and all under a style other than visionkit's. It also says
            whether images are turned upright, which is the default.
        timeout: Seconds for one attempt.
        retries: Further attempts when the server is busy or not reached, after waits
            that grow. What is wrong with a request is raised at once.
        headers: Sent with every request, such as an authorization.

    Raises:
        ImportError: gRPC's stubs are not installed.
        ValueError: The URL or an option is wrong.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        version: int | None = None,
        label: str | None = None,
        description=None,
        timeout: float = 30.0,
        retries: int = 5,
        headers: dict[str, str] | None = None,
    ):
        if version is not None and label is not None:
            raise ValueError(
                "Give `version` or `label`, not both. Received: "
                f"version={version}, label={label!r}"
            )
        if retries < 0:
            raise ValueError(
                f"`retries` must be at least 0. Received: retries={retries}"
            )
        self.retries = retries
        self.description = description
        self.transport = _transport(url, model, version, label, timeout, headers or {})

    @functools.cached_property
    def served(self) -> ServedModel:
        """What the server says of the model."""
        signatures = with_retries(self.transport.metadata, self.retries)
        return understand(signatures, self.description)

    def predict(
        self,
        images,
        *,
        batch_size: int = 16,
        request_bytes: int = REQUEST_BYTES,
        top: int = 5,
        score: float | None = None,
    ) -> list[Results]:
        """Answers for images of any size, in pixels of the originals.

        Args:
            images: As for `visionkit.predict`: paths, folders, glob patterns, encoded
                bytes, (H, W, C) or (B, H, W, C) uint8 pixels (sent as PNG), PIL images,
                videos.
            batch_size: Images per request, at most.
            request_bytes: Encoded images of one request, in bytes; a larger image goes
                alone. What the server finds too large is asked again in halves.
            top: How many classes a classification result lists, best first.
            score: Labels with a lower score are left out; default 0, for boxes 0.25.

        Returns:
            A `Results` per image or frame, in order. An image that cannot be read, or
            is too large for the server, has `error` set and does not stop the others.

        Raises:
            FileNotFoundError: An image does not exist.
            CallError: The server refused, or could not be reached.
            TypeError: An image is of a type that is not listed above.
            ValueError: An array has the wrong type or shape, an option is out of range,
                or the model was not exported by visionkit.
        """
        if batch_size < 1 or request_bytes < 1:
            raise ValueError(
                "`batch_size` and `request_bytes` must be at least 1. Received: "
                f"batch_size={batch_size}, request_bytes={request_bytes}"
            )
        if score is None:
            score = DEFAULT_SCORE[self.served.task]
        answerer = _ServedAnswerer(self, request_bytes)
        return answer_all(images, answerer, Options(batch_size, top, score))

    def status(self) -> dict[int, str]:
        """Version -> state: START, LOADING, AVAILABLE, UNLOADING or END.

        Raises:
            CallError: The server does not know the model, or could not be reached.
        """
        versions = with_retries(self.transport.status, self.retries)
        return {int(v["version"]): v["state"] for v in versions}

    def wait_until_ready(self, seconds: float = 60.0) -> None:
        """Return as soon as a version is AVAILABLE.

        Raises:
            TimeoutError: None was within so many seconds.
        """
        end = time.monotonic() + seconds
        while True:
            try:
                found = [v["state"] for v in self.transport.status()]
                if "AVAILABLE" in found:
                    return
            except CallError as error:
                found = error
            if time.monotonic() >= end:
                raise TimeoutError(
                    f"The model was not available within {seconds} s: {found}"
                )
            time.sleep(0.2)

    def close(self) -> None:
        """Close the connections."""
        self.transport.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_) -> None:
        self.close()


class _ServedAnswerer:
    """Answers of a server, one dict per image; see `inference.answerers`."""

    def __init__(self, client: Client, request_bytes: int):
        served = client.served
        self.client, self.served = client, served
        self.request_bytes = request_bytes
        self.task, self.style = served.task, served.style
        self.preprocessing = served.preprocessing
        self.class_names = served.class_names

    def encoded(self, items: Sequence[str | bytes], batch_size: int) -> Iterator[dict]:
        """Answers for files and encoded images, one dict each."""
        return self._answers(items, batch_size)

    def arrays(self, items: Sequence[np.ndarray], batch_size: int) -> Iterator[dict]:
        """Answers for (H, W, C) uint8 arrays, one dict each."""
        return self._answers(map(_png, items), batch_size)

    def _answers(self, images: Iterable[Image], batch_size: int) -> Iterator[dict]:
        for chunk in chunks(images, batch_size, self.request_bytes):
            sent = [content for content in chunk if content]
            rows = self._ask(sent) if sent else iter(())
            for content in chunk:
                yield next(rows) if content else {"image_valid": 0}

    def _ask(self, images: list[bytes]) -> Iterator[dict]:
        client, served = self.client, self.served
        try:
            outputs = with_retries(
                lambda: client.transport.predict("tolerant", served.input_name, images),
                client.retries,
            )
        except CallError as error:
            if not error.too_large:
                raise
            if len(images) == 1:
                yield {"image_valid": 0, "refused": str(error)}
                return
            half = len(images) // 2
            yield from self._ask(images[:half])
            yield from self._ask(images[half:])
            return
        arrays = {
            name: np.asarray(outputs[name], dtype)
            for name, dtype in served.outputs.items()
        }
        named = isinstance(self.class_names, KnownNames) and "label_names" in arrays
        for index in range(len(images)):
            row = {name: array[index] for name, array in arrays.items()}
            if named:
                row["class_names"] = KnownNames.of_answer(row)
            yield row


def _png(pixels: np.ndarray) -> bytes:
    """The same pixels in fewer bytes than numbers in JSON take."""
    from PIL import Image as PillowImage

    buffer = io.BytesIO()
    squeezed = pixels[..., 0] if pixels.shape[-1] == 1 else pixels
    PillowImage.fromarray(squeezed).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _transport(url, model, version, label, timeout, headers):
    scheme, _, address = url.partition("://")
    if f"{scheme}://" not in SCHEMES or not address:
        raise ValueError(
            f"`url` must begin with one of {', '.join(SCHEMES)} and name a host. "
            f"Received: url={url!r}"
        )
    if scheme.startswith("http"):
        from visionkit.serving.rest_client import RestTransport

        which = "" if version is None else f"/versions/{version}"
        which = which if label is None else f"/labels/{label}"
        return RestTransport(url, model, which, timeout, headers)
    from visionkit.serving.grpc_client import GrpcTransport

    which = {} if version is None else {"version": version}
    which = which if label is None else {"version_label": label}
    secure = scheme == "grpcs"
    return GrpcTransport(address, model, which, timeout, headers, secure=secure)
