"""What the load on a server is made of: clients, images, and how answers compare."""

from __future__ import annotations

import base64
import hashlib
import http.client
import io
import json
import urllib.parse
from pathlib import Path

import numpy as np

SECONDS = 60  # longest that a client waits for an answer

# What gRPC itself says of a connection; a server that is busy says something else.
_BROKEN = ("connect", "socket", "goaway", "transport", "reset", "broken pipe")


class RestClient:
    """One kept connection.

    Args:
        target: "url", the model's "name", its "input" and the "signature".
        version: Which is asked; default the newest.
    """

    def __init__(self, target: dict, version: int | None = None):
        address = urllib.parse.urlsplit(target["url"])
        where = f"/versions/{version}" if version else ""
        self._path = f"/v1/models/{target['name']}{where}:predict"
        self._signature, self._input = target["signature"], target["input"]
        self._connection = http.client.HTTPConnection(address.netloc, timeout=SECONDS)

    def ask(self, image: bytes) -> tuple[str, bytes | str, int | None]:
        """A verdict, the answer as it came or the error, and which version it names."""
        encoded = base64.b64encode(image).decode("ascii")
        inputs = {self._input: [{"b64": encoded}]}
        body = json.dumps({"signature_name": self._signature, "inputs": inputs})
        try:
            self._connection.request("POST", self._path, body)
            response = self._connection.getresponse()
            content = response.read()
        except (OSError, http.client.HTTPException) as error:
            self.close()
            return "lost", repr(error), None
        if response.status != 200:
            kinds = {400: "refused", 429: "busy", 503: "busy"}
            error = f"{response.status}: {content[:300]!r}"
            return kinds.get(response.status, "lost"), error, None
        return "good", content, None

    @staticmethod
    def values(answer: bytes) -> dict:
        """The outputs of an answer."""
        text = answer.decode("utf-8", "surrogateescape")
        found = json.loads(text)["outputs"]
        return found if isinstance(found, dict) else {"output": found}

    def close(self) -> None:
        """Close the connection, so that the next request opens another."""
        self._connection.close()


class GrpcClient:
    """One channel.

    Args:
        target: "grpc", the model's "name", its "input" and the "signature".
        version: Which is asked; default the newest.
    """

    def __init__(self, target: dict, version: int | None = None):
        import grpc
        from tensorflow_serving.apis import prediction_service_pb2_grpc

        options = [
            ("grpc.max_receive_message_length", -1),
            ("grpc.use_local_subchannel_pool", 1),  # a connection for each client
        ]
        self._error, self._name = grpc.RpcError, target["name"]
        self._input, self._version = target["input"], version
        self._signature = target["signature"]
        self._open = lambda: grpc.insecure_channel(target["grpc"], options)
        self._stub = prediction_service_pb2_grpc.PredictionServiceStub
        self._channel = None

    def ask(self, image: bytes) -> tuple[str, object, int | None]:
        """A verdict, the answer as it came or the error, and which version it names."""
        from tensorflow_serving.apis import predict_pb2

        if self._channel is None:
            self._channel = self._open()
            self._predict = self._stub(self._channel).Predict
        request = predict_pb2.PredictRequest()
        request.model_spec.name = self._name
        request.model_spec.signature_name = self._signature
        if self._version:
            request.model_spec.version.value = self._version
        tensor = request.inputs[self._input]
        tensor.dtype = 7  # DT_STRING
        tensor.tensor_shape.dim.add(size=1)
        tensor.string_val.append(image)
        try:
            response = self._predict(request, timeout=SECONDS)
        except self._error as error:
            code, details = error.code().name, error.details()
            kinds = {"INVALID_ARGUMENT": "refused", "RESOURCE_EXHAUSTED": "busy"}
            if code == "UNAVAILABLE" and not any(
                words in details.lower() for words in _BROKEN
            ):
                kinds[code] = "busy"
            return kinds.get(code, "lost"), f"{code}: {details}", None
        return "good", response, response.model_spec.version.value

    @staticmethod
    def values(answer) -> dict:
        """The outputs of an answer."""
        return {name: _numbers(value) for name, value in answer.outputs.items()}

    def close(self) -> None:
        """Close the channel, so that the next request opens another."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None


CLIENTS = {"rest": RestClient, "grpc": GrpcClient}


def _numbers(tensor) -> list | np.ndarray:
    """The numbers or strings of a `TensorProto`, without TensorFlow's help."""
    shape = [dim.size for dim in tensor.tensor_shape.dim]
    if tensor.tensor_content:
        types = {1: "float32", 3: "int32", 4: "uint8", 9: "int64"}
        return np.frombuffer(tensor.tensor_content, types[tensor.dtype]).reshape(shape)
    fields = ("float_val", "int_val", "string_val", "int64_val")
    found = next((list(getattr(tensor, f)) for f in fields if getattr(tensor, f)), [])
    return np.array(found).reshape(shape).tolist()


def unusable(values: dict) -> bool:
    """Whether an answer of `tolerant` says that the image is broken."""
    return np.ravel(values.get("image_valid", 1)).tolist() == [0]


def same(got: dict, expected: dict) -> bool:
    """Whether two answers are equal, floats to 1e-5 of the largest."""
    if set(got) != set(expected):
        return False
    got, expected = _own(got), _own(expected)
    for name, value in expected.items():
        a, b = np.array(got[name]), np.array(value)
        if a.shape != b.shape:
            return False
        if b.dtype.kind == "f":
            allowed = 1e-5 * max(1.0, np.max(np.abs(b), initial=0.0))
            if np.max(np.abs(a - b), initial=0.0) > allowed:
                return False
        elif not np.array_equal(a, b):
            return False
    return True


def _own(values: dict) -> dict:
    """An image's answer without the border that larger ones in its batch bring."""
    if "segmentation" not in values:
        return values
    ((height, width),) = np.array(values["image_size"])
    pixels = np.array(values["segmentation"])[:, :height, :width]
    return {**values, "segmentation": pixels}


def digest(image: bytes) -> str:
    """The key of an image: what it is, and not where it stands."""
    return hashlib.sha256(image).hexdigest()


def pictures(folder: str | None) -> tuple[list[bytes], list[bytes]]:
    """Good images, all different, and broken ones."""
    if folder:
        files = sorted(Path(folder).iterdir())
        kinds = (".jpg", ".jpeg", ".png")
        good = [f.read_bytes() for f in files if f.suffix.lower() in kinds][:200]
        good = list({digest(image): image for image in good}.values())
    else:
        good = [_draw(seed) for seed in range(100)]
    first = good[0]
    return good, [first[: len(first) // 2], first[:-20], b"<html></html>", b""]


def _draw(seed: int) -> bytes:
    """A smooth picture of about 640x480, JPEG or PNG, unlike the others."""
    from PIL import Image

    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), np.uint8))
    size = tuple(int(side) for side in rng.integers((480, 360), (800, 600)))
    buffer = io.BytesIO()
    image = coarse.resize(size, Image.Resampling.BICUBIC)
    image.save(buffer, "PNG" if seed % 10 == 0 else "JPEG", quality=90)
    return buffer.getvalue()
