"""What docs/serving.md tells people to type works against a server."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from mask_finder import draw_shapes

PAGE = (Path(__file__).parents[2] / "docs" / "serving.md").read_text("utf-8")
SNIPPETS = re.findall(r"<!-- run -->\n```(\w+)\n(.*?)```", PAGE, re.DOTALL)
# A model of the page -> the one here.
MODELS = {"flowers": "letters", "scenes": "boxes", "roads": "painter", "cells": "masks"}
PRINTED = ["AVAILABLE", "grün", "(100, 333) 1", "(2, 100, 333)", "'grün'"]


@pytest.mark.parametrize("index", range(len(PRINTED)))
def test_snippet_runs(index, server, tmp_path):
    (tmp_path / "photo.jpg").write_bytes(
        draw_shapes((100, 333), [[30, 20, 70, 60], [10, 65, 80, 95]])[0]
    )
    language, code = SNIPPETS[index]
    code = code.replace("http://localhost:8501", server.url)
    code = code.replace("localhost:8500", server.grpc_target)
    for name, here in MODELS.items():
        code = code.replace(f"/{name}", f"/{here}").replace(f'"{name}"', f'"{here}"')
    runner = ["bash", "-euo", "pipefail"] if language == "bash" else [sys.executable]
    # One of the class names is not UTF-8.
    done = subprocess.run(
        [*runner, "-c", code],
        cwd=tmp_path,
        capture_output=True,
        encoding="utf-8",
        errors="surrogateescape",
    )
    assert done.returncode == 0, done.stderr
    assert PRINTED[index] in done.stdout
    if language == "bash":
        decoder = json.JSONDecoder()
        _, end = decoder.raw_decode(done.stdout)
        answer, _ = decoder.raw_decode(done.stdout[end:].lstrip())
        (row,) = answer["predictions"]
        assert row["image_valid"] == 1 and len(row["probabilities"]) == 4


def test_every_snippet_is_run():
    assert len(SNIPPETS) == len(PRINTED)


def test_the_page_names_the_signatures_and_their_answers(saved_models):
    rows = dict(re.findall(r"^\| `?([\w ]+)`? \| (.*) \|$", PAGE, re.MULTILINE))
    tasks = {"letters": "classification", "boxes": "detection"}
    tasks["painter"] = "semantic segmentation"
    for name, task in tasks.items():
        described = json.loads((saved_models[name] / "model.json").read_text())
        for signature, content in described["signatures"].items():
            (taken,) = content["inputs"]
            assert f"`{taken}`" in rows[signature]
        answers = described["signatures"]["serving_default"]["outputs"]
        assert set(re.findall(r"`(\w+)`", rows[task])) == set(answers)
    masks = json.loads((saved_models["masks"] / "model.json").read_text())
    assert "masks" in masks["signatures"]["serving_default"]["outputs"]


def test_the_commands_of_the_page_exist():
    from visionkit.tasks.__main__ import build_parser

    for line in re.findall(r"^ *python -m visionkit\.tasks (.*)$", PAGE, re.MULTILINE):
        build_parser().parse_args(line.split())
