"""The deployment kit is read by those who are to read it: protobuf, YAML, bash."""

import json
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
from visionkit.serving.kit_manifests import Machine, compose
from visionkit.serving.server.sources import read_config_file
from visionkit.tasks.__main__ import main


@pytest.fixture
def models(tmp_path):
    folder = tmp_path / "saved_models"
    for number in (3, 12):
        add_version(folder / "flowers" / str(number), "classification")
    add_version(folder / "cells" / "1", "instance_segmentation")
    return folder


def add_version(folder, task):
    folder.mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(b"0" * 1000 * int(folder.name))
    (folder / "model.json").write_text(json.dumps({"task": task}))


def read_manifests(folder):
    """The service of Compose, and kind -> document of Kubernetes."""
    compose = yaml.safe_load((folder / "compose.yaml").read_text())
    (service,) = compose["services"].values()
    documents = yaml.safe_load_all((folder / "kubernetes.yaml").read_text())
    return service, {document["kind"]: document for document in documents}


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


@pytest.mark.parametrize("task", ["semantic_segmentation", "another"])
def test_answers_of_several_sizes_are_not_put_together(models, tmp_path, task):
    # The server would join the parts of a request as if all had the size of the first.
    add_version(models / "roads" / "1", task)
    write_kit(tmp_path, choose_versions([models]), batch=16)
    lines = (tmp_path / "batching.config").read_text().splitlines()
    assert "enable_large_batch_splitting { value: false }" in lines
    assert "max_batch_size { value: 64 }" in lines
    assert not any("max_execution_batch_size" in line for line in lines)


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
    service, documents = read_manifests(tmp_path / "kit")
    volume = {"type": "bind", "target": "/models/flowers", "read_only": True}
    assert {**volume, "source": str(models / "flowers")} in service["volumes"]
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    assert service["image"].startswith("tensorflow/serving:")

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
    # Also over gRPC, where a client stays until it is asked to connect again; one call
    # may take as long as any.
    flags = dict(flag.split("=", 1) for flag in container["args"])
    pairs = flags["--grpc_channel_arguments"].split(",")
    age, grace = (int(pair.partition("=")[2]) for pair in pairs)
    assert age <= 1000 * sleep / 2
    assert grace >= int(flags["--rest_api_timeout_in_ms"])
    # Room for two versions of both models at least, of 12,000 and 1,000 bytes.
    memory = container["resources"]["limits"]["memory"]
    assert memory >= (1 << 30) + 2 * 13_000 and memory % (256 << 20) == 0
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 1
    labels = documents["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert documents["Service"]["spec"]["selector"] == labels
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["volumes"]}


def test_threads_follow_the_cores_of_the_container(models, tmp_path):
    write_kit(tmp_path, choose_versions([models]), cpus=3, batch=100)
    service, _ = read_manifests(tmp_path)
    for pool in ("intra", "inter"):
        assert f"--tensorflow_{pool}_op_parallelism=3" in service["command"]
    # A request holds a thread while it waits, and must not keep a batch from filling.
    for flag in ("--rest_api_num_threads", "--grpc_max_threads"):
        assert f"{flag}=200" in service["command"]


def test_only_what_is_read_at_the_start_restarts_servers(models, tmp_path):
    def started_with(**choice):
        write_kit(tmp_path, choose_versions([models], **choice))
        service, documents = read_manifests(tmp_path)
        return service, documents["Deployment"]["spec"]["template"]

    before = started_with()
    assert started_with(canary=True) == before
    add_version(models / "flowers" / "13", "classification")
    assert started_with() == before
    # No flag and no limit differs: the template has to tell of the file's content.
    add_version(models / "cells" / "2", "semantic_segmentation")
    for then, now in zip(before, started_with(), strict=True):
        assert then != now


