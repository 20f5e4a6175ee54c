"""The server under examination, and what it is compared with."""

from __future__ import annotations

import base64
import dataclasses
import functools
import http.client
import json
import urllib.parse

import numpy as np
import tensorflow as tf

from visionkit.serving.samples import decode_sample, sample_images

TOLERANCE = 1e-5
_SECONDS = 120  # the first call of a signature may build a lot


_NUMPY = {
    "DT_FLOAT": np.float32,
    "DT_INT32": np.int32,
    "DT_INT64": np.int64,
    "DT_UINT8": np.uint8,
    "DT_BOOL": bool,
}


class Mismatch(Exception):
    """The server does not do what is expected."""


class Skip(Exception):
    """The case does not apply to this server or model."""


def expect(holds: bool, what: str) -> None:
    """Raise `Mismatch` unless it holds."""
    if not holds:
        raise Mismatch(what)


@dataclasses.dataclass(frozen=True)
class Answer:
    """What came back over HTTP."""

    status: int
    text: str

    @functools.cached_property
    def document(self):
        """The JSON in it."""
        try:
            return json.loads(self.text)
        except ValueError as error:
            raise Mismatch(f"the body is no JSON: {self.text[:80]!r}") from error

    def refused(self, status: int, *words: str) -> None:
        """Expect an error with this status whose text holds these words."""
        expect(self.status == status, f"status {self.status}, expected {status}")
        keys = list(self.document)
        expect(keys == ["error"], f"keys {keys}, expected error")
        for word in words:
            error = self.document["error"]
            expect(word in error, f"the error lacks {word!r}: {error!r}")


class Subject:
    """A model in a server, by REST and, where it is given, by gRPC.

    Args:
        url: Where REST is.
        model: Name of the model.
        grpc: Where gRPC is, host:port; empty if not to be asked.
        saved_model: Folder of the version that is served; empty if it is not at hand.

    Raises:
        Mismatch: The server does not describe the model, or it takes no encoded images.
        OSError: The server cannot be reached.
    """

    def __init__(self, url: str, model: str, grpc: str = "", saved_model: str = ""):
        self.address = urllib.parse.urlsplit(url if "//" in url else f"http://{url}")
        self.model, self.grpc = model, grpc
        self._saved_model = saved_model
        metadata = self.get(f"{self.path}/metadata").document
        try:
            self.signatures = metadata["metadata"]["signature_def"]["signature_def"]
            self.version = int(metadata["model_spec"]["version"])
            inputs = self.signatures["serving_default"]["inputs"]
        except (KeyError, TypeError) as error:
            raise Mismatch(f"no signatures in the metadata: {metadata}") from error
        (self.input, info), *more = inputs.items()
        expect(not more and info["dtype"] == "DT_STRING", "it takes no encoded images")
        self.pictures = sample_images(self._channels())
        self.pixels = np.stack(
            [decode_sample(self.pictures[0]) // (row + 1) for row in range(2)]
        )
        self.broken = {
            "a JPEG cut off": self.pictures[0][: len(self.pictures[0]) // 2],
            "a PNG cut off": self.pictures[1][: len(self.pictures[1]) // 2],
            "a web page": b"<!doctype html><html></html>",
            "nothing": b"",
        }

    @property
    def path(self) -> str:
        """Path of the model."""
        return f"/v1/models/{urllib.parse.quote(self.model, safe='')}"

    def get(self, path: str) -> Answer:
        """GET of a path."""
        return self._call("GET", path, None)

    def post(self, path: str, body) -> Answer:
        """POST of a JSON document, or of bytes as they are."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self._call("POST", path, data)

    def predict(self, body, version: str = "") -> Answer:
        """POST to the model's `predict`."""
        return self.post(f"{self.path}{version}:predict", body)

    def answers(self, body, signature: str = "serving_default") -> dict:
        """Output name -> array, of a request that must succeed."""
        named = {} if signature == "serving_default" else {"signature_name": signature}
        answer = self.predict({**named, **body})
        expect(answer.status == 200, f"status {answer.status}: {answer.text[:200]}")
        key = "predictions" if "instances" in body else "outputs"
        expect(list(answer.document) == [key], f"the answer has no {key!r} alone")
        outputs, found = self.signatures[signature]["outputs"], answer.document[key]
        if len(outputs) == 1:
            found = {next(iter(outputs)): found}
        elif key == "predictions":
            found = {name: [row[name] for row in found] for name in outputs}
        expect(set(found) == set(outputs), f"outputs {sorted(found)}")
        return {name: _array(found[name], i["dtype"]) for name, i in outputs.items()}

    def direct(self, signature: str, name: str, value) -> dict:
        """Output name -> array, of the signature itself in this process."""
        if not self._saved_model:
            raise Skip("no --saved-model to compare with")
        answers = self._loaded.signatures[signature](**{name: tf.constant(value)})
        return {name: answer.numpy() for name, answer in answers.items()}

    @functools.cached_property
    def _loaded(self):
        return tf.saved_model.load(self._saved_model)

    def _channels(self) -> int:
        info = self.signatures.get("images", {}).get("inputs", {}).get("images", {})
        sizes = info.get("tensor_shape", {}).get("dim", [])
        return int(sizes[-1]["size"]) if len(sizes) == 4 else 3

    def _call(self, method: str, path: str, data: bytes | None) -> Answer:
        secure = self.address.scheme == "https"
        kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        connection = kind(self.address.hostname, self.address.port, timeout=_SECONDS)
        try:
            headers = {"Content-Type": "application/json"}
            connection.request(method, self.address.path + path, data, headers)
            response = connection.getresponse()
            text = response.read().decode("utf-8", "surrogateescape")
            return Answer(response.status, text)
        finally:
            connection.close()


def encoded(image: bytes) -> dict:
    """An image as REST takes it."""
    return {"b64": base64.b64encode(image).decode("ascii")}


def expect_same(got: dict, expected: dict, what: str) -> None:
    """Expect equal answers; floats may be written in decimals on the way."""
    expect(set(got) == set(expected), f"{what}: outputs {sorted(got)}")
    for name, value in expected.items():
        other = got[name]
        expect(
            other.shape == value.shape,
            f"{what}: {name} has shape {other.shape}, expected {value.shape}",
        )
        if value.dtype.kind == "f":
            allowed = TOLERANCE * np.max(np.abs(value), initial=1.0)
            worst = np.max(np.abs(other - value), initial=0.0)
            expect(worst <= allowed, f"{what}: {name} differs by {worst:.2g}")
        else:
            expect(bool(np.all(other == value)), f"{what}: {name} differs")


def _array(value, dtype: str) -> np.ndarray:
    if dtype != "DT_STRING":
        return np.array(value, _NUMPY[dtype])
    texts = np.array(value, object)
    array = np.empty(texts.shape, object)
    for index, text in np.ndenumerate(texts):
        array[index] = text.encode("utf-8", "surrogateescape")
    return array
