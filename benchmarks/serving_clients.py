"""What the load on a server is made of: clients, images, and how answers compare."""

from __future__ import annotations

import base64
import http.client
import io
import json
import urllib.parse
from pathlib import Path

import numpy as np

SECONDS = 60  # longest that a client waits for an answer


class RestClient:
    """One kept connection."""

    def __init__(self, target: dict):
        address = urllib.parse.urlsplit(target["url"])
        self._path = f"/v1/models/{target['name']}:predict"
        self._connection = http.client.HTTPConnection(address.netloc, timeout=SECONDS)

    def ask(self, image: bytes) -> tuple[str, dict | str]:
        """A verdict, and the answer or the error."""
        encoded = base64.b64encode(image).decode("ascii")
        body = json.dumps({"inputs": [{"b64": encoded}]})
        self._connection.request("POST", self._path, body)
        response = self._connection.getresponse()
        text = response.read().decode("utf-8", "surrogateescape")
        if response.status != 200:
            kinds = {400: "refused", 429: "busy", 503: "busy"}
            return kinds.get(response.status, "lost"), f"{response.status}: {text}"
        return "good", json.loads(text)["outputs"]

    def close(self) -> None:
        """Close the connection, so that the next request opens another."""
        self._connection.close()


class GrpcClient:
    """One channel."""

    def __init__(self, target: dict):
        import grpc
        from tensorflow_serving.apis import prediction_service_pb2_grpc

        options = [
            ("grpc.max_receive_message_length", -1),
            ("grpc.use_local_subchannel_pool", 1),  # a connection for each client
        ]
        self._error, self._name = grpc.RpcError, target["name"]
        self._input = target["input"]
        self._channel = grpc.insecure_channel(target["grpc"], options)
        stub = prediction_service_pb2_grpc.PredictionServiceStub(self._channel)
        self._predict = stub.Predict

    def ask(self, image: bytes) -> tuple[str, dict | str]:
        """A verdict, and the answer or the error."""
        from tensorflow_serving.apis import predict_pb2

        request = predict_pb2.PredictRequest()
        request.model_spec.name = self._name
        tensor = request.inputs[self._input]
        tensor.dtype = 7  # DT_STRING
        tensor.tensor_shape.dim.add(size=1)
        tensor.string_val.append(image)
        try:
            outputs = self._predict(request, timeout=SECONDS).outputs
        except self._error as error:
            busy = ("UNAVAILABLE", "RESOURCE_EXHAUSTED")
            kinds = {"INVALID_ARGUMENT": "refused", **dict.fromkeys(busy, "busy")}
            code = error.code().name
            return kinds.get(code, "lost"), f"{code}: {error.details()}"
        return "good", {name: _values(value) for name, value in outputs.items()}

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()


CLIENTS = {"rest": RestClient, "grpc": GrpcClient}
_INPUT = ["image_bytes"]


def _values(tensor) -> list | np.ndarray:
    """The numbers or strings of a `TensorProto`, flat, without TensorFlow's help."""
    if tensor.tensor_content:
        types = {1: "float32", 3: "int32", 4: "uint8", 9: "int64"}
        return np.frombuffer(tensor.tensor_content, types[tensor.dtype])
    fields = ("float_val", "int_val", "string_val", "int64_val")
    return next((list(getattr(tensor, f)) for f in fields if getattr(tensor, f)), [])


def same(got: dict, expected: dict) -> bool:
    """Whether two answers are equal, floats to 1e-5 of the largest."""
    if set(got) != set(expected):
        return False
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


def pictures(folder: str | None) -> tuple[list[bytes], list[bytes]]:
    """Good images, all different, and broken ones."""
    if folder:
        files = sorted(Path(folder).iterdir())
        kinds = (".jpg", ".jpeg", ".png")
        good = [f.read_bytes() for f in files if f.suffix.lower() in kinds][:200]
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