def test_only_named_namespaces_may_ask(models, tmp_path):
    def admitted(*arguments):
        assert main(["kit", str(models), "--out", str(tmp_path), *arguments]) == 0
        (rule,) = read_manifests(tmp_path)[1]["NetworkPolicy"]["spec"]["ingress"]
        return rule["from"]

    own = {"podSelector": {}}
    assert admitted() == [own]
    names = ["--allow-namespace", "gateway", "--allow-namespace", "monitoring"]
    assert admitted(*names) == [
        own,
        *(
            {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": n}}}
            for n in ("gateway", "monitoring")
        ),
    ]


@pytest.mark.parametrize("gpu", [[], ["--gpu"]])
def test_an_image_of_ones_own_is_taken_as_it_is_named(models, tmp_path, gpu):
    image = ["--image", "registry/serving@sha256:00"]
    assert main(["kit", str(models), "--out", str(tmp_path), *image, *gpu]) == 0
    assert read_manifests(tmp_path)[0]["image"] == image[1]


def test_compose_takes_folders_by_their_names():
    folders = {"a": Path("/price: 5$/{a}")}
    machine = Machine(image="image", memory=1, cpus=1, gpu=False, batch=1)
    files = {"batching.config": "", "monitoring.config": ""}
    volumes = compose(files, folders, machine)["services"]["serving"]["volumes"]
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


@pytest.fixture
def ready(models, tmp_path):
    """Runs the kit's script against a server; returns its status and its messages."""
    states = {}

    class Status(BaseHTTPRequestHandler):
        def do_GET(self):
            state = states.get(self.path.removeprefix("/v1/models/"))
            self.send_response(200 if state else 404)
            self.end_headers()
            self.wfile.write(f'{{"state": "{state}"}}'.encode())

        def log_message(self, *_):
            pass

    def run(*arguments, **now):
        states.clear()
        states.update(now)
        write_kit(tmp_path / "kit", choose_versions([models]))
        return subprocess.run(
            ["bash", tmp_path / "kit" / "ready.sh", *arguments],
            env={**os.environ, "PORT": str(server.server_port), "TMPDIR": str(stamps)},
            capture_output=True,
        )

    stamps = tmp_path / "stamps"
    stamps.mkdir()
    with HTTPServer(("127.0.0.1", 0), Status) as server:
        threading.Thread(target=server.serve_forever, args=[0.05]).start()
        yield run
        server.shutdown()


UP = "AVAILABLE"


@pytest.mark.parametrize("state", ["LOADING", None])
@pytest.mark.parametrize("mode", [[], ["all"]])
def test_a_server_is_ready_when_it_has_every_model(ready, state, mode):
    for _ in range(2):  # having been asked changes nothing
        assert ready(*mode, cells=UP, flowers=state).returncode
    done = ready(*mode, cells=UP, flowers=UP)
    assert done.returncode == 0 and not done.stderr


@pytest.mark.parametrize("state", ["LOADING", "END"])
def test_a_model_is_added_while_others_serve(ready, models, state):
    others = {"cells": UP, "flowers": UP}
    assert ready("all", **others).returncode == 0
    add_version(models / "roads" / "1", "classification")
    # Those that run stay in service, also when it never loads; a new one waits for it.
    assert ready(**others, roads=state).returncode == 0
    assert ready("all", **others, roads=state).returncode
    # One that was served and is gone counts, the added one no less than the others.
    assert ready(cells=UP, flowers="END", roads=state).returncode
    assert ready(**others, roads=UP).returncode == 0
    assert ready(**others).returncode


def test_a_model_that_comes_back_is_a_new_one(ready, models):
    assert ready(cells=UP, flowers=UP).returncode == 0
    (models / "cells").rename(models / ".cells")
    assert ready(flowers=UP).returncode == 0
    (models / ".cells").rename(models / "cells")
    assert ready(flowers=UP, cells="LOADING").returncode == 0


def test_a_server_that_does_not_listen_is_not_ready(models, tmp_path):
    write_kit(tmp_path, choose_versions([models]))
    environment = {**os.environ, "PORT": "1", "TMPDIR": str(tmp_path)}
    command = ["bash", str(tmp_path / "ready.sh")]
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
        environment = {**os.environ, "PORT": str(server.port), "TMPDIR": str(tmp_path)}
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
