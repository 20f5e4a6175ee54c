"""Requests that are small or slow on purpose cost the server and the others little."""

import threading
import time

import grpc
import numpy as np
import pytest
import requests
import tensorflow as tf
from adders import publish_adder
from PIL import Image
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from visionkit.data.decode import decode_image
from visionkit.inference import graph
from visionkit.inference.graph import prepare_encoded
from visionkit.serving.server import bundle, grpc_services
from visionkit.serving.server.errors import ServingError
from visionkit.serving.server.limits import Limits
from visionkit.serving.server.messages import read_tensor
from visionkit.serving.server.server import Server
from visionkit.serving.server.sources import ModelSource
from visionkit.types import Preprocessing


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


def of_type(number):
    request = message("", x=[[1.0, 2.0]])
    request.inputs["x"].dtype = number
    return request.SerializeToString()


UNKNOWN_TYPE = of_type(9999)


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


def test_slow_grpc_uploads_cost_nobody_a_thread(tmp_path, caplog):
    publish_adder(tmp_path / "adder", 10)
    options = {"port": 0, "grpc_port": 0, "threads": 1}
    limits = Limits(read_seconds=2, requests=40)
    free = threading.Event()
    with (
        Server(tmp_path, limits=limits, **options) as server,
        grpc.insecure_channel(server.grpc_target) as channel,
    ):
        upload = channel.stream_unary("/tensorflow.serving.PredictionService/Predict")
        # Begun, and no byte of the message comes.
        slow = [upload.future(iter(free.wait, True), timeout=30) for _ in range(30)]
        gone = [upload.future(iter(free.wait, True)) for _ in range(5)]
        for _ in range(3):
            answer = predict(server, message("", x=[[1.0, 2.0]]))
            assert list(answer.outputs["y"].float_val) == [11.0, 12.0]
        assert not any(call.done() for call in slow)
        for call in gone:
            call.cancel()
        for call in slow:
            assert call.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            assert call.details() == "The request did not arrive within 2 s"
        free.set()
    assert [record.getMessage() for record in caplog.records] == []


def test_an_image_behind_many_markers_costs_what_it_shows(picture, encode):
    plain = encode(picture(80, 100))
    stuffed = plain[:2] + b"\xff\xfe\x00\x02" * 100_000 + plain[2:]
    started = time.process_time()
    for encoded in (plain, stuffed, stuffed[: len(stuffed) - 500]):
        assert bundle._sizes(np.array([encoded], object)) == [(80, 100)]
    np.testing.assert_array_equal(decode_image(stuffed), decode_image(plain))
    assert time.process_time() - started < 5
    bomb = np.array([encode(Image.new("1", (8000, 8000)), "PNG")], object)
    assert bundle._sizes(bomb) == [(0, 0)]  # the graph refuses it


def test_high_and_wide_images_together_are_refused_undecoded(encode):
    """Answers for pixels have the height of one and the width of another."""
    images = [encode(Image.new("L", size), "PNG") for size in ((2, 9000), (9000, 2))]
    definition = meta_graph_pb2.SignatureDef()
    given, answer = definition.inputs["data"], definition.outputs["segmentation"]
    given.dtype, answer.dtype = tf.string.as_datatype_enum, tf.uint8.as_datatype_enum
    given.tensor_shape.dim.add(size=-1)
    for _ in range(3):
        answer.tensor_shape.dim.add(size=-1)
    six, eight = ({"data": np.array(images * n, object)} for n in (3, 4))
    bundle.check_size(definition, six, Limits())
    with pytest.raises(ServingError, match="648,000,000"):  # 8 * 9000 * 9000
        bundle.check_size(definition, eight, Limits())
    del answer.tensor_shape.dim[1:]  # one answer for each image
    bundle.check_size(definition, eight, Limits())


def test_a_segmenter_refuses_high_and_wide_images_together():
    def check(sizes, values):
        graph.check_canvas({"image_size": tf.constant(sizes)}, values)

    check([[4000, 3000], [3000, 4000]] * 8, 1)
    check([[5000, 10_000]], 1)
    check([[4000, 6000]], 21)
    check(np.zeros((0, 2), np.int32), 21)
    for sizes, values in (
        ([[16_384, 2], [2, 16_384]] * 32, 1),
        ([[16_384, 2], [2, 16_384]], 3),
    ):
        with pytest.raises(tf.errors.InvalidArgumentError, match="at most 536,870,912"):
            check(sizes, values)


def test_a_jpeg_of_endless_scans_is_refused_undecoded(picture, encode):
    image = picture(80, 100)
    preprocessing = Preprocessing((40, 50), "stretch")
    for options in ({}, {"progressive": True}):
        plain = encode(image, **options)
        assert prepare_encoded(plain, preprocessing)["images"].shape == (40, 50, 3)
    scan = plain[plain.rindex(b"\xff\xda") : -2]
    with pytest.raises(tf.errors.InvalidArgumentError, match="more than 64 scans"):
        prepare_encoded(plain[:-2] + scan * 100_000 + plain[-2:], preprocessing)
    png = encode(image, "PNG") + b"\xff\xda\x00" * 100
    assert prepare_encoded(png, preprocessing)["images"].shape == (40, 50, 3)


@pytest.mark.parametrize(
    ("method", "messages", "code"),
    [
        ("Predict", [], "INVALID_ARGUMENT"),
        ("Predict", [b"\xff\xff"], "INVALID_ARGUMENT"),
        ("Predict", [bytes(200_000)], "RESOURCE_EXHAUSTED"),
        ("Predict", [UNKNOWN_TYPE], "INVALID_ARGUMENT"),
        ("Classify", [b""], "UNIMPLEMENTED"),
        ("Guess", [b""], "UNIMPLEMENTED"),
    ],
)
def test_odd_grpc_messages_get_their_code(small, method, messages, code):
    with grpc.insecure_channel(small.grpc_target) as channel:
        call = channel.stream_unary(f"/tensorflow.serving.PredictionService/{method}")
        with pytest.raises(grpc.RpcError) as caught:
            call(iter(messages), timeout=30)
    assert caught.value.code().name == code


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    base = tmp_path_factory.mktemp("small")
    publish_adder(base / "adder", 10)
    limits = Limits(message_bytes=100_000)
    with Server(base, port=0, grpc_port=0, threads=1, limits=limits) as running:
        yield running
