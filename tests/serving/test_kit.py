"""The deployment kit is read by those who are to read it: protobuf, YAML, bash."""

import os
import shutil
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import yaml
from google.protobuf import text_format

from visionkit.serving.kit import choose_versions, write_kit
from visionkit.serving.kit_manifests import compose
from visionkit.serving.server.sources import read_config_file
from visionkit.tasks.__main__ import main


@pytest.fixture
def models(tmp_path):
    for name, numbers in {"flowers": (3, 12), "cells": (1,)}.items():
        for number in numbers:
            folder = tmp_path / "saved_models" / name / str(number)
            folder.mkdir(parents=True)
            (folder / "saved_model.pb").write_bytes(b"0" * 1000 * number)
    return tmp_path / "saved_models"


def test_models_config_names_versions_and_labels(models, tmp_path):
    write_kit(tmp_path / "kit", choose_versions([models], canary=True))
    sources = read_config_file(tmp_path / "kit" / "models.config")
    assert {k: sorted(s.specific) for k, s in sources.items()} == {
        "flowers": [3, 12],
        "cells": [1],
    }
    assert sources["flowers"].labels == {"stable": 3, "canary": 12}
    assert sources["cells"].labels == {"stable": 1}
    assert str(sources["cells"].base) == "/models/cells"

    # Without a canary the newest is stable, and the way back stays loaded.
    (flowers,) = choose_versions([models / "flowers"])
    assert flowers.labels == {"previous": 3, "stable": 12}
    (pinned,) = choose_versions([models / "flowers" / "3"])
    assert pinned.labels == {"stable": 3} and pinned.base == models / "flowers"
    # Back: the order says which is to be the newer one.
    (back,) = choose_versions([models / "flowers" / n for n in ("12", "3")])
    assert back.labels == {"previous": 12, "stable": 3}


@pytest.mark.parametrize(("batch", "largest"), [(1, 64), (16, 64), (100, 100)])
def test_a_request_may_hold_more_than_runs_at_once(models, tmp_path, batch, largest):
    write_kit(tmp_path, choose_versions([models]), batch=batch)
    lines = (tmp_path / "batching.config").read_text().splitlines()
    # What is larger than the first the server refuses; what it runs is the second.
    assert f"max_batch_size {{ value: {largest} }}" in lines
    assert f"max_execution_batch_size {{ value: {batch} }}" in lines
    assert "enable_large_batch_splitting { value: true }" in lines


def test_after_a_rollback_the_bad_version_does_not_come_back(models, tmp_path, capsys):
    flowers, config = models / "flowers", tmp_path / "kit" / "models.config"

    def kit(*folders, code=0):
        arguments = [str(folder) for folder in folders]
        assert main(["kit", *arguments, "--out", str(config.parent)]) == code
        return read_config_file(config)["flowers"].labels

    def add(number):
        (flowers / number).mkdir()
        (flowers / number / "saved_model.pb").write_bytes(b"0")

    assert kit(models) == {"stable": 12, "previous": 3}
    add("13")
    assert kit(models, "--canary") == {"stable": 12, "canary": 13}
    assert kit(models) == {"stable": 13, "previous": 12}
    back = {"stable": 12, "previous": 13}
    assert kit(flowers / "13", flowers / "12", models / "cells") == back
    add("14")
    capsys.readouterr()
    assert kit(models, "--canary", code=1) == back
    said = capsys.readouterr().err.replace("\n", " ")
    assert "Version 13 of 'flowers' would become stable" in said
    assert f"{flowers / '12'} {flowers / '14'}" in said
    named = (flowers / "12", flowers / "14", models / "cells")
    assert kit(*named, "--canary") == {"stable": 12, "canary": 14}


