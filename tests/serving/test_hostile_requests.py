"""Requests that are small or slow on purpose cost the server and the others little."""

import threading

import grpc
import pytest
import requests
import tensorflow as tf
from adders import publish_adder
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from visionkit.serving.server import bundle, grpc_services
from visionkit.serving.server.errors import ServingError
from visionkit.serving.server.limits import Limits
from visionkit.serving.server.messages import read_tensor
from visionkit.serving.server.server import Server
from visionkit.serving.server.sources import ModelSource


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    base = tmp_path_factory.mktemp("hostile")
    publish_adder(base / "adder", 10)
    options = {"port": 0, "grpc_port": 0, "threads": 1, "limits": Limits(seconds=3)}
    with Server(base, **options) as running:
        yield running


def message(signature, **inputs):
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "adder"
    request.model_spec.signature_name = signature
    for name, value in inputs.items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
    return request


def predict(server, request):
    with grpc.insecure_channel(server.grpc_target) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        return stub.Predict(request, timeout=60)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_string_does_not_fill_a_shape(count):
    tensor = tf.make_tensor_proto([b"image"] * 2)
    assert list(read_tensor(tensor, 1000)) == [b"image"] * 2
    tensor.string_val[:] = [b"image"] * count
    with pytest.raises(ServingError, match=rf"\[2\] has {count} values") as caught:
        read_tensor(tensor, 1000)
    assert caught.value.code == "INVALID_ARGUMENT"


@pytest.mark.parametrize(
    ("inputs", "unpacked"),
    [({"data": [b"a"], "more": [b"b"]}, False), ({"data": [[b"a"]]}, True)],
)
def test_pixels_are_counted_last(server, monkeypatch, inputs, unpacked):
    seen = []
    real = grpc_services.read_tensor
    monkeypatch.setattr(
        grpc_services, "read_tensor", lambda *a: seen.append(a) or real(*a)
    )
    monkeypatch.setattr(bundle, "inspect_image", None)
    with pytest.raises(grpc.RpcError) as caught:
        predict(server, message("strings", **inputs))
    assert caught.value.code().name == "INVALID_ARGUMENT" and bool(seen) == unpacked


def test_slow_grpc_requests_leave_rest_its_threads(server):
    free = threading.Event()
    server._grpc_pool.submit(free.wait, 60)  # its only thread
    try:
        url = f"{server.url}/v1/models/adder:predict"
        assert requests.post(url, json={"inputs": [[1, 2]]}, timeout=60).ok
    finally:
        free.set()


def test_rest_waits_no_longer_for_its_threads_than_it_says(server):
    free = threading.Event()
    server._rest_pool.submit(free.wait, 60)  # its only thread
    try:
        url = f"{server.url}/v1/models/adder:predict"
        answer = requests.post(url, json={"inputs": [[1, 2]]}, timeout=30)
        assert answer.status_code == 504 and "within 3 s" in answer.json()["error"]
    finally:
        free.set()
    assert requests.post(url, json={"inputs": [[1, 2]]}, timeout=30).ok


def test_a_deadline_that_has_passed_is_not_none_at_all():
    class Context:
        def __init__(self, seconds):
            self.time_remaining = lambda: seconds

    with pytest.raises(ServingError) as caught:
        grpc_services._remaining(Context(0.0))
    assert caught.value.code == "DEADLINE_EXCEEDED"
    assert grpc_services._remaining(Context(2.0)) == 2.0
    assert grpc_services._remaining(Context(None)) > 1e9


def test_only_a_folder_that_is_gone_has_no_versions(tmp_path, monkeypatch):
    source = ModelSource("adder", tmp_path / "adder")
    assert source.wanted() == {}
    (tmp_path / "adder").touch()
    assert source.wanted() == {}

    def versions(_):
        raise PermissionError("not now")

    monkeypatch.setattr("visionkit.serving.server.sources.versions", versions)
    with pytest.raises(PermissionError, match="not now"):
        source.wanted()
