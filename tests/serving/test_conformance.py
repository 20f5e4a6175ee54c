"""Our server holds what the suite asks, and the suite finds what does not hold."""

import pytest

from visionkit.serving.conformance.__main__ import main
from visionkit.serving.server import json_tensors


@pytest.mark.parametrize("model", ["letters", "boxes", "boxes_odapi", "painter"])
def test_the_development_server_conforms(server, saved_models, model, capsys):
    target = ["--target", server.url, "--grpc", server.grpc_target, "--model", model]
    assert main([*target, "--saved-model", str(saved_models[model])]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 24 and not any("left out" in line for line in lines)


def test_wrong_answers_are_found(server, saved_models, monkeypatch, capsys):
    real = json_tensors.write_json

    def one_row_late(outputs, rows):
        rolled = {n: v[[-1, *range(len(v) - 1)]] for n, v in outputs.items()}
        return real(rolled, rows)

    monkeypatch.setattr(json_tensors, "write_json", one_row_late)
    folder = str(saved_models["letters"])
    arguments = ["--target", server.url, "--model", "letters", "--saved-model", folder]
    assert main(arguments) == 1
    failed = [line for line in capsys.readouterr().out.splitlines() if "FAILS" in line]
    assert any("answers_equal_the_signature" in line for line in failed)


def test_a_server_that_is_not_there_is_wrong_usage(server, capsys):
    assert main(["--target", server.url, "--model", "none"]) == 2
    assert main(["--target", "http://127.0.0.1:1", "--model", "letters"]) == 2