def test_manifests_hold_together(models, tmp_path):
    write_kit(tmp_path / "kit", choose_versions([models]), cpus=4, gpu=True)
    compose = yaml.safe_load((tmp_path / "kit" / "compose.yaml").read_text())
    (service,) = compose["services"].values()
    volume = {"type": "bind", "target": "/models/flowers", "read_only": True}
    assert {**volume, "source": str(models / "flowers")} in service["volumes"]
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    assert service["image"].startswith("tensorflow/serving:")

    text = (tmp_path / "kit" / "kubernetes.yaml").read_text()
    documents = {d["kind"]: d for d in yaml.safe_load_all(text)}
    pod = documents["Deployment"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    # Both run the same server, on files that the ConfigMap holds.
    assert container["args"] == service["command"]
    config = documents["ConfigMap"]["data"]
    used = [a.partition("=/kit/")[2] for a in container["args"] if "=/kit/" in a]
    used.append(container["readinessProbe"]["exec"]["command"][-1].split("/")[-1])
    assert set(used) == set(config)
    for name, content in config.items():
        assert (tmp_path / "kit" / name).read_text() == content
    # Drained: it sleeps for less than it is given, and longer than a request may take.
    sleep = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    assert 30 <= sleep < pod["terminationGracePeriodSeconds"]
    # Room for two versions of both models at least, of 12,000 and 1,000 bytes.
    memory = container["resources"]["limits"]["memory"]
    assert memory >= (1 << 30) + 2 * 13_000 and memory % (256 << 20) == 0
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 1
    labels = documents["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert documents["Service"]["spec"]["selector"] == labels
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["volumes"]}


def test_compose_takes_folders_by_their_names():
    folders = {"a": Path("/price: 5$/{a}")}
    machine = {"image": "image", "memory": 1, "cpus": 1, "gpu": False}
    volumes = compose(folders, **machine)["services"]["serving"]["volumes"]
    assert volumes[1]["source"] == "/price: 5$$/{a}"
    assert all(volume["read_only"] for volume in volumes)


def test_monitoring_and_batching_are_protobuf_text(models, tmp_path):
    from google.protobuf import struct_pb2

    write_kit(tmp_path, choose_versions([models]))
    for name in ("monitoring.config", "batching.config"):
        text = (tmp_path / name).read_text()
        # Their messages are not among the stubs: the parser that skips unknown fields
        # still reads every token, and refuses what is cut off.
        message = struct_pb2.Struct()
        text_format.Parse(text, message, allow_unknown_field=True)
        with pytest.raises(text_format.ParseError):
            text_format.Parse(f"{text}}}", message, allow_unknown_field=True)


@pytest.mark.parametrize("state", ["AVAILABLE", "LOADING", None])
def test_ready_script_waits_for_every_model(models, tmp_path, state):
    class Status(BaseHTTPRequestHandler):
        def do_GET(self):
            here = "AVAILABLE" if self.path.endswith("cells") else state
            self.send_response(200 if here else 404)
            self.end_headers()
            self.wfile.write(f'{{"state": "{here}"}}'.encode())

        def log_message(self, *_):
            pass

    write_kit(tmp_path, choose_versions([models]))
    server = HTTPServer(("127.0.0.1", 0), Status)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    environment = {**os.environ, "PORT": str(server.server_port)}
    command = ["bash", str(tmp_path / "ready.sh")]
    try:
        done = subprocess.run(command, env=environment, capture_output=True)
    finally:
        server.shutdown()
        server.server_close()
    assert (done.returncode == 0) == (state == "AVAILABLE")
    assert not done.stderr
    # And nobody there.
    assert subprocess.run(command, env=environment, capture_output=True).returncode


def test_labels_lead_clients_to_their_versions(saved_models, tmp_path, picture):
    from visionkit.serving import CallError, Client, Server

    for number in ("1", "2"):
        copy = tmp_path / "models" / "letters" / number
        shutil.copytree(saved_models["letters"], copy)
    write_kit(tmp_path, choose_versions([tmp_path / "models"], canary=True))
    config = tmp_path / "models.config"
    config.write_text(config.read_text().replace('"/models', f'"{tmp_path}/models'))
    with Server(config, port=0, grpc_port=0) as server:
        for url in (server.url, f"grpc://{server.grpc_target}"):
            for label, version in {"stable": 1, "canary": 2}.items():
                with Client(url, "letters", label=label) as client:
                    assert client.status() == {version: "AVAILABLE"}
                    assert client.predict(picture(30, 40))[0].ok
            with pytest.raises(CallError, match="previous"):
                Client(url, "letters", label="previous").predict(picture(30, 40))
        environment = {**os.environ, "PORT": str(server.port)}
        subprocess.run(["bash", tmp_path / "ready.sh"], env=environment, check=True)


def test_command_line_writes_the_kit(models, tmp_path, capsys):
    assert main(["kit", str(models), "--out", str(tmp_path / "kit"), "--canary"]) == 0
    assert "flowers: canary 12, stable 3" in capsys.readouterr().out
    assert len(list((tmp_path / "kit").iterdir())) == 6


def test_what_cannot_be_deployed_is_refused(models, tmp_path):
    with pytest.raises(FileNotFoundError, match="No model to serve"):
        choose_versions([tmp_path])
    (models / "a b" / "1").mkdir(parents=True)
    with pytest.raises(ValueError, match="must be named with letters"):
        choose_versions([models])
    with pytest.raises(ValueError, match="at least 1"):
        write_kit(tmp_path, [], batch=0)
    for twice in (["cells", "cells"], ["cells", "cells/1"], ["flowers/3"] * 3):
        with pytest.raises(ValueError, match="once, or up to two"):
            choose_versions([models / folder for folder in twice])
    (models / "cells").rename(models / "latest")
    (models / "latest" / "1").rename(models / "latest" / "v1")
    with pytest.raises(ValueError, match="must be a number"):
        choose_versions([models / "latest" / "v1"])
