"""The development server loses nothing, refuses what is too much, leaves cleanly."""

import gzip
import http.client
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time

import grpc
import numpy as np
import pytest
import requests
import tensorflow as tf
from adders import publish_adder
from google.protobuf import text_format
from tensorflow_serving.apis import (
    model_management_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from visionkit.serving.publish import versions
from visionkit.serving.server import registry, sources
from visionkit.serving.server.limits import Limits
from visionkit.serving.server.server import Server
from visionkit.serving.server.sources import find_models
from visionkit.serving.warmup import write_warmup
from visionkit.tasks.__main__ import main

LIMITS = Limits(
    body_bytes=20_000, batch=8, pixels=10_000, requests=3, seconds=1, read_seconds=0.5
)


def start(path, **options):
    return Server(path, port=0, grpc_port=0, poll_seconds=0.05, **options)


def ask(server, x=((1.0, 2.0),), where="adder", **more):
    url = f"{server.url}/v1/models/{where}:predict"
    return requests.post(url, json={"inputs": x, **more}, timeout=60)


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def states(server, model="adder"):
    found = requests.get(f"{server.url}/v1/models/{model}").json()
    return {int(v["version"]): v["state"] for v in found["model_version_status"]}


@pytest.fixture(scope="module")
def strict(tmp_path_factory):
    """A server with small limits."""
    base = tmp_path_factory.mktemp("strict")
    publish_adder(base / "adder", 10)
    with start(base, limits=LIMITS, threads=2) as server:
        yield server


def add(channel):
    """The answer over gRPC, and the version that it names."""
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "adder"
    request.inputs["x"].CopyFrom(tf.make_tensor_proto([[1.0, 2.0]]))
    stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
    response = stub.Predict(request, timeout=60)
    outputs = {k: tf.make_ndarray(v).tolist() for k, v in response.outputs.items()}
    assert outputs["amount"] == [response.model_spec.version.value]
    return outputs


def test_versions_swapped_under_load_lose_nothing(tmp_path):
    publish_adder(tmp_path / "adder", 1)
    with (
        start(tmp_path) as server,
        grpc.insecure_channel(server.grpc_target) as channel,
    ):
        stop, seen, failures = threading.Event(), [[] for _ in range(8)], []

        def client(mine, over_grpc):
            while not stop.is_set():
                try:
                    outputs = (
                        add(channel) if over_grpc else ask(server).json()["outputs"]
                    )
                    (amount,) = outputs["amount"]
                    assert outputs["y"] == [[1 + amount, 2 + amount]]
                    mine.append(amount)
                except Exception as error:
                    failures.append(repr(error))

        clients = [
            threading.Thread(target=client, args=(mine, index % 2))
            for index, mine in enumerate(seen)
        ]
        for thread in clients:
            thread.start()
        for version in range(2, 5):
            publish_adder(tmp_path / "adder", version)
            wait_for(lambda v=version: all(mine and mine[-1] == v for mine in seen))
        broken = tmp_path / "adder" / "9"
        broken.mkdir()
        (broken / "saved_model.pb").write_bytes(b"half of it")
        wait_for(lambda: states(server).get(9) == "END")
        wait_for(lambda: len(seen[0]) and states(server)[3] == "END")
        stop.set()
        for thread in clients:
            thread.join()
        assert not failures
        for mine in seen:  # one after the other, and never back
            assert sorted(set(mine)) == list(dict.fromkeys(mine))
        expected = {1: "END", 2: "END", 3: "END", 4: "AVAILABLE", 9: "END"}
        assert states(server) == expected
        status = requests.get(f"{server.url}/v1/models/adder/versions/9").json()
        (entry,) = status["model_version_status"]
        assert entry["status"]["error_code"] != "OK"
        # Published properly, it is tried again.
        (broken / "saved_model.pb").unlink()
        broken.rmdir()
        publish_adder(tmp_path / "adder", 9, version=9)
        wait_for(lambda: states(server).get(9) == "AVAILABLE")


def test_models_that_come_and_go_are_noticed(tmp_path):
    publish_adder(tmp_path / "adder", 1)
    with start(tmp_path) as server:
        assert ask(server, where="later").status_code == 404
        publish_adder(tmp_path / "later", 5)
        wait_for(lambda: ask(server, where="later").status_code == 200)
        (tmp_path / "later").rename(tmp_path / ".gone")
        wait_for(lambda: ask(server, where="later").status_code == 404)
        assert ask(server).status_code == 200


def reload(server, config):
    request = model_management_pb2.ReloadConfigRequest()
    text_format.Parse(config, request.config)
    with grpc.insecure_channel(server.grpc_target) as channel:
        stub = model_service_pb2_grpc.ModelServiceStub(channel)
        return stub.HandleReloadConfigRequest(request, timeout=60).status


def test_a_config_says_versions_and_labels(tmp_path):
    base = tmp_path / "adder"
    for amount in (1, 2, 3):
        publish_adder(base, amount)
    config = """model_config_list {{ config {{
      name: "adder" base_path: "{base}" model_platform: "tensorflow"
      model_version_policy {{ specific {{ versions: 1 versions: 2 }} }}
      version_labels {{ key: "stable" value: {stable} }} }} }}"""
    file = tmp_path / "models.config"
    file.write_text(config.format(base=base, stable=1))
    with start(file) as server:
        assert states(server) == {1: "AVAILABLE", 2: "AVAILABLE"}

        def amount(where):
            return ask(server, where=f"adder{where}").json()["outputs"]["amount"]

        assert amount("") == amount("/versions/2") == [2.0]
        assert amount("/labels/stable") == [1.0]
        assert reload(server, config.format(base=base, stable=2)).error_code == 0
        assert amount("/labels/stable") == [2.0]
        refused = reload(server, config.format(base=base, stable=3))
        assert refused.error_code == 9 and "not currently available" in (
            refused.error_message
        )
        assert amount("/labels/stable") == [2.0]


def test_what_lies_where_is_found(tmp_path):
    version = publish_adder(tmp_path / "models" / "adder", 1, version=7)
    for path in (version, version.parent, version.parents[1]):
        (source,) = find_models(path).values()
        assert (source.name, source.wanted()) == ("adder", {7: version})
    with pytest.raises(FileNotFoundError, match=r"Expected .*saved_model\.pb"):
        find_models(tmp_path)


def test_a_folder_that_cannot_be_read_is_told_once_and_stops_nobody(
    tmp_path, monkeypatch, caplog
):
    stamped = []
    monkeypatch.setattr(registry, "_stamp", lambda folder: stamped.append(folder))
    publish_adder(tmp_path / "adder", 1)
    models = registry.Registry(lambda: find_models(tmp_path))
    models.refresh()
    for name in ("adder", "later"):
        publish_adder(tmp_path / name, 2, version=2)

    def unreadable(base):
        if base.name == "adder":
            raise PermissionError("not now")
        return versions(base)

    monkeypatch.setattr(sources, "versions", unreadable)
    for _ in range(3):
        models.refresh()
    found = [(v.model, v.number, v.state) for v in models.all()]
    assert found == [("adder", 1, "AVAILABLE"), ("later", 2, "AVAILABLE")]
    told = [r.getMessage() for r in caplog.records if r.levelname == "ERROR"]
    assert told == ["adder: not now"]
    assert len(stamped) == 2  # once each: what is served is not looked through again
    monkeypatch.setattr(sources, "versions", versions)
    models.refresh()
    with models.lease("adder") as newest:
        assert newest.number == 2
    models.stop()


def body_of(size):
    return json.dumps({"inputs": [[1, 2]], "pad": "x" * size})


@pytest.mark.parametrize(
    ("data", "headers", "status"),
    [
        (body_of(10_000), {}, 200),
        (body_of(30_000), {}, 413),
        (gzip.compress(body_of(10_000).encode()), {"Content-Encoding": "gzip"}, 200),
        (gzip.compress(body_of(900_000).encode()), {"Content-Encoding": "gzip"}, 413),
        (b"no gzip", {"Content-Encoding": "gzip"}, 400),
    ],
    ids=["small", "large", "compressed small", "compressed large", "not compressed"],
)
def test_bodies_are_limited(strict, data, headers, status):
    url = f"{strict.url}/v1/models/adder:predict"
    answer = requests.post(url, data=data, headers=headers, timeout=60)
    assert answer.status_code == status
    assert list(answer.json()) == ["outputs" if status == 200 else "error"]


def test_rows_and_pixels_are_limited(strict, picture, encode):
    assert ask(strict, [[1, 2]] * 8).status_code == 200
    answer = ask(strict, [[1, 2]] * 9)
    assert answer.status_code == 400 and "At most 8 rows" in answer.json()["error"]
    images = [encode(picture(80, 100), "PNG") for _ in range(2)]  # 8000 pixels each
    codes = []
    for count in (1, 2):
        request = predict_pb2.PredictRequest()
        request.model_spec.name = "adder"
        request.model_spec.signature_name = "strings"
        request.inputs["data"].CopyFrom(tf.make_tensor_proto(images[:count]))
        codes.append(call(strict, request))
    assert codes[0].outputs["size"].int_val[:] == [len(images[0])]
    assert codes[1] == (
        "INVALID_ARGUMENT",
        "At most 10,000 pixels in a request. Received: 16,000",
    )


def call(server, request):
    """The response, or the code and the text of the refusal."""
    with grpc.insecure_channel(server.grpc_target) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        try:
            return stub.Predict(request, timeout=60)
        except grpc.RpcError as error:
            return error.code().name, error.details()


def test_a_small_message_cannot_ask_for_a_huge_tensor(strict):
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "adder"
    tensor = request.inputs["x"]
    tensor.dtype = tf.float32.as_datatype_enum
    tensor.float_val.append(1.0)
    for size in (1 << 40, 2):
        tensor.tensor_shape.dim.add(size=size)
    code, text = call(strict, request)
    assert code == "INVALID_ARGUMENT" and "larger than" in text


def test_what_takes_too_long_is_given_up(strict):
    started = time.monotonic()
    answer = ask(strict, [1e12], signature_name="slow")
    assert answer.status_code == 504 and time.monotonic() - started < 30
    assert ask(strict).status_code == 200


def test_a_slow_or_broken_upload_costs_nobody_else(strict):
    host, port = strict.host, strict.port
    head = (
        b"POST /v1/models/adder:predict HTTP/1.1\r\nHost: a\r\nContent-Length: 99\r\n"
    )
    with socket.create_connection((host, port)) as slow:
        slow.sendall(head + b"\r\n{")
        slow.settimeout(30)
        assert slow.recv(100).startswith(b"HTTP/1.1 408")
    for _ in range(5):  # more than may be under way
        with socket.create_connection((host, port)) as broken:
            broken.sendall(head + b"\r\n{")
    wait_for(lambda: ask(strict).status_code == 200)


def test_a_full_server_says_so_and_goes_on(strict):
    answers = []

    def client():
        answers.append(ask(strict, [1e12], signature_name="slow"))

    clients = [threading.Thread(target=client) for _ in range(8)]
    for thread in clients:
        thread.start()
    for thread in clients:
        thread.join()
    codes = [answer.status_code for answer in answers]
    assert set(codes) == {503, 504} and codes.count(504) >= 3
    busy = next(answer for answer in answers if answer.status_code == 503)
    assert busy.headers["Retry-After"] == "1" and "under way" in busy.json()["error"]
    assert ask(strict).status_code == 200


def test_one_connection_carries_many_requests(strict):
    connection = http.client.HTTPConnection(strict.host, strict.port, timeout=60)
    for turn in range(20):
        body = json.dumps({"inputs": [[turn, 0]]} if turn % 3 else {"inputs": [[]]})
        connection.request("POST", "/v1/models/adder:predict", body)
        response = connection.getresponse()
        answer = json.loads(response.read())
        if turn % 3:
            np.testing.assert_array_equal(answer["outputs"]["y"], [[turn + 10, 10]])
        else:
            assert response.status == 400
    connection.close()


def test_a_port_that_is_taken_is_named(strict, tmp_path):
    publish_adder(tmp_path / "adder", 1)
    with pytest.raises(OSError, match=f"{strict.port} cannot be used"):
        Server(tmp_path, port=strict.port, grpc_port=0).start()
    with pytest.raises(OSError, match=f"{strict.grpc_port} cannot be used"):
        Server(tmp_path, port=0, grpc_port=strict.grpc_port).start()


def test_nothing_to_serve_is_wrong_usage(tmp_path, capsys):
    assert main(["serve", str(tmp_path)]) == 2
    assert "No model to serve" in capsys.readouterr().err
    (tmp_path / "models.config").write_text("model_config_list { config {} }")
    assert main(["serve", str(tmp_path / "models.config")]) == 1
    assert "name must be given" in capsys.readouterr().err


def test_serve_starts_with_all_of_its_models_or_not_at_all(
    tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(signal, "signal", lambda *_: None)  # pytest keeps its own
    publish_adder(tmp_path / "adder", 1)
    (tmp_path / "broken" / "3").mkdir(parents=True)
    (tmp_path / "broken" / "3" / "saved_model.pb").write_bytes(b"half of it")
    ports = ["--port", "0", "--grpc-port", "0"]
    assert main(["serve", str(tmp_path), *ports]) == 1
    error = capsys.readouterr().err
    assert "broken: version 3: " in error and "adder" not in error.split("Models")[1]
    models = "".join(
        f'config {{ name: "{name}" base_path: "{tmp_path / name}" }}'
        for name in ("adder", "later")
    )
    (tmp_path / "models.config").write_text(f"model_config_list {{ {models} }}")
    assert main(["serve", str(tmp_path / "models.config"), *ports]) == 1
    assert "later: it has no version" in capsys.readouterr().err


def test_a_label_without_its_version_is_named(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(signal, "signal", lambda *_: None)  # pytest keeps its own
    publish_adder(tmp_path / "adder", 1)
    file = tmp_path / "models.config"
    file.write_text(
        f'model_config_list {{ config {{ name: "adder" base_path: "{tmp_path}/adder" '
        'version_labels { key: "stable" value: 9 } } }'
    )
    assert main(["serve", str(file), "--port", "0", "--grpc-port", "0"]) == 1
    error = capsys.readouterr().err
    assert "models.config: Request to assign label stable to version 9" in error
    assert "Traceback" not in error


def test_a_signal_ends_a_server_that_still_loads(tmp_path):
    version = publish_adder(tmp_path / "adder", 1)
    write_warmup(version, {"slow": {"x": np.array([1e12], np.float32)}})  # endless
    command = [sys.executable, "-m", "visionkit.tasks", "serve", str(tmp_path)]
    command += ["--port", "0", "--grpc-port", "0"]
    numbers = signal.SIGTERM, signal.SIGINT
    loading = [
        subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in numbers
    ]
    try:
        for process, number in zip(loading, numbers, strict=True):
            assert any("development server" in line for line in process.stderr)
            process.send_signal(number)
            assert process.wait(60) == -number
    finally:
        for process in loading:
            process.kill()
            process.communicate()


def test_answers_are_not_held_back(strict):
    """Small packets wait 40 ms for each other where Nagle's algorithm is on."""
    connection, times = http.client.HTTPConnection(strict.host, strict.port), []
    for _ in range(40):
        started = time.perf_counter()
        connection.request("GET", "/v1/models/adder")
        connection.getresponse().read()
        times.append(time.perf_counter() - started)
    connection.close()
    assert sorted(times[20:])[5] < 0.03  # the first ones are sent at once in any case


def test_sigterm_answers_what_is_under_way(tmp_path):
    publish_adder(tmp_path / "adder", 1)
    command = [sys.executable, "-m", "visionkit.tasks", "serve", str(tmp_path)]
    process = subprocess.Popen(
        [*command, "--port", "0", "--grpc-port", "0", "--timeout", "2"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        lines = iter(process.stdout.readline, "")
        url = next(
            re.search(r"http://\S+(?=/v1)", line) for line in lines if "REST" in line
        )
        target = next(line for line in lines if "gRPC" in line).split()[1]
        host, port = url[0].removeprefix("http://").split(":")
        connections = [http.client.HTTPConnection(host, int(port)) for _ in range(2)]
        body = json.dumps({"signature_name": "slow", "inputs": [1e12]})
        for connection in connections:
            connection.request("POST", "/v1/models/adder:predict", body)
        slow = predict_pb2.PredictRequest()
        slow.model_spec.name, slow.model_spec.signature_name = "adder", "slow"
        slow.inputs["x"].CopyFrom(tf.make_tensor_proto([1e12], tf.float32))
        channel = grpc.insecure_channel(target)
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        calls = [stub.Predict.future(slow, timeout=60) for _ in range(2)]
        # Answered after them, so they have arrived.
        assert requests.get(f"{url[0]}/v1/models/adder", timeout=60).ok
        assert add(channel)["y"] == [[2.0, 3.0]]
        process.send_signal(signal.SIGTERM)
        told = time.monotonic()
        # Answered, though the server was told to stop.
        for connection in connections:
            assert connection.getresponse().status == 504
            connection.close()
        for call in calls:
            assert call.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        # Three seconds on a quiet machine.
        assert process.wait(60) == 0 and time.monotonic() - told < 30
        assert "development server, not TensorFlow Serving" in process.stderr.read()
        with pytest.raises(requests.ConnectionError):
            requests.get(f"{url[0]}/v1/models/adder", timeout=5)
        with pytest.raises(grpc.RpcError, match="UNAVAILABLE"):
            add(channel)
        channel.close()
    finally:
        process.kill()
        process.communicate()
